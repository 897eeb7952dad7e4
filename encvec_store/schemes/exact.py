"""Products of points and a matrix with the same bits for a row in every batch.

BLAS chooses kernels by the shape of a product and the place of a row in it, and each kernel adds in its own order. So
a vector would round differently alone and in a batch. Here no addition rounds: points and matrix are multiples of
powers of two, so coarse that every partial sum fits the 53 bits of a double. Then the order of additions does not
matter, whatever the shape, the number of threads, the processor or the GPU. docs/decisions/0022 has the measurements.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.arrays import Matrix
from .device import CPU, Device

__all__ = ["Exact", "grid"]

_DOUBLE, _SINGLE = 53, 24
"""Significant bits of a double and of a single."""
_POINT = 26
"""The least number of binary places of a point's coordinates."""
_LONGEST = 1
"""Points are shorter than 2 to this power."""
_ROWS = 256
"""Rows multiplied at once: few enough for the processor's cache, enough for the threads of BLAS."""


def grid(matrix: npt.NDArray[Any]) -> Matrix:
    """Round a (dim, k) matrix to the grid on which products are exact. A rounded matrix stays the same.

    An entry changes by at most 2^-27 of the longest column, or by the rounding of a float32.
    """
    step = 2.0 ** _steps(matrix)[0]
    return (np.rint(np.asarray(matrix, np.float64) / step) * step).astype(np.float32)


class Exact:
    """Multiplies (n, dim) float32 points, shorter than 2, by one (dim, k) matrix on a device.

    Args:
        matrix: rounded by `grid`.
        at: where to multiply.
        keep: if True, keep the matrix in double precision. Otherwise convert it for each product, in half the memory.
    """

    def __init__(self, matrix: Matrix, at: Device = CPU, *, keep: bool = True) -> None:
        places = _steps(matrix)[1]
        self._round = 1.5 * 2.0 ** (_DOUBLE - 1 - places)  # x + this - this rounds x to so many binary places
        self._at, self._matrix = at, at.put(matrix.astype(np.float64) if keep else matrix)

    def __call__(self, points: Matrix, out: Any = None) -> Any:
        """Return (n, k) float32 on the device, or fill `out`."""
        there, matrix = self._at.put(points), self._matrix.astype(np.float64, copy=False)
        n, (dim, k) = len(points), matrix.shape
        out = self._at.empty((n, k)) if out is None else out
        if self._at is not CPU:
            out[...] = (there.astype(np.float64) + self._round - self._round) @ matrix + 0.0
            return out
        size = min(n, _ROWS)
        wide, product = np.empty((size, dim)), np.empty((size, k))
        for start in range(0, n, _ROWS):
            part = there[start : start + size]
            left, right = wide[: len(part)], product[: len(part)]
            np.add(part, self._round, out=left, dtype=np.float64)
            left -= self._round
            np.matmul(left, matrix, out=right)
            right += 0.0  # -0.0 becomes 0.0
            out[start : start + size] = right
        return out


def _steps(matrix: npt.NDArray[Any]) -> tuple[int, int]:
    """Return (exponent of the grid's step, binary places of points) under which sums fit a double."""
    wide = np.abs(np.asarray(matrix, np.float64))
    longest, largest = float(np.sqrt(np.square(wide).sum(axis=0)).max(initial=0)), float(wide.max(initial=0))
    if not largest:
        return -_POINT, _POINT
    # a small tolerance, so that a rounded matrix with unit columns has the same grid as before
    column, entry = (math.ceil(math.log2(value) - 1e-3) for value in (longest, largest))
    step = max(column - _DOUBLE + _LONGEST + _POINT, entry - _SINGLE)
    return step, _DOUBLE - _LONGEST - column + step
