"""The bytes of a sealed part of a search index, or of a change of scheme that is under way.

    part      format u8 | key version u32 | GCM nonce 12 | ciphertext | GCM tag 16

The associated data is the tuple (format, purpose, tenant, collection, incarnation, name, part, parts, count), then the
first five bytes. So a part opens only under its own name and place, and in its own collection and key version.

AES-256-GCM with random 96-bit nonces (NIST SP 800-38D, 8.2.2): at most 2^32 parts per collection and key version.
"""

from __future__ import annotations

import os
import struct

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..data.arrays import Bytes
from ..errors import AuthenticationError
from .envelope import NONCE, TAG, Context
from .labels import FORMAT, Purpose, derive, encode

__all__ = ["SEGMENT_OVERHEAD", "SegmentCipher", "segment_key_version"]

SEGMENT_FORMAT = 1
_HEAD = 5
_BODY = _HEAD + NONCE
SEGMENT_OVERHEAD = _BODY + TAG
"""Bytes that a sealed part has more than its content."""
_REFUSED = {
    Purpose.INDEX: "a part of the sealed index could not be authenticated",
    Purpose.CHANGE: "a part of a change of scheme could not be authenticated",
}


def segment_key_version(sealed: bytes) -> int:
    """Read the key version that a sealed part claims; only opening proves it. Raises AuthenticationError."""
    if len(sealed) < SEGMENT_OVERHEAD or sealed[0] != SEGMENT_FORMAT:
        raise AuthenticationError(_REFUSED[Purpose.INDEX])
    return int.from_bytes(sealed[1:_HEAD], "big")


class SegmentCipher:
    """Seals and opens such parts of one collection under one key version. Threads may share it.

    Args:
        root: the root key of the version.
        key_version: its number.
        context: whose keys these are.
        purpose: `INDEX` or `CHANGE`.
    """

    def __init__(self, root: bytes, key_version: int, context: Context, purpose: Purpose = Purpose.INDEX) -> None:
        self.key_version, self._refused = key_version, _REFUSED[purpose]
        self._cipher = AESGCM(derive(root, purpose, *context))
        self._prefix = encode(FORMAT, purpose.value, *context)
        self._head = struct.pack(">BI", SEGMENT_FORMAT, key_version)

    def seal(self, name: str, part: int, parts: int, count: int, content: bytes | memoryview) -> bytes:
        """Seal part number `part` of the `parts` parts of a segment that holds `count` rows."""
        nonce = os.urandom(NONCE)
        associated = self._prefix + encode(name, part, parts, count) + self._head
        return b"".join((self._head, nonce, self._cipher.encrypt(nonce, content, associated)))

    def open(self, name: str, part: int, parts: int, count: int, sealed: bytes, out: Bytes | None = None) -> Bytes:
        """Open a part that was sealed under the same name, numbers and key version: (n,) uint8.

        Args:
            name: the segment's name.
            part: number of the part, from 0.
            parts: number of parts.
            count: number of rows in the segment.
            sealed: the part.
            out: (n,) uint8 where the content goes. If it has another size, the part is refused.

        Raises:
            AuthenticationError: the part was altered, moved or swapped, or is another's. `out` then holds no content.
        """
        if len(sealed) < SEGMENT_OVERHEAD or not sealed.startswith(self._head):
            raise AuthenticationError(self._refused)
        if out is None:
            out = np.empty(len(sealed) - SEGMENT_OVERHEAD, np.uint8)
        elif len(out) != len(sealed) - SEGMENT_OVERHEAD:
            raise AuthenticationError(self._refused)
        associated = self._prefix + encode(name, part, parts, count) + self._head
        try:
            self._cipher.decrypt_into(sealed[_HEAD:_BODY], memoryview(sealed)[_BODY:], associated, out.data)
        except InvalidTag:
            out[:] = 0
            raise AuthenticationError(self._refused) from None
        return out
