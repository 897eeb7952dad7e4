"""A memory-mapped file of vector envelopes, all of the same size.

It has no checksum. Envelopes are authenticated when they are opened, and damaged ones are read again from the records.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...data.arrays import Bytes, Rows
from ...storage.sqlite.files import private

__all__ = ["EnvelopeFile", "write_envelopes"]

_CHUNK = 5_000


class EnvelopeFile:
    """Reads the first `count` envelopes of a file."""

    def __init__(self, path: Path, count: int, width: int) -> None:
        """Map the file.

        Raises:
            OSError: there is no such file.
            ValueError: the file is too short.
        """
        self.path, self.count = path, count
        self._data: Bytes
        if not count:
            self._data = np.empty((0, width), np.uint8)
            return
        self._size = count * width
        with open(path, "rb") as file:
            self._descriptor = os.dup(file.fileno())  # of the file that is mapped, whatever has its name later
        weakref.finalize(self, os.close, self._descriptor)
        if not self.is_whole():
            raise ValueError(f"{path.name} is too short")
        # a plain array over the map, because the memmap class of numpy costs microseconds on every access
        self._data = np.asarray(np.memmap(path, np.uint8, "r", shape=(count, width)))

    def is_whole(self) -> bool:
        """Return True if the file is as long as it was. Reading a map beyond the end of its file kills the process."""
        return not self.count or os.fstat(self._descriptor).st_size >= self._size

    def take(self, ordinals: npt.NDArray[np.intp]) -> Bytes:
        """Return (n, width) copies of envelopes."""
        return self._data.take(ordinals, axis=0)


def write_envelopes(
    path: Path, start: int, rows: Rows, width: int, fetch: Callable[[Rows], tuple[Rows, Bytes]]
) -> None:
    """Write the envelopes of rows from position `start` on, durably. Rows that no longer exist get zeros."""
    with open(path, "r+b" if start else "wb", opener=private) as file:
        file.seek(start * width)
        for i in range(0, len(rows), _CHUNK):
            some = rows[i : i + _CHUNK]
            found, envelopes = fetch(some)
            if len(found) < len(some):
                whole = np.zeros((len(some), width), np.uint8)
                whole[np.searchsorted(some, found)] = envelopes
                envelopes = whole
            file.write(np.ascontiguousarray(envelopes).data)
        file.flush()
        os.fsync(file.fileno())
