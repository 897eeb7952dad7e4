"""Batched pseudorandom functions: PMAC tags and AES-CTR keystreams of many messages at once.

PMAC (Black and Rogaway, "A Block-Cipher Mode of Operation for Parallelizable Message Authentication",
EUROCRYPT 2002) fits a batch of long vectors: all blocks of all messages go through AES in one call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ..data.arrays import Bytes

__all__ = ["Keystream", "Pmac", "batches"]

Words = npt.NDArray[np.uint64]
BLOCK = 16
_BATCH_BYTES = 1 << 19  # fits the second-level cache, and is large enough that numpy's cost per call does not matter


def batches(n: int, row_bytes: int) -> tuple[int, list[slice]]:
    """Cut n rows into batches that fit the cache; return the largest batch's size and the slices.

    Callers allocate buffers before they loop: new memory for each batch would cost as much as the arithmetic.
    """
    size = max(1, min(n, _BATCH_BYTES // max(1, row_bytes)))
    return size, [slice(start, min(start + size, n)) for start in range(0, n, size)]


class _Aes:
    """AES-256 on many independent blocks at once."""

    def __init__(self, key: bytes) -> None:
        # ECB is the raw permutation that the modes in this file are built on; it never encrypts data
        self._cipher = Cipher(algorithms.AES256(key), modes.ECB())  # noqa: S305

    @staticmethod
    def room(size: int, blocks: int) -> Bytes:
        """Allocate an output for (size, blocks) blocks; `cryptography` needs 15 bytes more than it writes."""
        return np.empty((size * blocks + 1) * BLOCK - 1, np.uint8)

    def __call__(self, blocks: Words, room: Bytes | None = None) -> Words:
        """Encrypt C-contiguous (..., 2) uint64, each pair one block in memory order. The result is a view of `room`."""
        if room is None:
            room = self.room(1, blocks.size // 2)
        # a new context for each call: threads must not share one
        size = self._cipher.encryptor().update_into(blocks.reshape(-1).view(np.uint8).data, room.data)
        return room[:size].view(np.uint64).reshape(blocks.shape)


def _double(block: int) -> int:
    """Multiply by x in GF(2^128) with x^128 + x^7 + x^2 + x + 1."""
    return ((block << 1) & ((1 << 128) - 1)) ^ (0x87 if block >> 127 else 0)


def _halve(block: int) -> int:
    """Divide by x in GF(2^128)."""
    return (block >> 1) ^ ((1 << 127) | 0x43 if block & 1 else 0)


class Pmac:
    """PMAC-AES-256: a variable-length PRF with 16-byte tags."""

    def __init__(self, key: bytes) -> None:
        self._aes = _Aes(key)
        first = self._aes(np.zeros((1, 2), np.uint64))
        self._l = int.from_bytes(first.tobytes(), "big")
        self._offsets = np.zeros((0, 2), np.uint64)
        self._l_inverse = _block(_halve(self._l))

    def _offsets_for(self, n: int) -> Words:
        """Return the offsets of the first n blocks: gamma_i * L, with gamma the Gray code."""
        known = self._offsets
        if n > len(known):
            powers = [self._l]
            while len(powers) < n.bit_length():
                powers.append(_double(powers[-1]))
            offsets, current = [], 0
            for i in range(1, n + 1):
                current ^= powers[(i & -i).bit_length() - 1]
                offsets.append(_block(current))
            self._offsets = known = np.concatenate(offsets)
        return known[:n]

    def tags(self, *pieces: Bytes) -> Bytes:
        """Tag n messages of one length, given as (n, width) pieces that are joined row by row: (n, 16) uint8."""
        length = sum(piece.shape[1] for piece in pieces)
        n, blocks = len(pieces[0]), max(1, -(-length // BLOCK))
        full = length == blocks * BLOCK
        offsets = np.zeros((blocks, 2), np.uint64)  # 0 for the last block, whose ciphertext is not used
        offsets[:-1] = self._offsets_for(blocks - 1)
        out = np.empty((n, 2), np.uint64)
        size, parts = batches(n, blocks * BLOCK)
        buffer, room = np.empty((size, blocks * BLOCK), np.uint8), _Aes.room(size, blocks)
        for rows in parts:
            padded = buffer[: rows.stop - rows.start]
            np.concatenate([piece[rows] for piece in pieces], axis=1, out=padded[:, :length])
            if not full:
                padded[:, length:] = 0
                padded[:, length] = 0x80
            words = padded.view(np.uint64).reshape(len(padded), blocks, 2)
            total = words[:, -1] ^ self._l_inverse if full else words[:, -1].copy()
            if blocks > 1:
                words ^= offsets
                total ^= _xor_blocks(self._aes(words, room)[:, :-1], spare=words)
            out[rows] = self._aes(total)
        return out.view(np.uint8)

    def tags_of(self, messages: Sequence[bytes]) -> Bytes:
        """Tag n messages of any lengths, grouped by length: -> (n, 16) uint8."""
        out = np.empty((len(messages), BLOCK), np.uint8)
        lengths = np.fromiter(map(len, messages), np.int64, len(messages))
        for length in np.unique(lengths):
            where = np.flatnonzero(lengths == length)
            joined = b"".join(messages[i] for i in where.tolist())
            out[where] = self.tags(np.frombuffer(joined, np.uint8).reshape(len(where), length))
        return out


def _xor_blocks(blocks: Words, spare: Words) -> Words:
    """Xor the blocks of each row: (n, m, 2) -> (n, 2). Folding halves is faster than a reduction over two words."""
    while (m := blocks.shape[1]) > 1:
        half = m // 2
        folded = np.bitwise_xor(blocks[:, :half], blocks[:, half : 2 * half], out=spare[:, :half])
        if m % 2:
            folded[:, 0] ^= blocks[:, -1]
        blocks, spare = folded, blocks
    return blocks[:, 0]


def _block(value: int) -> Words:
    return np.frombuffer(value.to_bytes(BLOCK, "big"), np.uint64).reshape(1, 2)


class Keystream:
    """AES-256-CTR (NIST SP 800-38A) under one key, many nonces at once."""

    def __init__(self, key: bytes) -> None:
        self._aes = _Aes(key)

    def words(self, nonces: Bytes, n_words: int) -> npt.NDArray[np.uint32]:
        """Return the keystream of each nonce: (n, 16) uint8 -> (n, n_words) uint32.

        The counter is the last 8 bytes of the block, big-endian, starting at the nonce's own value.
        """
        out = np.empty((len(nonces), n_words), np.uint32)
        for rows, words in self.batches(nonces, n_words):
            out[rows] = words
        return out

    def batches(self, nonces: Bytes, n_words: int) -> Iterator[tuple[slice, npt.NDArray[np.uint32]]]:
        """Yield (rows, words) of one batch after another. The next batch overwrites the words."""
        blocks = -(-n_words // 4)
        start = np.ascontiguousarray(nonces).view(">u8").astype(np.uint64)
        steps = np.arange(blocks, dtype=np.uint64)
        size, parts = batches(len(nonces), blocks * BLOCK)
        counters, room = np.empty((size, blocks, 2), ">u8"), _Aes.room(size, blocks)
        for rows in parts:
            counter = counters[: rows.stop - rows.start]
            counter[:, :, 0] = start[rows, :1]
            np.add(start[rows, 1:], steps, out=counter[:, :, 1])
            stream = self._aes(counter.view(np.uint64), room)
            yield rows, stream.reshape(len(counter), -1).view(np.uint32)[:, :n_words]

    def gaussians(self, n: int, *, stream: int = 0) -> npt.NDArray[np.float64]:
        """Draw n standard normal numbers in double precision from one stream, by Box and Muller (1958)."""
        half = -(-n // 2)
        bits = self._integers(2 * half, stream) >> np.uint64(11)
        uniform = (bits + 0.5) * 2.0**-53
        radius = np.sqrt(-2 * np.log(uniform[:half]))
        angle = 2 * np.pi * uniform[half:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]

    def permutation(self, n: int, *, stream: int = 0) -> npt.NDArray[np.intp]:
        """Draw a permutation of n from one stream: the sort order of n 64-bit integers. Ties are negligible."""
        return np.argsort(self._integers(n, stream), kind="stable")

    def _integers(self, n: int, stream: int) -> Words:
        nonce = np.frombuffer(stream.to_bytes(8, "big") + bytes(8), np.uint8).reshape(1, BLOCK)
        return self.words(nonce, 2 * n).reshape(-1).view(np.uint64)
