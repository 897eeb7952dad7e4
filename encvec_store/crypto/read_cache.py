"""The bytes of a local cache of sealed records, and the order of rows from which its buckets are cut.

    part      format u8 | key version u32 | GCM nonce 12 | ciphertext | GCM tag 16

Each life of a cache has a key of its own, because nobody counts how much several machines seal in their caches.
The associated data is the tuple (format, purpose, tenant, collection, incarnation, what, life, number), then the first
five bytes. So a part opens only as what it is, and in its own place.
"""

from __future__ import annotations

import os
import struct

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..data.arrays import Rows
from ..errors import AuthenticationError
from .envelope import NONCE, TAG, Context
from .labels import FORMAT, Purpose, derive, encode
from .prf import Pmac

__all__ = ["ReadCacheCipher", "read_cache_key_version"]

_FORMAT = 1
_HEAD = 5
_BODY = _HEAD + NONCE
_REFUSED = "a part of the cache of sealed records could not be authenticated"


def read_cache_key_version(sealed: bytes) -> int:
    """Read the key version that a part claims; only opening proves it. Raises AuthenticationError."""
    if len(sealed) < _BODY + TAG or sealed[0] != _FORMAT:
        raise AuthenticationError(_REFUSED)
    return int.from_bytes(sealed[1:_HEAD], "big")


class ReadCacheCipher:
    """Seals and opens the parts of one collection's cache under one key version. Threads may share it.

    Args:
        root: the root key of the version.
        key_version: its number.
        context: whose keys these are.
    """

    def __init__(self, root: bytes, key_version: int, context: Context) -> None:
        self._root, self._context = root, context
        self._order = Pmac(derive(root, Purpose.BUCKET, *context))
        self._prefix = encode(FORMAT, Purpose.READ_CACHE.value, *context)
        self._head = struct.pack(">BI", _FORMAT, key_version)

    def seal(self, what: str, life: int, number: int, content: bytes) -> bytes:
        """Seal a part: what it is, of which life of the cache, and its number."""
        nonce = os.urandom(NONCE)
        return b"".join(
            (self._head, nonce, self._cipher(life).encrypt(nonce, content, self._bound(what, life, number)))
        )

    def open(self, what: str, life: int, number: int, sealed: bytes) -> bytes:
        """Open a part that was sealed as the same one. Raises AuthenticationError."""
        if len(sealed) < _BODY + TAG or not sealed.startswith(self._head):
            raise AuthenticationError(_REFUSED)
        try:
            return self._cipher(life).decrypt(sealed[_HEAD:_BODY], sealed[_BODY:], self._bound(what, life, number))
        except InvalidTag:
            raise AuthenticationError(_REFUSED) from None

    def order(self, rows: Rows) -> npt.NDArray[np.intp]:
        """Return the order in which (n,) rows are put into buckets. It looks random without the key."""
        tags = self._order.tags(rows.astype("<i8").view(np.uint8).reshape(len(rows), 8))
        return np.argsort(tags.view(">u8")[:, 0], kind="stable")

    def _cipher(self, life: int) -> AESGCM:
        return AESGCM(derive(self._root, Purpose.READ_CACHE, *self._context, life))

    def _bound(self, what: str, life: int, number: int) -> bytes:
        return self._prefix + encode(what, life, number) + self._head
