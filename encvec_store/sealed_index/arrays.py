"""Named arrays in one piece of bytes, which are read without a copy.

    container   format u8 | 0 u8 | number of arrays u16 | entries | zeros | contents
    entry       length of name u8 | name, ASCII | dtype u8 | dimensions u8 | shape u64 x dimensions

Everything is little-endian. The contents stand in the order of the entries, in C order. Each begins at a multiple of 64
bytes, with zeros before it, and zeros after the last one. The entries hold no offsets, so contents cannot overlap.
Every container has exactly one form, and `read` refuses any other.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.arrays import Bytes

__all__ = ["Array", "pieces", "read"]

Array = npt.NDArray[Any]

FORMAT = 1
_DTYPES = {
    number: np.dtype(name)
    for number, name in enumerate(("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"), start=1)
}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_MOST_DIMENSIONS = 4
_ALIGNED = 64
"""Contents begin at multiples of this: the width of a cache line and of the widest vector instructions."""


def pieces(arrays: Mapping[str, Array]) -> list[Bytes]:
    """Return the container of these arrays in pieces, (n,) uint8 each. C-contiguous arrays are not copied.

    Raises:
        ValueError: a name, a dtype or a number of dimensions that the format does not have.
    """
    if len(arrays) >= 1 << 16:
        raise ValueError(f"a container holds at most 65535 arrays, got {len(arrays)}")
    head, contents = bytearray(struct.pack("<BBH", FORMAT, 0, len(arrays))), []
    for name, array in arrays.items():
        number = _NUMBERS.get(array.dtype.newbyteorder("<"))
        if number is None or array.ndim > _MOST_DIMENSIONS or not _NAME.fullmatch(name):
            raise ValueError(f"cannot store an array {name!r} of dtype {array.dtype} and shape {array.shape}")
        head += struct.pack(f"<B{len(name)}sBB", len(name), name.encode(), number, array.ndim)
        head += struct.pack(f"<{array.ndim}Q", *array.shape)
        flat = np.ascontiguousarray(array, _DTYPES[number]).reshape(-1).view(np.uint8)
        contents += [flat, np.zeros(-len(flat) % _ALIGNED, np.uint8)]
    head += bytes(-len(head) % _ALIGNED)
    return [np.frombuffer(bytes(head), np.uint8), *contents]


def read(data: Bytes) -> dict[str, Array]:
    """Return the arrays of a container, (n,) uint8, as views of it.

    Raises:
        ValueError: it is no container, or one of another format.
    """
    cursor = _Cursor(data)
    version, zero, count = cursor.numbers("<BBH")
    if (version, zero) != (FORMAT, 0):
        raise ValueError(f"arrays must be in format {FORMAT}, got {version}")
    entries: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    for _ in range(count):
        (length,) = cursor.numbers("<B")
        name = cursor.take(length).tobytes().decode("latin-1")
        number, dimensions = cursor.numbers("<BB")
        if number not in _DTYPES or dimensions > _MOST_DIMENSIONS or name in entries or not _NAME.fullmatch(name):
            raise ValueError("the arrays have a malformed head")
        entries[name] = _DTYPES[number], cursor.numbers(f"<{dimensions}Q")
    cursor.align()
    found = {}
    for name, (dtype, shape) in entries.items():
        content = cursor.take(math.prod(shape) * dtype.itemsize)
        cursor.align()
        try:
            found[name] = content.view(dtype).reshape(shape)
        except (ValueError, OverflowError):  # without elements, and with a dimension that numpy does not have
            raise ValueError("the arrays have a malformed head") from None
    if cursor.at != len(data):
        raise ValueError(f"the arrays must end at byte {cursor.at}, got {len(data)} bytes")
    return found


class _Cursor:
    """Reads a container from front to back, and never past its end."""

    def __init__(self, data: Bytes) -> None:
        self.at = 0
        self._data = data

    def take(self, n: int) -> Bytes:
        """Return the next n bytes. Raises ValueError if there are fewer."""
        start, end = self.at, self.at + n
        if end > len(self._data):
            raise ValueError(f"the arrays were cut off: byte {end} of {len(self._data)} is missing")
        self.at = end
        return self._data[start:end]

    def numbers(self, layout: str) -> tuple[int, ...]:
        """Return the next integers."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)).tobytes())

    def align(self) -> None:
        """Skip zeros up to the next content."""
        if self.take(-self.at % _ALIGNED).any():
            raise ValueError("the arrays have other bytes than zeros between them")
