"""Partition numbers: a key version and a cell in one integer.

Index vectors compare only if they were made by the same rotation. So a partition is one cell of a collection under
one key version. The number of the first cell is the key version itself; a collection without cells has only this one.
A key decides which records share a cell, so the number tells the store nothing but that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["by_version", "partition_of", "partitions_of", "version_of"]

_BITS = 32
"""Bits of a key version, as in the headers of records."""


def partition_of(version: int, cell: int = 0) -> int:
    """Return the partition number of a cell under a key version."""
    return cell << _BITS | version


def partitions_of(version: int, cells: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the partition numbers of (n,) cells under a key version."""
    return cells << _BITS | version


def version_of(partition: int) -> int:
    """Return the key version of a partition number."""
    return partition & ((1 << _BITS) - 1)


def by_version(counts: Mapping[int, int] | Iterable[int]) -> dict[int, int]:
    """Sum record counts of partitions by key version, ascending. Without counts, each partition counts as one."""
    pairs = counts.items() if isinstance(counts, Mapping) else ((number, 1) for number in counts)
    sums: dict[int, int] = {}
    for number, n in pairs:
        version = version_of(number)
        sums[version] = sums.get(version, 0) + n
    return dict(sorted(sums.items()))
