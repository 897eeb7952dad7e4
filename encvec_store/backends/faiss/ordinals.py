"""One space in memory: ordinals, which of them live, and their FAISS index; imports ann, slots.

Ordinal i is the i-th vector in the FAISS index, `rows[i]` its record and, once saved, slot i its envelope.
Rows ascend, so a row is found by bisection. Ordinals from `indexed` on are known but not in the index yet.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..base import Matrix, Rows
from .ann import AnnIndex, training_size
from .options import Options
from .slots import Slots

__all__ = ["Ordinals"]

Fetch = Callable[[Rows], tuple[Rows, Matrix]]
_CHUNK = 10_000
_DEAD_MOST = 0.3


class Ordinals:
    """The index of one space. Not locked: the collection sees to that."""

    def __init__(self, rows: Rows | None = None, live: npt.NDArray[np.bool_] | None = None) -> None:
        self.rows: Rows = np.empty(0, np.int64) if rows is None else rows
        self.live: npt.NDArray[np.bool_] = np.ones(len(self.rows), bool) if live is None else live
        self.dead = len(self.live) - int(np.count_nonzero(self.live))
        self.ann: AnnIndex | None = None
        self.slots: Slots | None = None
        self.saved_index: dict[str, object] | None = None
        """The manifest's entry for the index file, while it is still what `ann` holds."""
        self._mask: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        """Count what lives."""
        return len(self.rows) - self.dead

    @property
    def indexed(self) -> int:
        """How many ordinals are in the FAISS index."""
        return 0 if self.ann is None else len(self.ann)

    @property
    def pending(self) -> int:
        """How many are not."""
        return len(self.rows) - self.indexed

    def append(self, rows: Rows) -> None:
        """Take note of new rows, all above those there are."""
        self.rows = np.concatenate([self.rows, rows])
        self.live = np.concatenate([self.live, np.ones(len(rows), bool)])
        self._mask = None

    def kill(self, rows: Rows) -> None:
        """Take note of rows that went; unknown ones are ignored."""
        ordinals, _ = self.places(rows)
        if len(ordinals):
            self.live[ordinals] = False
            self.dead = len(self.live) - int(np.count_nonzero(self.live))
            self._mask = None

    def keep(self, rows: Rows) -> None:
        """Take note of all rows there are, ascending: others went, and those above ours are new."""
        self.live &= np.isin(self.rows, rows, assume_unique=True)
        self.dead = len(self.live) - int(np.count_nonzero(self.live))
        self._mask = None
        last = int(self.rows[-1]) if len(self.rows) else 0
        self.append(rows[np.searchsorted(rows, last, side="right") :])

    def places(self, rows: Rows) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return (ordinals of the live ones among rows, their positions in `rows`)."""
        if not len(self.rows):
            return np.empty(0, np.intp), np.empty(0, np.intp)
        ordinals = np.searchsorted(self.rows, rows)
        ordinals[ordinals == len(self.rows)] = 0
        positions = np.flatnonzero((self.rows[ordinals] == rows) & self.live[ordinals])
        return ordinals[positions], positions

    def stale(self, options: Options) -> bool:
        """Say whether `fit` has anything to do."""
        return bool(self.pending) or self._wants_another(options)

    def fit(self, fetch: Fetch, options: Options) -> None:
        """Bring the index up to date: extend it, or build a new one of the kind that now suits.

        Args:
            fetch: returns (rows still there, ascending, and their index vectors).
            options: of the store.
        """
        if self.ann is None or self._wants_another(options):
            ann, start = None, 0
        else:
            ann, start = self.ann, self.indexed
        wanted = self.rows[start:][self.live[start:]]
        if ann is None and not len(wanted):
            self._become(None, np.empty(0, np.int64), np.empty(0, bool))
            return
        kept = [self.rows[:start]]
        for i in range(0, len(wanted), _CHUNK):
            if ann is None:
                kind = options.kind_for(len(wanted))
                picked = np.linspace(0, len(wanted) - 1, training_size(kind, len(wanted))).astype(np.intp)
                sample = fetch(wanted[np.unique(picked)])[1] if kind != "flat" else np.empty((0, 0), np.float32)
                ann = AnnIndex.build(kind, fetch(wanted[:1])[1].shape[1], options, sample, len(wanted))
            found, vectors = fetch(wanted[i : i + _CHUNK])
            if len(found):
                ann.add(vectors)
                kept.append(found)
        rows = np.concatenate(kept)
        live = np.ones(len(rows), bool)
        live[:start] = self.live[:start]
        self._become(ann, rows, live)

    def _become(self, ann: AnnIndex | None, rows: Rows, live: npt.NDArray[np.bool_]) -> None:
        count = 0 if self.slots is None else self.slots.count
        if not np.array_equal(self.rows[:count], rows[:count]):
            self.slots = None  # ordinals moved
        self.ann, self.rows, self.live = ann, rows, live
        self.dead = len(live) - int(np.count_nonzero(live))
        self.saved_index = self._mask = None

    def _wants_another(self, options: Options) -> bool:
        if self.ann is None:
            return False
        if self.dead > _DEAD_MOST * len(self.rows):
            return True
        wanted = options.kind_for(len(self))
        if options.index != "auto":
            return self.ann.kind != wanted
        order = ("flat", "hnsw", "ivf")  # never back: a collection at a threshold would rebuild all the time
        return order.index(self.ann.kind) < order.index(wanted)

    def search(self, queries: Matrix, limit: int, allowed: Rows | None, options: Options) -> list[Rows]:
        """Return up to `limit` rows per query, nearest first, of the allowed rows or of all."""
        mask = None
        if allowed is None:
            matching = len(self)
            if self.dead:
                if self._mask is None:
                    self._mask = np.packbits(self.live, bitorder="little")
                mask = self._mask
        else:
            ordinals, _ = self.places(allowed)
            matching = len(ordinals)
            bits = np.zeros(len(self.rows), bool)
            bits[ordinals] = True
            mask = np.packbits(bits, bitorder="little")
        k = min(limit, matching)
        if k <= 0 or self.ann is None:
            return [np.empty(0, np.int64) for _ in queries]
        labels = self.ann.search(queries, k, options, mask, matching)
        return [self.rows[line[line >= 0]] for line in labels]
