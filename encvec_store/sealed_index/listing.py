"""Builds lists whose codes lie in the store, within a bounded memory.

Rows come piece by piece. Their codes are gathered into runs. Each run is sorted by list and stored in blocks. In the
end all runs, and the lists that are extended, are merged list by list. Only row numbers are held for every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..data.arrays import Bytes, Matrix, Rows
from ..data.metrics import Metric
from ..runtime.concurrency import offload
from .blocks import Blocks, BlockWriter, Places, fetched
from .clustering import NearestCentroid
from .faissing import points_of, width_of
from .growth import PIECE, Reader
from .index import Opener
from .kinds import points_within
from .lists import Layout, Lists, Numbers, ends_of
from .ondemand import lists_of
from .state import Indexed
from .trial import ListTrial, asking

__all__ = ["Listing", "listed"]

_RUN, _MERGED = 8, 16
"""Parts of the memory that the codes of a run may take, and those of a step of merging."""
_LEAST = 1 << 20
_GONE = np.uint32(0xFFFF_FFFF)
Numbered = npt.NDArray[np.int32]


@dataclass
class _Run:
    """Codes in the order of their lists: in blocks, or in memory."""

    ends: Numbers
    moved: Places | None
    """The position in the new graph of each position; `_GONE` for a row that was removed. None if they stay."""
    blocks: Blocks | None = None
    codes: Bytes = field(default_factory=lambda: np.empty((0, 0), np.uint8))
    places: Places = field(default_factory=lambda: np.empty(0, np.uint32))

    def read(self, opener: Opener, start: int, stop: int) -> tuple[Bytes, Places]:
        """Return the codes and new positions of some places."""
        blocks = self.blocks
        if blocks is None:
            codes, places = self.codes[start:stop], self.places[start:stop]
        else:
            each = blocks.each
            parts = range(start // each, -(-stop // each))
            opened = fetched(opener.records, opener.keyring, blocks, parts)
            skip = start - parts.start * each
            codes = np.concatenate([blocks.codes_of(opened[part]) for part in parts])[skip : skip + stop - start]
            places = np.concatenate([blocks.places_of(opened[part]) for part in parts])[skip : skip + stop - start]
        return codes, places if self.moved is None else self.moved[places]


class Listing:
    """Makes one graph.

    Args:
        opener: the open collection.
        metric: the collection's.
        version: the key version of the rows.
        memory: bytes that the work may take, beside row numbers.
        layout: how vectors become codes.
        trial: finds how many lists of a new layout are to be read.
    """

    def __init__(
        self, opener: Opener, metric: Metric, version: int, memory: int, layout: Layout, trial: ListTrial | None
    ) -> None:
        self._opener, self._metric, self._version = opener, metric, version
        self._layout, self._memory, self._trial = layout, memory, trial
        self._nearest = offload(layout.lists, NearestCentroid, layout.centroids)
        self._runs: list[_Run] = []
        self._waiting: list[tuple[Numbered, Bytes]] = []
        self._rows: list[Rows] = []
        self._count = 0

    def add(self, rows: Rows, vectors: Matrix) -> None:
        """Take n rows, larger than those before, and their vectors."""
        self._waiting.append(offload(len(rows), self._encoded, vectors))
        self._rows.append(rows)
        if sum(codes.nbytes for _, codes in self._waiting) > max(_LEAST, self._memory // _RUN):
            self._store_run()

    def finished(self, base: Indexed | None) -> tuple[Rows, Lists] | None:
        """Return the rows and the graph of everything, together with the living rows of a base of the same layout.

        Returns None if there are no rows.
        """
        new = np.concatenate([np.empty(0, np.int64), *self._rows])
        self._rows = []
        rows = new
        if base is not None:
            rows = np.concatenate([base.living_rows, new])
            if len(new) and len(rows) > len(new) and rows[-len(new) - 1] > new[0]:
                rows = offload(len(rows), np.sort, rows)
        if not len(rows):
            return None
        if self._trial is not None:
            self._layout.probes = offload(self._layout.lists, self._trial.probes)
        temporary = [run.blocks.name for run in self._runs if run.blocks is not None]
        if self._waiting:
            self._runs.append(offload(self._count, self._sorted))
        moved = offload(len(rows), _moved, rows, new) if base is not None else None
        for run in self._runs:
            run.moved = moved
        if base is not None:
            graph = lists_of(base)
            self._runs.insert(0, _Run(graph.ends, offload(len(rows), _kept, rows, base), graph.blocks))
        made = self._merged(len(rows))
        if temporary:
            self._opener.records.keep(drop=temporary)
        return rows, made

    def _encoded(self, vectors: Matrix) -> tuple[Numbered, Bytes]:
        points = points_of(self._layout.metric, vectors, self._layout.width)
        lists, codes = self._layout.encoded(points, self._nearest)
        if self._trial is not None:
            self._trial.add(points, lists)
        return lists, codes

    def _sorted(self) -> _Run:
        lists = np.concatenate([some for some, _ in self._waiting])
        codes = np.concatenate([some for _, some in self._waiting])
        self._waiting = []
        order = np.argsort(lists, kind="stable")
        first, self._count = self._count, self._count + len(lists)
        ends = ends_of(np.bincount(lists, minlength=self._layout.lists))
        return _Run(ends, None, None, codes[order], (first + order).astype(np.uint32))

    def _store_run(self) -> None:
        run = offload(self._count + 1_000, self._sorted)
        run.blocks = self._stored(len(run.codes), iter([(run.codes, run.places)]))
        run.codes, run.places = run.codes[:0], run.places[:0]
        self._runs.append(run)

    def _merged(self, count: int) -> Lists:
        """Merge all runs into new blocks."""
        runs, layout = self._runs, self._layout
        sizes = np.zeros(layout.lists, np.int64)

        def pieces() -> Iterator[tuple[Bytes, Places]]:
            most = max(_LEAST, self._memory // _MERGED) // (layout.code + 8)
            totals = np.sum([run.ends for run in runs], axis=0)
            first = 0
            while first < layout.lists:
                last = max(first + 1, int(np.searchsorted(totals, totals[first] + most, "right")) - 1)
                if last == first + 1:  # perhaps a very long one
                    for run in runs:
                        for start in range(run.ends[first], run.ends[last], most):
                            codes, places = run.read(self._opener, start, min(start + most, int(run.ends[last])))
                            keep = places != _GONE
                            sizes[first] += np.count_nonzero(keep)
                            yield codes[keep], places[keep]
                else:
                    yield self._sorted_piece(runs, first, last, sizes)
                first = last

        blocks = self._stored(count, pieces())
        return Lists(layout, ends_of(sizes), blocks)

    def _sorted_piece(self, runs: Sequence[_Run], first: int, last: int, sizes: Numbers) -> tuple[Bytes, Places]:
        """Return the codes and positions of lists first..last-1 of all runs, list by list."""
        found = [
            (np.diff(run.ends[first : last + 1]), *run.read(self._opener, int(run.ends[first]), int(run.ends[last])))
            for run in runs
            if run.ends[last] > run.ends[first]
        ]
        if not found:
            return np.empty((0, self._layout.code), np.uint8), np.empty(0, np.uint32)
        return offload(sum(len(places) for *_, places in found), _by_list, found, sizes[first:last])

    def _stored(self, count: int, pieces: Iterator[tuple[Bytes, Places]]) -> Blocks:
        opener = self._opener
        writer = BlockWriter(opener.records, opener.keyring, self._version, count, self._layout.code)
        for codes, places in pieces:
            writer.add(codes, places)
        return writer.finish()


def listed(
    opener: Opener,
    metric: Metric,
    base: Indexed | None,
    version: int,
    rows: Rows,
    read: Reader,
    after: Callable[[int], None],
    memory: int,
    like: Rows | None = None,
) -> Indexed | None:
    """Return a part of lists that holds rows, with the living rows of `base`, whose layout it keeps.

    Its blocks are stored, and it is not. Returns None if no row is there any more.

    Args:
        opener: the open collection.
        metric: the collection's.
        base: a part of lists; None to begin a new one.
        version: the key version of the rows.
        rows: ascending, none of them in `base`.
        read: gives their vectors.
        after: called after each piece, with its number of rows.
        memory: bytes that the work may take.
        like: rows that the part will hold in the end, if they are more.
    """
    trial = None
    if base is not None:
        layout = lists_of(base).layout
    else:
        expected = rows if like is None else like
        trying = read(asking(rows))[1]
        others = np.setdiff1d(expected, asking(rows), assume_unique=True)
        dim = trying.shape[1]
        some = _points_among(read, others if len(others) else expected, points_within(memory, dim), metric.name, dim)
        layout = offload(len(some), Layout.of, metric.name, dim, some, len(expected))
        trial = ListTrial(layout, trying if len(trying) else np.zeros((1, dim), np.float32), len(expected))
        del some
    making = Listing(opener, metric, version, memory, layout, trial)
    for start in range(0, len(rows), PIECE):
        asked = rows[start : start + PIECE]
        found, vectors = read(asked)
        if len(found):
            making.add(found, vectors)
        after(len(asked))
    done = making.finished(base)
    return None if done is None else Indexed(version, done[1], done[0])


def _points_among(read: Reader, rows: Rows, most: int, metric: str, dim: int) -> Matrix:
    """Return about `most` of the rows, evenly spread, as points; at least one. They are held once only."""
    some = rows[:: -(-len(rows) // most)]
    points, count = np.zeros((max(1, len(some)), width_of(dim)), np.float32), 0
    for start in range(0, len(some), PIECE):
        found = read(some[start : start + PIECE])[1]
        points[count : count + len(found)] = points_of(metric, found, points.shape[1])
        count += len(found)
    return points[: max(1, count)]  # fewer if some were deleted a moment ago


def _moved(rows: Rows, new: Rows) -> Places:
    """Return the place in `rows` of each of `new`; both ascend."""
    return np.searchsorted(rows, new).astype(np.uint32)


def _kept(rows: Rows, base: Indexed) -> Places | None:
    """Return the place in `rows` of each row of a base; `_GONE` for those that were removed."""
    moved = np.searchsorted(rows, base.rows).astype(np.uint32)
    if base.alive is not None:
        moved[~base.alive] = _GONE
    return moved


def _by_list(found: list[tuple[Numbers, Bytes, Places]], sizes: Numbers) -> tuple[Bytes, Places]:
    """Put codes of several runs into the order of their lists, without those that are gone. Fills in `sizes`."""
    lists = np.concatenate([np.repeat(np.arange(len(counts)), counts) for counts, _, _ in found])
    codes = np.concatenate([codes for _, codes, _ in found])
    places = np.concatenate([places for *_, places in found])
    order = np.argsort(lists, kind="stable")
    order = order[places[order] != _GONE]
    sizes[:] = np.bincount(lists[order], minlength=len(sizes))
    return codes[order], places[order]
