"""Batched pseudorandom functions: PMAC tags and Gaussian keystreams, one cipher call a batch; imports nothing of ours.

PMAC (Black and Rogaway, "A Block-Cipher Mode of Operation for Parallelizable Message Authentication",
EUROCRYPT 2002) fits a batch of long vectors: all blocks of all messages go through AES in one call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

__all__ = ["Keystream", "Pmac"]

Bytes = npt.NDArray[np.uint8]
BLOCK = 16
_CHUNK_BYTES = 1 << 18  # work that stays in the second-level cache


class _Aes:
    """AES-256 on many independent blocks at once."""

    def __init__(self, key: bytes) -> None:
        # ECB here is the raw permutation under the modes built in this file, never a mode for data
        self._cipher = Cipher(algorithms.AES256(key), modes.ECB())  # noqa: S305

    def __call__(self, blocks: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Encrypt (..., 2) uint64, each pair one block in memory order."""
        out = np.empty(blocks.size * 8 + BLOCK - 1, np.uint8)
        size = self._cipher.encryptor().update_into(np.ascontiguousarray(blocks).reshape(-1).view(np.uint8).data, out.data)
        return out[:size].view(np.uint64).reshape(blocks.shape)


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

    def _offsets_for(self, n: int) -> npt.NDArray[np.uint64]:
        """Offsets of the first n blocks: gamma_i * L with gamma the Gray code."""
        if n > len(self._offsets):
            powers = [self._l]
            while len(powers) < n.bit_length() + 1:
                powers.append(_double(powers[-1]))
            offsets, current = [], 0
            for i in range(1, n + 1):
                current ^= powers[(i & -i).bit_length() - 1]
                offsets.append(_block(current))
            self._offsets = np.concatenate(offsets)
        return self._offsets[:n]

    def tags(self, messages: Bytes) -> Bytes:
        """Tag n messages of one length: (n, length) uint8 -> (n, 16) uint8."""
        n, length = messages.shape
        full = length > 0 and length % BLOCK == 0
        blocks = max(1, -(-length // BLOCK))
        out = np.empty((n, 2), np.uint64)
        step = max(1, _CHUNK_BYTES // (blocks * BLOCK))
        for start in range(0, n, step):
            part = messages[start : start + step]
            if full and part.flags.c_contiguous:
                words = _words(part)
            else:
                padded = np.zeros((len(part), blocks * BLOCK), np.uint8)
                padded[:, :length] = part
                if not full:
                    padded[:, length] = 0x80
                words = _words(padded)
            total = words[:, -1].copy()
            if full:
                total ^= self._l_inverse
            if blocks > 1:
                total ^= np.bitwise_xor.reduce(self._aes(words[:, :-1] ^ self._offsets_for(blocks - 1)), axis=1)
            out[start : start + step] = self._aes(total)
        return out.view(np.uint8)

    def tags_of(self, messages: Sequence[bytes]) -> Bytes:
        """Tag n messages of any lengths, grouped by length: -> (n, 16) uint8."""
        out = np.empty((len(messages), BLOCK), np.uint8)
        lengths = np.fromiter(map(len, messages), np.int64, len(messages))
        for length in np.unique(lengths):
            where = np.flatnonzero(lengths == length)
            joined = b"".join(messages[i] for i in where) if len(where) < len(messages) else b"".join(messages)
            out[where] = self.tags(np.frombuffer(joined, np.uint8).reshape(len(where), length))
        return out


def _words(rows: Bytes) -> npt.NDArray[np.uint64]:
    return rows.view(np.uint64).reshape(len(rows), -1, 2)


def _block(value: int) -> npt.NDArray[np.uint64]:
    return np.frombuffer(value.to_bytes(BLOCK, "big"), np.uint64).reshape(1, 2)


class Keystream:
    """AES-256-CTR keystreams of many nonces at once, as integers, uniforms and Gaussians."""

    def __init__(self, key: bytes) -> None:
        self._aes = _Aes(key)

    def words(self, nonces: Bytes, n_words: int) -> npt.NDArray[np.uint32]:
        """Keystream of each nonce: (n, 16) uint8 -> (n, n_words) uint32.

        The counter is the last 8 bytes of the block, big-endian, starting at the nonce's own value.
        """
        blocks = -(-n_words // 4)
        counters = np.empty((len(nonces), blocks, 2), ">u8")
        start = np.ascontiguousarray(nonces).view(">u8")
        counters[:, :, 0] = start[:, :1]
        np.add(start[:, 1:].astype(np.uint64), np.arange(blocks, dtype=np.uint64), out=counters[:, :, 1], casting="unsafe")
        stream = self._aes(counters.view(np.uint64))
        return stream.reshape(len(nonces), -1).view(np.uint32)[:, :n_words]

    def gaussians(self, n: int, *, stream: int = 0) -> npt.NDArray[np.float64]:
        """Draw n standard normal numbers in double precision, by Box and Muller (1958), from one stream."""
        half = -(-n // 2)
        nonce = np.frombuffer(stream.to_bytes(8, "big") + bytes(8), np.uint8).reshape(1, 16)
        words = self.words(nonce, 4 * half).reshape(-1).view(np.uint64) >> np.uint64(11)
        uniform = (words + 0.5) * 2.0**-53
        radius = np.sqrt(-2 * np.log(uniform[:half]))
        angle = 2 * np.pi * uniform[half:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]
