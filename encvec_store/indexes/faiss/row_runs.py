"""Ascending row numbers in little memory.

Rows are given out one after another. If a single process writes a collection, its rows are one run: ten million rows
then take a few bytes instead of 80 MB. Writes of others in between, and deletions, split runs. If runs are short, as in
a collection with many cells, the numbers themselves are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.arrays import Rows

__all__ = ["RowRuns"]

_LEAST = 8
"""The least average length of runs. Shorter runs save little, and it takes time to find the right run."""

_CHUNK = 1_000_000

Places = npt.NDArray[np.intp]


class RowRuns:
    """Maps n ordinals to ascending rows, and rows to ordinals. Immutable."""

    def __init__(self, rows: Rows) -> None:
        starts = _starts(rows)
        if _LEAST * len(starts) > len(rows):
            self._become(len(rows), len(starts), rows=rows.astype(np.int64))
        else:
            self._become(len(rows), len(starts), starts, rows[starts].astype(np.int64))

    def _become(
        self, n: int, runs: int, starts: Places | None = None, firsts: Rows | None = None, rows: Rows | None = None
    ) -> None:
        """Hold n rows, as the ordinals and rows at which runs start, or as all the rows."""
        nothing = np.empty(0, np.int64)
        self._n, self._runs, self._rows = n, runs, rows
        self._starts, self._firsts = nothing if starts is None else starts, nothing if firsts is None else firsts
        self._ends, self._shifts = np.append(self._starts[1:], n), self._firsts - self._starts

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, ordinals: npt.NDArray[np.integer[Any]]) -> Rows:
        """Return the rows of ordinals, which must exist, in an array of the same shape."""
        rows: Rows
        if self._rows is not None:
            rows = self._rows[ordinals]
        elif self._runs == 1:  # this is nearly always so, and several times faster
            rows = ordinals + self._shifts
        else:
            rows = ordinals + self._shifts[np.searchsorted(self._starts, ordinals, side="right") - 1]
        return rows

    @property
    def last(self) -> int:
        """The largest row, or 0 if there is none."""
        return int(self[np.array([self._n - 1])][0]) if self._n else 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        arrays = (self._starts, self._firsts, self._ends, self._shifts, self._rows)
        return sum(array.nbytes for array in arrays if array is not None)

    def find(self, rows: Rows) -> tuple[Places, Places]:
        """Return (ordinals of the rows that are here, their positions in `rows`)."""
        if not self._n:
            return np.empty(0, np.intp), np.empty(0, np.intp)
        if self._rows is not None:
            ordinals = np.searchsorted(self._rows, rows)
            ordinals[ordinals == self._n] = 0
            here = self._rows[ordinals] == rows
        elif self._runs == 1:
            ordinals = rows - self._shifts
            here = (ordinals >= 0) & (ordinals < self._n)
        else:
            run = np.searchsorted(self._firsts, rows, side="right") - 1
            ordinals = rows - self._shifts[run]
            here = (run >= 0) & (ordinals < self._ends[run])
        positions = np.flatnonzero(here)
        return ordinals[positions], positions

    def array(self, start: int = 0, stop: int | None = None) -> Rows:
        """Return the rows of ordinals from `start` to `stop`."""
        stop = self._n if stop is None else stop
        return self[np.arange(start, stop)] if self._rows is None else self._rows[start:stop]

    def extended(self, rows: Rows) -> RowRuns:
        """Return these rows and more rows, which must be larger than the last one."""
        if not len(rows):
            return self
        more, n = _starts(rows), self._n + len(rows)
        if self._n and rows[0] == self.last + 1:
            more = more[1:]
        runs = self._runs + len(more)
        made = RowRuns(rows[:0])
        if _LEAST * runs > n:
            made._become(n, runs, rows=np.concatenate([self.array(), rows]))
        elif self._rows is not None:
            made = RowRuns(np.concatenate([self._rows, rows]))
        else:
            starts, firsts = np.concatenate([self._starts, self._n + more]), np.concatenate([self._firsts, rows[more]])
            made._become(n, runs, starts, firsts)
        return made

    def same(self, other: RowRuns, n: int) -> bool:
        """Say whether the first n rows of both are the same."""
        if min(len(self), len(other)) < n:
            return False
        if self._rows is not None or other._rows is not None:
            return np.array_equal(self.array(0, n), other.array(0, n))
        mine, theirs = np.searchsorted(self._starts, n), np.searchsorted(other._starts, n)
        return np.array_equal(self._starts[:mine], other._starts[:theirs]) and np.array_equal(
            self._firsts[:mine], other._firsts[:theirs]
        )


def _starts(rows: Rows) -> Places:
    """Return the positions at which runs start. Works in pieces, because the differences would need much memory."""
    pieces = [
        start + 1 + np.flatnonzero(np.diff(rows[start : start + _CHUNK + 1]) != 1)
        for start in range(0, len(rows), _CHUNK)
    ]
    return np.concatenate([np.zeros(min(1, len(rows)), np.intp), *pieces])
