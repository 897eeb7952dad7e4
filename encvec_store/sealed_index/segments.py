"""Sealed segments: named arrays, cut into parts of 4 MiB, each sealed into a blob of its own.

A segment never changes. The sizes of its parts depend only on names, dtypes and shapes of its arrays: nothing is
compressed, and the last part is padded with zeros to a multiple of 64 KiB.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..crypto.segments import SEGMENT_OVERHEAD
from ..data.arrays import Bytes
from ..runtime.concurrency import result
from ..sealing.keyring import INDEX, Keyring
from ..storage.protocol import Blob
from . import arrays as containers
from .arrays import Array

__all__ = [
    "PART",
    "BlobReader",
    "MissingSegmentError",
    "Segment",
    "is_segment_name",
    "new_name",
    "opened",
    "sealed",
    "stored_bytes",
]

PART = 4 << 20
"""Bytes of content in each part but the last."""
STEP = 64 << 10
"""The content of the last part is padded to a multiple of this."""
_NAME = re.compile(rf"{INDEX}\.[1-9][0-9]{{0,9}}\.[0-9a-f]{{16}}", re.ASCII)
_MOST = 1 << 40
"""Bytes of the largest segment that is opened, and its largest count."""
_THREADS = 2


def new_name(version: int) -> str:
    """Return a random name for a new segment of a key version."""
    return f"{INDEX}.{version}.{os.urandom(8).hex()}"


def is_segment_name(name: object) -> bool:
    """Return True if this may be the name of a segment."""
    return type(name) is str and bool(_NAME.fullmatch(name))


class MissingSegmentError(Exception):
    """A part of a segment is gone: another process has stored a newer manifest and dropped the segment."""


class BlobReader(Protocol):
    """What is read here of `Records`."""

    def blob(self, name: str, part: int = 0) -> bytes | None:
        """Return the content of a sealed blob; None if there is none."""
        ...


@dataclass(frozen=True)
class Segment:
    """A segment, as a manifest names it. Raises ValueError if its fields do not fit together."""

    name: str
    """`index.<key version>.<16 hex digits>`; the digits are random."""
    count: int
    """Number of rows in it."""
    parts: int
    """Number of blobs."""
    size: int
    """Bytes of its arrays, with their head, without padding."""

    def __post_init__(self) -> None:
        numbers = (self.count, self.parts, self.size)
        if not is_segment_name(self.name) or any(type(n) is not int for n in numbers):
            raise ValueError("a segment must have a name and three integers")
        if not 0 <= self.count <= _MOST or not 0 < self.size <= _MOST or self.parts != -(-self.size // PART):
            raise ValueError(f"a segment must have a possible size, got count, parts, size = {numbers}")

    @property
    def padded(self) -> int:
        """Bytes of all parts before they are sealed."""
        return -(-self.size // STEP) * STEP


class SealedParts(Protocol):
    """Parts in the store: a segment, or blocks."""

    @property
    def parts(self) -> int:
        """Number of blobs."""
        ...

    @property
    def padded(self) -> int:
        """Bytes of all parts before they are sealed."""
        ...


def stored_bytes(some: SealedParts) -> int:
    """Return the bytes of all sealed parts."""
    return some.padded + some.parts * SEGMENT_OVERHEAD


def sealed(
    keyring: Keyring, version: int, arrays: Mapping[str, Array], count: int
) -> tuple[Segment, Iterator[tuple[str, int, Blob]]]:
    """Seal arrays of `count` rows under a key version, as a new segment and its blobs, for `Records.keep`.

    The blobs are made one by one, when they are asked for. The arrays must not change until then.

    Raises:
        ValueError: arrays that cannot be stored; see `arrays.pieces`.
        KeyUnavailableError: the version is disabled or destroyed; also while blobs are made.
    """
    pieces = containers.pieces(arrays)
    size = sum(map(len, pieces))
    segment = Segment(new_name(version), count, -(-size // PART), size)

    def blobs() -> Iterator[tuple[str, int, Blob]]:
        for part, content in enumerate(_parts(pieces)):
            blob = keyring.seal_segment(version, segment.name, part, segment.parts, count, content.data)
            yield segment.name, part, blob

    return segment, blobs()


def opened(records: BlobReader, keyring: Keyring, segment: Segment) -> dict[str, Array]:
    """Return the arrays of a segment: read-only views of one buffer.

    Two threads open parts while the caller's thread reads the next ones.

    Raises:
        MissingSegmentError: a part is gone. Read the manifest again.
        AuthenticationError: a part was altered, moved or swapped.
        KeyUnavailableError: its key version is disabled or destroyed.
        ValueError: it was sealed by us, but is not in the format of this version. Build the index anew.
    """
    buffer = np.empty(segment.padded, np.uint8)
    if segment.parts == 1:
        _open(keyring, segment, 0, _part(records, segment, 0), buffer)
    else:
        coming: deque[Future[None]] = deque()
        with ThreadPoolExecutor(_THREADS, "encvec-open") as pool:
            for part in range(segment.parts):
                coming.append(pool.submit(_open, keyring, segment, part, _part(records, segment, part), buffer))
                if len(coming) > _THREADS:  # so that few sealed parts are in memory
                    result(coming.popleft())
            for future in coming:
                result(future)
    buffer.flags.writeable = False
    return containers.read(buffer[: segment.size])


def _part(records: BlobReader, segment: Segment, part: int) -> bytes:
    found = records.blob(segment.name, part)
    if found is None:
        raise MissingSegmentError(f"part {part} of {segment.parts} of the segment {segment.name} is not in the store")
    return found


def _open(keyring: Keyring, segment: Segment, part: int, content: bytes, buffer: Bytes) -> None:
    place = buffer[part * PART : (part + 1) * PART]
    keyring.open_segment(segment.name, part, segment.parts, segment.count, content, place)


def _parts(pieces: Sequence[Bytes]) -> Iterator[Bytes]:
    """Cut the joined pieces into parts. Each part overwrites the one before it."""
    room, filled = np.empty(PART, np.uint8), 0
    for piece in pieces:
        at = 0
        while at < len(piece):
            more = piece[at : at + len(room) - filled]
            room[filled : filled + len(more)] = more
            at, filled = at + len(more), filled + len(more)
            if filled == len(room):
                yield room
                filled = 0
    if filled:
        end = -(-filled // STEP) * STEP
        room[filled:end] = 0
        yield room[:end]
