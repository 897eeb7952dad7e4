"""Cuts rows into parts whose payloads fit into memory together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..data.arrays import Rows
from .protocol import Followed

__all__ = ["PAGE_BYTES", "portions"]

PAGE_BYTES = 64 << 20
"""Bytes of payloads that are read at once, unless a single one has more."""


def portions(records: Followed, rows: Rows, size: int, most: int | None = None) -> Iterator[Rows]:
    """Yield up to `size` rows at a time, and only as many as have `most` bytes of payloads (PAGE_BYTES), or one.

    Documents may have megabytes, and a thousand of them fill the memory.
    """
    most = PAGE_BYTES if most is None else most
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        found, sizes = records.payload_sizes(part)
        costs = np.zeros(len(part), np.int64)  # rows that are gone by now cost nothing
        costs[np.searchsorted(part, found)] = sizes
        ends, first = np.cumsum(costs), 0
        while first < len(part):
            done = ends[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(ends, done + most, "right")))
            yield part[first:last]
            first = last
