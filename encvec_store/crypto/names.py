"""Tokens that stand for the names of tenants and collections, and the names themselves, sealed.

A store that keeps names sealed has one random *name key*. It is stored sealed under a key version, and all else here
derives from it, so tokens stay the same for the store's whole life, whatever becomes of key versions.

    name key   format u8 | key version u32 | GCM nonce 12 | ciphertext of 32 | GCM tag 16
    token      the first 16 bytes of HMAC-SHA256, in hexadecimal
    name       format u8 | GCM nonce 12 | ciphertext of 520 | GCM tag 16

A name is `encode(tenant, collection)` and zeros, always of one length. Its associated data holds both tokens.
"""

from __future__ import annotations

import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from ..errors import AuthenticationError
from .envelope import NONCE
from .labels import FORMAT, Purpose, derive, encode

__all__ = ["NameCipher", "name_key_version", "open_name_key", "seal_name_key"]

_FORMAT = 1
_KEY_HEAD, _NAME_HEAD = 5, 1
_KEY = 32
_TOKEN = 16
_PADDED = 2 * (5 + 255)
"""Bytes of `encode(tenant, collection)` with the longest names."""
_REFUSED = "the store's names could not be authenticated: they were altered, or sealed under other keys"


def name_key_version(sealed: bytes) -> int:
    """Read the key version that a sealed name key claims. Raises AuthenticationError."""
    if len(sealed) != _KEY_HEAD + NONCE + _KEY + 16 or sealed[0] != _FORMAT:
        raise AuthenticationError(_REFUSED)
    return int.from_bytes(sealed[1:_KEY_HEAD], "big")


def seal_name_key(root: bytes, version: int, key: bytes) -> bytes:
    """Seal a name key under the root of a key version."""
    head, nonce = struct.pack(">BI", _FORMAT, version), os.urandom(NONCE)
    associated = encode(FORMAT, Purpose.NAME_KEY.value) + head
    return head + nonce + AESGCM(derive(root, Purpose.NAME_KEY)).encrypt(nonce, key, associated)


def open_name_key(root: bytes, sealed: bytes) -> bytes:
    """Open a name key. Raises AuthenticationError."""
    head, nonce = sealed[:_KEY_HEAD], sealed[_KEY_HEAD : _KEY_HEAD + NONCE]
    try:
        cipher, associated = AESGCM(derive(root, Purpose.NAME_KEY)), encode(FORMAT, Purpose.NAME_KEY.value) + head
        return cipher.decrypt(nonce, sealed[_KEY_HEAD + NONCE :], associated)
    except (InvalidTag, ValueError):
        raise AuthenticationError(_REFUSED) from None


class NameCipher:
    """Makes the tokens of names, and seals and opens names. Its key is one store's name key, of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._tenants = derive(key, Purpose.TENANT_TOKEN)
        self._collections = derive(key, Purpose.NAME_TOKEN)
        self._names = AESGCM(derive(key, Purpose.NAME))

    def tokens(self, tenant: str, collection: str) -> tuple[str, str]:
        """Return the tokens of a tenant and of one of its collections."""
        return self.tenant_token(tenant), _token(self._collections, encode(tenant, collection))

    def tenant_token(self, tenant: str) -> str:
        """Return the token of a tenant."""
        return _token(self._tenants, encode(tenant))

    def seal(self, tenant: str, collection: str) -> bytes:
        """Seal a name."""
        head, nonce = bytes([_FORMAT]), os.urandom(NONCE)
        content = encode(tenant, collection).ljust(_PADDED, b"\0")
        return head + nonce + self._names.encrypt(nonce, content, _associated(*self.tokens(tenant, collection)) + head)

    def open(self, tokens: tuple[str, str], sealed: bytes) -> tuple[str, str]:
        """Open the name that belongs to two tokens: (tenant, collection). Raises AuthenticationError."""
        head, nonce = sealed[:_NAME_HEAD], sealed[_NAME_HEAD : _NAME_HEAD + NONCE]
        try:
            content = self._names.decrypt(nonce, sealed[_NAME_HEAD + NONCE :], _associated(*tokens) + head)
        except (InvalidTag, ValueError):
            raise AuthenticationError(_REFUSED) from None
        tenant, rest = _part(content)
        return tenant, _part(rest)[0]


def _token(key: bytes, name: bytes) -> str:
    tag = HMAC(key, SHA256())
    tag.update(name)
    return tag.finalize()[:_TOKEN].hex()


def _associated(tenant: str, collection: str) -> bytes:
    return encode(FORMAT, Purpose.NAME.value, tenant, collection)


def _part(content: bytes) -> tuple[str, bytes]:
    """Read the first text of an authentic encoding: (the text, what follows)."""
    end = 5 + int.from_bytes(content[1:5], "big")
    return content[5:end].decode(), content[end:]
