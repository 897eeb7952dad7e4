"""The bytes of sealed settings and blobs. A blob is data beside the records, such as a profile.

    settings  format u8 | key version u32 | incarnation 16 | GCM nonce 12 | ciphertext | GCM tag 16
    blob      format u8 | key version u32 | GCM nonce 12 | ciphertext | GCM tag 16

The associated data of settings is the tuple (format, purpose, tenant, collection, incarnation), then everything before
the nonce. For a blob, the tuple also has the blob's name, part and digest. The incarnation is drawn at random when a
collection is created. It stands in clear in front of the settings, because their key is derived from it.
"""

from __future__ import annotations

import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import AuthenticationError
from .envelope import INCARNATION, NONCE, Context
from .labels import FORMAT, Purpose, derive, encode

__all__ = ["BlobCipher", "SettingsHead", "blob_key_version", "settings_head"]

SETTINGS_FORMAT = 1
BLOB_FORMAT = 1
_SETTINGS_HEAD = 5 + INCARNATION
_BLOB_HEAD = 5
_REFUSED = "the collection's settings could not be authenticated: they were altered, or sealed under other keys"

SettingsHead = tuple[int, bytes]
"""The key version and the incarnation that sealed settings claim."""


def settings_head(sealed: bytes) -> SettingsHead:
    """Read what sealed settings claim in clear; only opening them proves it. Raises AuthenticationError."""
    if len(sealed) < _SETTINGS_HEAD + NONCE or sealed[0] != SETTINGS_FORMAT:
        raise AuthenticationError(_REFUSED)
    return int.from_bytes(sealed[1:5], "big"), sealed[5:_SETTINGS_HEAD]


def blob_key_version(sealed: bytes) -> int:
    """Read the key version that a sealed blob claims. Raises AuthenticationError."""
    if len(sealed) < _BLOB_HEAD + NONCE or sealed[0] != BLOB_FORMAT:
        raise AuthenticationError("a part of the collection could not be authenticated")
    return int.from_bytes(sealed[1:5], "big")


class BlobCipher:
    """Seals and opens the settings and blobs of one collection under one key version.

    Args:
        root: the root key of the version.
        key_version: its number.
        context: whose keys these are.
    """

    def __init__(self, root: bytes, key_version: int, context: Context) -> None:
        self.key_version = key_version
        self._context = context
        self._settings = AESGCM(derive(root, Purpose.CONFIG, *context))
        self._blobs = AESGCM(derive(root, Purpose.BLOB, *context))

    def seal_settings(self, settings: bytes) -> bytes:
        """Seal a collection's settings."""
        head = struct.pack(">BI", SETTINGS_FORMAT, self.key_version) + self._context[2]
        nonce = os.urandom(NONCE)
        return head + nonce + self._settings.encrypt(nonce, settings, self._associated(Purpose.CONFIG) + head)

    def open_settings(self, sealed: bytes) -> bytes:
        """Open a collection's settings. Raises AuthenticationError."""
        head, nonce = sealed[:_SETTINGS_HEAD], sealed[_SETTINGS_HEAD : _SETTINGS_HEAD + NONCE]
        try:
            associated = self._associated(Purpose.CONFIG) + head
            return self._settings.decrypt(nonce, sealed[_SETTINGS_HEAD + NONCE :], associated)
        except (InvalidTag, ValueError):
            raise AuthenticationError(_REFUSED) from None

    def seal_blob(self, name: str, part: int, digest: str, content: bytes) -> bytes:
        """Seal a blob, bound to its name, its part, and the digest that the settings hold."""
        head, nonce = struct.pack(">BI", BLOB_FORMAT, self.key_version), os.urandom(NONCE)
        associated = self._associated(Purpose.BLOB, name, part, digest) + head
        return head + nonce + self._blobs.encrypt(nonce, content, associated)

    def open_blob(self, name: str, part: int, digest: str, sealed: bytes) -> bytes:
        """Open a blob. Raises AuthenticationError, also for a blob of another collection, name, part or digest."""
        associated = self._associated(Purpose.BLOB, name, part, digest) + sealed[:_BLOB_HEAD]
        nonce = sealed[_BLOB_HEAD : _BLOB_HEAD + NONCE]
        try:
            return self._blobs.decrypt(nonce, sealed[_BLOB_HEAD + NONCE :], associated)
        except (InvalidTag, ValueError):
            raise AuthenticationError(f"the collection's {name} could not be authenticated") from None

    def _associated(self, purpose: Purpose, *more: str | int) -> bytes:
        return encode(FORMAT, purpose.value, *self._context, *more)
