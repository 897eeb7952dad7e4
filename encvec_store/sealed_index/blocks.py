"""Blocks of fixed size, which hold the codes of lists: sealed one by one, and fetched when a search needs them.

    block   codes, one after the other | position u32, little-endian, of each | zeros

All blocks of a segment have one size, whatever lies in them, and are parts of one blob. Codes are in the order of their
lists, so a list begins and ends anywhere in a block. Where it does is in the sealed structure of the graph.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.arrays import Bytes
from ..errors import AuthenticationError
from ..runtime.concurrency import offload
from ..runtime.forks import Mutex
from ..sealing.keyring import Keyring
from ..storage.protocol import Blob, Followed
from .segments import MissingSegmentError, is_segment_name, new_name

__all__ = ["BLOCK", "CURE", "BlockCache", "BlockWriter", "Blocks", "Places", "are_stored", "fetched"]

BLOCK = 32 << 10
"""Bytes of a block before it is sealed."""
_POSITION = 4
_MOST = 1 << 40
_AT_ONCE = 4 << 20
"""Bytes written by one transaction: other writers wait for it."""
CURE = "Run `encvec maintain`, for a mapped column `maintain`, to build it anew from the records"
Places = npt.NDArray[np.uint32]
"""(n,) positions of vectors in a graph."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of a graph, as a manifest names them. Raises ValueError if its fields do not fit together."""

    name: str
    """`index.<key version>.<16 hex digits>`; the digits are random."""
    count: int
    """Number of codes."""
    width: int
    """Bytes of a code."""
    size: int
    """Bytes of a block before it is sealed."""

    def __post_init__(self) -> None:
        numbers = (self.count, self.width, self.size)
        if not is_segment_name(self.name) or any(type(number) is not int for number in numbers):
            raise ValueError("blocks must have a name and three integers")
        if not (0 < self.count <= _MOST and 0 < self.width <= self.size - _POSITION and self.size <= _MOST):
            raise ValueError(f"blocks must have a possible size, got count, width, size = {numbers}")

    @property
    def version(self) -> int:
        """The key version that they are sealed under."""
        return int(self.name.split(".")[1])

    @property
    def each(self) -> int:
        """Codes in each block but the last."""
        return self.size // (self.width + _POSITION)

    @property
    def parts(self) -> int:
        """Number of blocks."""
        return -(-self.count // self.each)

    @property
    def padded(self) -> int:
        """Bytes of all blocks before they are sealed."""
        return self.parts * self.size

    def codes_of(self, block: Bytes) -> Bytes:
        """Return the codes in an opened block: (each, width)."""
        return block[: self.each * self.width].reshape(self.each, self.width)

    def places_of(self, block: Bytes) -> Places:
        """Return the positions in an opened block: (each,)."""
        start = self.each * self.width
        return block[start : start + self.each * _POSITION].view("<u4")

    def opened(self, keyring: Keyring, sealed: Mapping[int, bytes]) -> dict[int, Bytes]:
        """Open blocks, by number. Raises AuthenticationError, KeyUnavailableError."""
        found = {}
        for part, content in sealed.items():
            place = np.empty(self.size + -self.size % 4, np.uint8)[: self.size]
            try:
                found[part] = keyring.open_segment(self.name, part, self.parts, self.count, content, place)
            except AuthenticationError:
                raise AuthenticationError(
                    f"block {part} of {self.parts} of the sealed index could not be authenticated. {CURE}"
                ) from None
        return found


def fetched(records: Followed, keyring: Keyring, blocks: Blocks, parts: Sequence[int]) -> dict[int, Bytes]:
    """Fetch blocks by one statement and open them.

    Raises:
        MissingSegmentError: a block is gone. Read the manifest again.
        AuthenticationError: a block was altered, moved or swapped.
        KeyUnavailableError: its key version is disabled or destroyed.
    """
    sealed = records.blob_parts(blocks.name, parts)
    if len(sealed) < len(parts):
        raise MissingSegmentError(
            f"{len(parts) - len(sealed)} blocks of the segment {blocks.name} are not in the store"
        )
    return offload(len(parts) << 5, blocks.opened, keyring, sealed)


def are_stored(records: Followed, some: AbstractSet[Blocks | None]) -> bool:
    """Return True if all blocks of some graphs are in the store."""
    names = [(blocks.name, blocks.parts) for blocks in some if blocks is not None]
    return all(records.blobs(name).get(name, (0, 0))[0] == parts for name, parts in names)


class BlockWriter:
    """Seals codes and their positions into blocks, and stores them a few at a time.

    Args:
        records: of the collection.
        keyring: of the collection.
        version: the key version to seal under.
        count: how many codes will come.
        width: bytes of a code.
    """

    def __init__(self, records: Followed, keyring: Keyring, version: int, count: int, width: int) -> None:
        size = max(BLOCK, 8 * (width + _POSITION))
        self.blocks = Blocks(new_name(version), count, width, size)
        self._records, self._keyring, self._version = records, keyring, version
        self._room = np.zeros(size, np.uint8)
        self._filled = self._part = 0
        self._sealed: list[tuple[str, int, Blob]] = []

    def add(self, codes: Bytes, places: Places) -> None:
        """Append (n, width) codes and their (n,) positions."""
        at, step = 0, max(1, _AT_ONCE // self.blocks.width)
        while at < len(codes):
            offload(len(codes), self._take, codes[at : at + step], places[at : at + step])
            at += step
            self._store()

    def finish(self) -> Blocks:
        """Store what is left."""
        if self._filled:
            self._seal()
        self._store()
        if self._part != self.blocks.parts:
            raise ValueError(
                f"{self.blocks.count} codes must be added, in {self.blocks.parts} blocks, got {self._part}"
            )
        return self.blocks

    def _take(self, codes: Bytes, places: Places) -> None:
        at, each = 0, self.blocks.each
        while at < len(codes):
            stop = min(len(codes), at + each - self._filled)
            filled = self._filled + stop - at
            self.blocks.codes_of(self._room)[self._filled : filled] = codes[at:stop]
            self.blocks.places_of(self._room)[self._filled : filled] = places[at:stop]
            at, self._filled = stop, filled
            if filled == each:
                self._seal()

    def _seal(self) -> None:
        self.blocks.codes_of(self._room)[self._filled :] = 0
        self.blocks.places_of(self._room)[self._filled :] = 0
        parts, count = self.blocks.parts, self.blocks.count
        blob = self._keyring.seal_segment(self._version, self.blocks.name, self._part, parts, count, self._room.data)
        self._sealed.append((self.blocks.name, self._part, blob))
        self._part, self._filled = self._part + 1, 0

    def _store(self) -> None:
        if self._sealed:
            self._records.keep(self._sealed)
            self._sealed = []


class BlockCache:
    """Opened blocks, those used last. Threads may share it; a forked child keeps what its parent had."""

    def __init__(self) -> None:
        self._lock = Mutex()
        self._held: OrderedDict[tuple[str, int], Bytes] = OrderedDict()
        self.bytes = 0
        """Memory held."""
        self.found = self.fetched = self.fetched_bytes = 0
        """Blocks that were here when they were needed, blocks that were fetched, and their bytes."""

    @property
    def count(self) -> int:
        """Blocks held."""
        return len(self._held)

    def get(self, name: str, parts: Iterable[int]) -> dict[int, Bytes]:
        """Return those of the blocks that are here."""
        with self._lock:
            found = {}
            for part in parts:
                block = self._held.get((name, part))
                if block is not None:
                    found[part] = block
                    self._held.move_to_end((name, part))
            self.found += len(found)
            return found

    def peek(self, name: str, parts: Iterable[int]) -> set[int]:
        """Return the numbers of those of the blocks that are here."""
        with self._lock:
            return {part for part in parts if (name, part) in self._held}

    def put(self, name: str, blocks: Mapping[int, Bytes], most: int) -> None:
        """Keep blocks that were fetched, and drop older ones until all together have at most `most` bytes."""
        with self._lock:
            for part, block in blocks.items():
                self.fetched += 1
                self.fetched_bytes += len(block)
                if self._held.setdefault((name, part), block) is block:
                    self.bytes += len(block)
            self._shrink(most)

    def shrink(self, most: int) -> None:
        """Drop the blocks that were not used for the longest time, until there are at most `most` bytes."""
        with self._lock:
            self._shrink(most)

    def drop(self, name: str) -> None:
        """Drop the blocks of a segment."""
        self.keep_only({other for other, _ in list(self._held)} - {name})

    def keep_only(self, names: set[str]) -> None:
        """Drop the blocks of all other segments."""
        with self._lock:
            for place in [place for place in self._held if place[0] not in names]:
                self.bytes -= len(self._held.pop(place))

    def _shrink(self, most: int) -> None:
        while self.bytes > most and self._held:
            self.bytes -= len(self._held.popitem(last=False)[1])
