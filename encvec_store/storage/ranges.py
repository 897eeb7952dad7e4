"""Ascending row numbers as ranges in bytes, as a change table keeps them.

Row numbers are given out one after another, so the rows of one write make few ranges, however many rows there are.
The format: pairs (first, last) of big-endian int64, ascending, merged; no header.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data.arrays import Rows

__all__ = ["ADDED", "BYTES_MOST", "ENTRIES_MOST", "KEPT", "REMOVED", "entries", "packed", "unpacked"]

ADDED, REMOVED = 1, 0
"""The two kinds of entries of a change table."""
KEPT = 1_000
"""A table keeps the changes of at least this many writes. Who is further behind lists all rows."""
ENTRIES_MOST, BYTES_MOST = 2 * KEPT, 1 << 20
"""The largest numbers of entries and bytes that a table keeps: to read more takes longer than to list all rows."""


_ROWS_MOST = 1 << 27
"""Rows that are listed from ranges at most: a damaged range must not fill the memory."""
_NUMBER = np.dtype(">i8")
_PAIR = 2 * _NUMBER.itemsize


def packed(rows: Rows) -> bytes:
    """Return (n,) distinct rows, ascending, as ranges: 16 bytes for each run of consecutive numbers.

    Raises:
        ValueError: the rows do not ascend.
    """
    rows = np.asarray(rows, np.int64)
    if not len(rows):
        return b""
    steps = rows[1:] - rows[:-1]
    if len(steps) and steps.min() < 1:
        raise ValueError("rows must ascend and be distinct: sort them with numpy.unique")
    breaks = (steps > 1).nonzero()[0]
    pairs = np.empty((len(breaks) + 1, 2), _NUMBER)
    pairs[0, 0], pairs[1:, 0] = rows[0], rows[breaks + 1]
    pairs[:-1, 1], pairs[-1, 1] = rows[breaks], rows[-1]
    return pairs.tobytes()


def unpacked(ranges: bytes) -> Rows:
    """Return the rows of ranges, ascending and distinct. Ranges of several writes may be joined: b"".join(...).

    Raises:
        ValueError: the bytes are not whole pairs, a range ends before it starts, or they hold too many rows to list.
    """
    if len(ranges) % _PAIR:
        raise ValueError(f"ranges must take a multiple of {_PAIR} bytes, got {len(ranges)}")
    pairs = np.frombuffer(ranges, _NUMBER).astype(np.int64).reshape(-1, 2)
    firsts, lasts = pairs[:, 0], pairs[:, 1]
    if (firsts < 1).any():
        raise ValueError("a range must begin at a row >= 1: the change table is damaged")
    if (firsts > lasts).any():
        raise ValueError("a range must not end before it starts: the change table is damaged")
    if np.add.reduce((lasts - firsts).astype(np.float64)) > _ROWS_MOST:
        raise ValueError(
            f"ranges must hold at most {_ROWS_MOST} rows: the change table is damaged, or listing is cheaper"
        )
    if (firsts[1:] <= lasts[:-1]).any():  # of several writes
        return np.unique(_all(firsts, lasts))
    return _all(firsts, lasts)


def entries(added: Rows, removed: Rows) -> dict[int, bytes]:
    """Return the entries of a write for the change table, by kind: at least one, even if the write did nothing.

    Args:
        added: rows that were added, ascending.
        removed: rows that were removed, ascending. Those that came by the same write are in neither entry.
    """
    if len(removed) and len(added):
        brief = np.intersect1d(added, removed, assume_unique=True)
        if len(brief):
            added, removed = (np.setdiff1d(rows, brief, assume_unique=True) for rows in (added, removed))
    found = {kind: packed(rows) for kind, rows in ((ADDED, added), (REMOVED, removed)) if len(rows)}
    return found or {ADDED: b""}


def _all(firsts: Rows, lasts: Rows) -> Rows:
    sizes = lasts - firsts + 1
    ends = np.cumsum(sizes)
    shifts: npt.NDArray[np.int64] = firsts - (ends - sizes)
    rows: Rows = np.arange(ends[-1] if len(ends) else 0, dtype=np.int64) + np.repeat(shifts, sizes)
    return rows
