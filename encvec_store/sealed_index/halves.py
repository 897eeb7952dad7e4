"""Vectors in half precision beside the codes of graphs: they rank candidates without a look at the store.

A block holds vectors of rows that came together. Blocks never change. Two of about one size are merged, as in an LSM
tree (O'Neil et al., 1996), so that there are few. Vectors are kept less the mean of the first block, each divided by
its largest coordinate: so all 11 bits count, however long a vector is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from ..data.arrays import Matrix, Rows
from ..data.metrics import Metric
from ..runtime.forks import Mutex
from .graph import Costs, Graph
from .rowsets import is_among
from .state import Indexed, Lists, Snapshot
from .tail import Tail

__all__ = ["Filling", "Halves"]

_CHUNK = 4_096
_SPARE = 1.25
"""Rows that were removed leave when there are so many times more rows than live in graphs."""


@dataclass(frozen=True, eq=False)
class _Block:
    rows: Rows
    """(n,) ascending."""
    halves: npt.NDArray[np.float16]
    """(n, dim)."""
    scales: Matrix
    """(n,) what the vectors were divided by."""

    @property
    def bytes(self) -> int:
        return self.rows.nbytes + self.halves.nbytes + self.scales.nbytes


class Filling:
    """A block that is being filled, with room for `count` vectors. One thread fills it."""

    def __init__(self, token: int, metric: Metric, dim: int, count: int, centre: Matrix | None) -> None:
        self.token, self.centre = token, centre
        self._metric, self._used = metric, 0
        self._rows = np.empty(count, np.int64)
        self._halves = np.empty((count, dim), np.float16)
        self._scales = np.empty(count, np.float32)

    def write(self, rows: Rows, vectors: Matrix) -> None:
        """Take n more rows, and their (n, dim) vectors."""
        points = self._metric.lift(vectors) if self._metric.name == "cosine" else vectors
        if self.centre is None:
            self.centre = points.mean(axis=0, dtype=np.float64).astype(np.float32)
        points = points - self.centre
        scales = np.abs(points).max(axis=1)
        scales[scales == 0] = 1
        place = slice(self._used, self._used + len(rows))
        self._rows[place], self._scales[place] = rows, scales
        np.divide(points, scales[:, None], out=points)
        self._halves[place] = points
        self._used += len(rows)

    def block(self) -> _Block:
        """Return what was written, in the order of rows."""
        used = slice(self._used)
        rows, halves, scales = self._rows[used], self._halves[used], self._scales[used]
        if (rows[1:] <= rows[:-1]).any():
            order = np.argsort(rows)
            rows, halves, scales = rows[order], halves[order], scales[order]
        return _Block(rows, halves, scales)


class Halves:
    """Half-precision vectors of the rows in graphs. The content of a row never changes, so what is here stays right.

    Args:
        metric: the collection's.
        dim: coordinates of a vector.
    """

    def __init__(self, metric: Metric, dim: int) -> None:
        self.metric, self.dim = metric, dim
        self._guard = Mutex()
        self._dead: frozenset[int] = frozenset()
        self.wanted = False
        """True once somebody asked for them: from then on, rows that enter a graph are taken from the tail."""
        self._token = 0
        self.forget()

    @property
    def bytes(self) -> int:
        """The memory held."""
        return sum(block.bytes for block in self._blocks)

    @property
    def count(self) -> int:
        """The number of rows."""
        return sum(len(block.rows) for block in self._blocks)

    def memory(self, count: int) -> int:
        """Return about how many bytes so many more rows take."""
        return count * (2 * self.dim + 12)

    def forget(self) -> None:
        """Drop everything. What is being filled now will not come in either."""
        self._blocks: tuple[_Block, ...] = ()
        self._centre: Matrix | None = None
        self._whole: WeakSet[Graph] = WeakSet()
        """Graphs all of whose living rows are here."""
        self._skipped = _NONE
        self._token += 1

    def follow(self, dead: frozenset[int]) -> None:
        """Take note of the key versions that cannot be read: nothing is kept of them."""
        if dead != self._dead:
            with self._guard:
                self.forget()
                self._dead = dead

    def missing(self, state: Snapshot) -> Rows:
        """Return the living rows in graphs of a state that are not here, ascending."""
        self.follow(state.dead)
        self.wanted = True
        parts = [part for part in state.parts if part.graph.kind != "flat"]  # whose vectors are not rounded
        self._tidy(parts)
        found, token = [_NONE], self._token
        for part in parts:
            if part.graph not in self._whole:
                living = part.living_rows
                lacking = living[~self._holds(living)]
                if not len(lacking) and token == self._token:
                    self._whole.add(part.graph)
                found.append(lacking)
        return np.sort(np.concatenate(found))

    def begin(self, count: int) -> Filling:
        """Return room for so many vectors; `add` takes it when it is full."""
        return Filling(self._token, self.metric, self.dim, count, self._centre)

    def add(self, filled: Filling) -> None:
        """Take vectors in. They are left out if everything was dropped after `begin`."""
        block = filled.block()
        with self._guard:
            if filled.token != self._token or not len(block.rows):
                return
            if self._centre is None:
                self._centre = filled.centre
            if filled.centre is not self._centre:  # somebody else was first
                return
            blocks = [*self._blocks, block]
            while len(blocks) > 1 and 2 * len(blocks[-1].rows) > len(blocks[-2].rows):
                blocks[-2:] = [_merged(blocks[-2], blocks[-1])]
            self._blocks = tuple(blocks)

    def skip(self, rows: Rows) -> None:
        """Note that these rows cannot be opened, or are gone. They keep the costs of their codes."""
        with self._guard:
            self._skipped = np.union1d(self._skipped, rows)

    def take(self, tail: Tail, rows: Rows) -> None:
        """Take those of the rows, which ascend, whose opened vectors are in a tail that they leave."""
        places = np.flatnonzero(is_among(tail.rows, rows)) if self.wanted else _NONE
        if len(places):
            filling = self.begin(len(places))
            filling.write(tail.rows[places], tail.vectors_of(places))
            self.add(filling)

    def ranked(self, queries: Matrix, lists: Lists) -> Lists:
        """Return rows and costs of each of (q, dim) queries, with costs of the vectors that are here.

        Costs compare with those of graphs. A row that is not here keeps the cost it has.
        """
        points = queries
        if self.metric.name == "cosine":
            wide = queries.astype(np.float64)
            points = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
        if len(lists) == 1:
            rows, costs = lists[0][0], lists[0][1].astype(np.float32)
            self._rank(points[0], rows, costs)
            return [(rows, costs)]
        sizes = [len(rows) for rows, _ in lists]
        rows = np.concatenate([_NONE, *(rows for rows, _ in lists)])
        costs = np.concatenate([_NONE, *(costs for _, costs in lists)]).astype(np.float32)
        which = np.repeat(np.arange(len(queries)), sizes)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            self._rank(points[which[part]], rows[part], costs[part])
        ends = np.cumsum(sizes)[:-1]
        return list(zip(np.split(rows, ends), np.split(costs, ends), strict=True))

    def _rank(self, points: Matrix, rows: Rows, costs: Costs) -> None:
        """Write the costs of (n,) rows, where they are here, for one point or for (n, dim) points."""
        centre, blocks = self._centre, self._blocks
        if centre is None:
            return
        for block in blocks:
            places = np.searchsorted(block.rows, rows)
            places[places == len(block.rows)] = 0
            at = np.flatnonzero(block.rows[places] == rows)
            if not len(at):
                continue
            places = places[at]
            vectors = block.halves[places].astype(np.float32)
            vectors *= block.scales[places, None]
            vectors += centre
            asked = points if points.ndim == 1 else points[at]
            if self.metric.name == "l2":
                vectors -= asked
                costs[at] = np.einsum("ij,ij->i", vectors, vectors)
            else:
                costs[at] = -(vectors @ asked if asked.ndim == 1 else np.einsum("ij,ij->i", vectors, asked))

    def _holds(self, rows: Rows) -> npt.NDArray[np.bool_]:
        held = is_among(rows, self._skipped)
        for block in self._blocks:
            held |= is_among(rows, block.rows)
        return held

    def _tidy(self, parts: Sequence[Indexed]) -> None:
        """Drop removed rows when they are many, or when no graph has any."""
        count, living = self.count, sum(part.living for part in parts)
        if count <= (_SPARE * living if any(part.dead for part in parts) else living):
            return
        rows = np.sort(np.concatenate([_NONE, *(part.living_rows for part in parts)]))
        with self._guard:
            kept = [_kept(block, is_among(block.rows, rows)) for block in self._blocks]
            self._blocks = tuple(block for block in kept if len(block.rows))


_NONE = np.empty(0, np.int64)


def _kept(block: _Block, places: npt.NDArray[np.bool_]) -> _Block:
    if places.all():
        return block
    return _Block(block.rows[places], block.halves[places], block.scales[places])


def _merged(first: _Block, second: _Block) -> _Block:
    rows = np.concatenate([first.rows, second.rows])
    halves = np.concatenate([first.halves, second.halves])
    scales = np.concatenate([first.scales, second.scales])
    if first.rows[-1] < second.rows[0]:
        return _Block(rows, halves, scales)
    rows, places = np.unique(rows, return_index=True)
    return _Block(rows, halves[places], scales[places])
