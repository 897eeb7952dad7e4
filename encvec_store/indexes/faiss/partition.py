"""One partition of an index in memory: the records under one key version and cell, and a FAISS index over them.

The ordinal of a vector is its place in the FAISS index. `rows[i]` is the row of ordinal i, and `live[i]` tells if it
still exists. In a saved file, envelope i belongs to ordinal i. Ordinals from `indexed` on are not in the index yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.arrays import Bytes, Matrix, Rows
from ...data.filters import Predicate
from ..protocol import Probes, first, share
from .ann import AnnIndex, training_size
from .envelope_file import EnvelopeFile
from .options import FaissOptions
from .row_runs import RowRuns

__all__ = ["Chosen", "Partition", "choose", "mapped", "stale", "together"]

Choice = tuple[npt.NDArray[np.uint8] | None, int]
"""A bit for each ordinal that may be found, little-endian, or None for all; and how many may be found."""
Fetch = Callable[[Rows], tuple[Rows, Matrix]]
_CHUNK = 10_000
_CHOICES_KEPT = 16
_DEAD_MOST = 0.3


class Partition:
    """The index of one partition. `FaissIndex` holds the lock."""

    def __init__(self, rows: RowRuns | None = None, live: npt.NDArray[np.bool_] | None = None) -> None:
        self.rows = RowRuns(np.empty(0, np.int64)) if rows is None else rows
        self.live: npt.NDArray[np.bool_] = np.ones(len(self.rows), bool) if live is None else live
        self.dead = len(self.live) - int(np.count_nonzero(self.live))
        self.ann: AnnIndex | None = None
        self.file: EnvelopeFile | None = None
        self.saved_index: dict[str, object] | None = None
        """The entry of the manifest for the index file, as long as the file equals `ann`."""
        self._choices: dict[Predicate | None, Choice] = {}

    def __len__(self) -> int:
        """Count the rows that exist."""
        return len(self.rows) - self.dead

    @property
    def indexed(self) -> int:
        """The number of ordinals in the FAISS index."""
        return 0 if self.ann is None else len(self.ann)

    @property
    def pending(self) -> int:
        """The number of ordinals that are not in the FAISS index yet."""
        return len(self.rows) - self.indexed

    def append(self, rows: Rows) -> None:
        """Add new rows. They must be larger than all rows here."""
        self.rows = self.rows.extended(rows)
        self.live = np.concatenate([self.live, np.ones(len(rows), bool)])
        self._choices = {}

    def kill(self, rows: Rows) -> None:
        """Mark rows as removed. Unknown rows are ignored."""
        ordinals, _ = self.places(rows)
        if len(ordinals):
            self.live[ordinals] = False
            self.dead = len(self.live) - int(np.count_nonzero(self.live))
            self._choices = {}

    def keep(self, rows: Rows, next_row: int) -> None:
        """Take over a list of all rows. Rows that are missing in it were removed, and unknown rows are new.

        Args:
            rows: all rows, ascending.
            next_row: rows from here on have never been given out. If some are known here, an older copy of the records
                was put back, and the same numbers may come again for other records.
        """
        here = np.isin(self.rows.array(), rows, assume_unique=True)
        last = self.rows.last
        new = rows[np.searchsorted(rows, last, side="right") :]
        if last >= next_row or np.count_nonzero(here) + len(new) < len(rows):
            # an older copy of the records was put back: new rows may be lower than known ones
            self._become(None, RowRuns(rows), np.ones(len(rows), bool))
            return
        self.live &= here
        self.dead = len(self.live) - int(np.count_nonzero(self.live))
        self.append(new)

    def places(self, rows: Rows) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return (ordinals of the rows that exist, their positions in `rows`)."""
        ordinals, positions = self.rows.find(rows)
        if not self.dead:
            return ordinals, positions
        alive = self.live[ordinals]
        return ordinals[alive], positions[alive]

    def stale(self, options: FaissOptions) -> bool:
        """Say whether `fit` has anything to do."""
        return bool(self.pending) or self._wants_another(options)

    def fit(self, fetch: Fetch, dim: int, options: FaissOptions) -> bool:
        """Bring the index up to date: extend it, or build a new one of the kind that now suits.

        After an error the object must not be used: FAISS may hold vectors that are not counted here.

        Returns:
            True if every row still existed. A row that did not may have been replaced by another one.

        Args:
            fetch: returns (the rows that still exist, ascending, and their index vectors).
            dim: coordinates of an index vector.
            options: the options of the store.
        """
        ann, start = self.ann, self.indexed
        if self._wants_another(options):
            ann, start = None, 0
        # pending rows that were removed, or are removed while we read, never get an ordinal
        wanted = self.rows.array(start)[self.live[start:]]
        if ann is None and len(wanted):
            ann = self._trained(wanted, fetch, dim, options)
        there = np.zeros(len(wanted), bool)
        for i in range(0, len(wanted) if ann is not None else 0, _CHUNK):
            some = wanted[i : i + _CHUNK]
            found, vectors = fetch(some)
            if ann is not None and len(found):
                ann.add(vectors)
                there[i : i + _CHUNK] = np.isin(some, found, assume_unique=True)
        rows = self.rows
        if start + np.count_nonzero(there) < len(rows):
            rows = RowRuns(np.concatenate([rows.array(0, start), wanted[there]]))
        live = np.ones(len(rows), bool)
        live[:start] = self.live[:start]
        self._become(ann, rows, live)
        return bool(there.all())

    def _trained(self, rows: Rows, fetch: Fetch, dim: int, options: FaissOptions) -> AnnIndex | None:
        kind = options.kind_for(len(rows))
        sample = np.empty((0, dim), np.float32)
        if kind != "flat":
            size = training_size(kind, len(rows))
            sample = fetch(rows[np.unique(np.linspace(0, len(rows) - 1, size).astype(np.intp))])[1]
            if not len(sample):
                return None  # all were removed meanwhile
        return AnnIndex.build(kind, dim, options, sample, len(rows))

    def _become(self, ann: AnnIndex | None, rows: RowRuns, live: npt.NDArray[np.bool_]) -> None:
        count = 0 if self.file is None else self.file.count
        if not self.rows.same(rows, count):
            self.file = None  # ordinals moved
        self.ann, self.rows, self.live = ann, rows, live
        self.dead = len(live) - int(np.count_nonzero(live))
        self.saved_index, self._choices = None, {}

    def _wants_another(self, options: FaissOptions) -> bool:
        if self.ann is None:
            return False
        if self.dead > _DEAD_MOST * len(self.rows):
            return True
        wanted = options.kind_for(len(self))
        if options.index != "auto":
            return self.ann.kind not in (wanted, options.index)
        order = ("flat", "hnsw", "ivf")  # never back, or a collection at a threshold would be rebuilt again and again
        return order.index(self.ann.kind) < order.index(wanted)

    def search(
        self,
        queries: Matrix,
        limit: int,
        choice: Choice,
        options: FaissOptions,
    ) -> list[tuple[Rows, Matrix]]:
        """Return up to `limit` rows per query, nearest first, of those that may be found; and their products."""
        mask, matching = choice
        k = min(limit, matching)
        if k <= 0 or self.ann is None:
            return [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        labels, products = self.ann.search(queries, k, options, mask, matching)
        if (labels >= 0).all():
            return list(zip(self.rows[labels], products, strict=True))
        return [(self.rows[line[line >= 0]], of[line >= 0]) for line, of in zip(labels, products, strict=True)]

    def explain(self, limit: int, choice: Choice, options: FaissOptions) -> str:
        """Say in words how `search` would answer."""
        mask, matching = choice
        if self.ann is None or not matching:
            return "nothing to compare"
        effort = self.ann.effort(min(limit, matching), options, matching, masked=mask is not None)
        way = f"{self.ann.kind} index, {'ef' if self.ann.kind == 'hnsw' else 'lists'} {effort}" if effort else "scan"
        return f"{way}, {matching:,} of {len(self.rows):,} records to choose from"

    def stats(self) -> dict[str, Any]:
        """Describe the partition."""
        return {
            "index": self.ann.kind if self.ann else None,
            "storage": self.ann.storage if self.ann else None,
            "rows": len(self),
            "dead": self.dead,
            "pending": self.pending,
            "mapped": self.file.count if self.file else 0,
            "memory": (self.ann.size() if self.ann else 0) + self.rows.nbytes + self.live.nbytes,
        }

    def choice(self, predicate: Predicate | None, matching: Rows | None = None) -> Choice | None:
        """Return which ordinals satisfy a predicate, or None if that is not known.

        It is kept until rows are added or removed, because the terms of a row never change.

        Args:
            predicate: None means all rows.
            matching: the rows that satisfy it, as of the same moment as the rows of this partition. None means that
                only a kept result is returned.
        """
        if predicate is None and not self.dead:
            return None, len(self)
        known = self._choices.get(predicate)
        if known is not None:
            return known
        if predicate is None:
            bits = self.live
        elif matching is None:
            return None
        else:
            bits = np.zeros(len(self.rows), bool)
            bits[self.places(matching)[0]] = True
        choice = np.packbits(bits, bitorder="little"), int(np.count_nonzero(bits))
        if len(self._choices) >= _CHOICES_KEPT:
            self._choices = {}
        self._choices[predicate] = choice
        return choice


Chosen = dict[int, tuple[Partition, Choice]]
"""Partitions by number, each with what of it may be found."""


def stale(partitions: Mapping[int, Partition], wanted: Iterable[int] | None, options: FaissOptions) -> bool:
    """Say whether any of the partitions wanted, or of all of them, is not up to date."""
    numbers = partitions if wanted is None else wanted
    return any(partitions[number].stale(options) for number in numbers if number in partitions)


def choose(
    partitions: Mapping[int, Partition],
    wanted: Iterable[int] | None,
    predicate: Predicate | None,
    matching: Rows | None = None,
) -> Chosen | None:
    """Return the partitions wanted, or all of them, with what satisfies a predicate; None if that is not known."""
    chosen = {}
    for number in partitions if wanted is None else wanted:
        if number in partitions:
            choice = partitions[number].choice(predicate, matching)
            if choice is None:
                return None
            chosen[number] = partitions[number], choice
    return chosen


def together(chosen: Chosen, probes: Probes, limit: int, options: FaissOptions) -> list[Rows]:
    """Return up to `limit` rows per query of all these partitions, nearest first."""
    each = share(limit, len(chosen))
    if len(chosen) > 1:
        # a few of each partition are enough, unless there are hardly more rows than are asked for
        matching = [0 if partition.ann is None else n for partition, (_, n) in chosen.values()]
        each = each if sum(min(each, n) for n in matching) >= min(limit, sum(matching)) else limit
        # ef_search is the number of nodes that are kept in all partitions together
        options = replace(options, ef_search=share(options.ef_search, len(chosen)))
    parts = [partition.search(probes[number], each, choice, options) for number, (partition, choice) in chosen.items()]
    return [first(limit, found) for found in zip(*parts, strict=True)]


def mapped(partitions: Iterable[Partition], rows: Rows, size: int) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """Return the mapped envelopes of n rows, (n, size) uint8, and (n,) which of the rows have one."""
    envelopes, have = np.empty((0, size), np.uint8), np.zeros(len(rows), bool)
    for partition in partitions:
        file = partition.file
        if file is None or not file.is_whole():  # cut short by someone: the records have everything
            continue
        ordinals, positions = partition.places(rows)
        if len(ordinals) and ordinals.max() >= file.count:
            there = ordinals < file.count
            ordinals, positions = ordinals[there], positions[there]
        have[positions] = True
        if len(positions) == len(rows):
            return file.take(ordinals), have
        if not len(envelopes):
            envelopes = np.empty((len(rows), size), np.uint8)
        envelopes[positions] = file.take(ordinals)
    return envelopes if len(envelopes) else np.empty((len(rows), size), np.uint8), have
