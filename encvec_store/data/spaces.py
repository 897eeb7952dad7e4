"""The number by which a store knows a group of comparable index vectors: a key version and a cell.

Index vectors compare only where one rotation made them, so a space is one cell of a collection under one key version.
The first cell has the number of the key version alone: of a collection without cells it is the only one. Which records
share a cell is drawn by a key, so the number says no more than that they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["by_version", "space", "spaces", "version_of"]

_BITS = 32
"""Of a key version, as in the headers of records."""


def space(version: int, cell: int = 0) -> int:
    """Return the number of a cell under a key version."""
    return cell << _BITS | version


def spaces(version: int, cells: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the numbers of (n,) cells under a key version."""
    return cells << _BITS | version


def version_of(space: int) -> int:
    """Return the key version of a space."""
    return space & ((1 << _BITS) - 1)


def by_version(counts: Mapping[int, int] | Iterable[int]) -> dict[int, int]:
    """Sum the counts of spaces by key version, ascending; without counts, count the spaces."""
    pairs = counts.items() if isinstance(counts, Mapping) else ((number, 1) for number in counts)
    sums: dict[int, int] = {}
    for number, n in pairs:
        version = version_of(number)
        sums[version] = sums.get(version, 0) + n
    return dict(sorted(sums.items()))
