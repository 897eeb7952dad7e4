"""The number by which a store knows a group of comparable index vectors: a key version and a cell.

Index vectors compare only where one rotation made them. So a partition is one cell of a collection under one key
version. The first cell has the number of the key version alone; a collection without cells has no other cell. A key
draws which records share a cell, so the number says only that they share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["by_version", "partition", "partitions", "version_of"]

_BITS = 32
"""Of a key version, as in the headers of records."""


def partition(version: int, cell: int = 0) -> int:
    """Return the number of a cell under a key version."""
    return cell << _BITS | version


def partitions(version: int, cells: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the numbers of (n,) cells under a key version."""
    return cells << _BITS | version


def version_of(partition: int) -> int:
    """Return the key version of a partition."""
    return partition & ((1 << _BITS) - 1)


def by_version(counts: Mapping[int, int] | Iterable[int]) -> dict[int, int]:
    """Sum the counts of partitions by key version, ascending; without counts, count the partitions."""
    pairs = counts.items() if isinstance(counts, Mapping) else ((number, 1) for number in counts)
    sums: dict[int, int] = {}
    for number, n in pairs:
        version = version_of(number)
        sums[version] = sums.get(version, 0) + n
    return dict(sorted(sums.items()))
