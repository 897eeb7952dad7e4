"""The protocols of a keyset's storage and of its wrapper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["NONE", "Header", "KeyWrapper", "KeysetStorage"]

NONE = "none"
"""The name of no wrapper at all: the keyset lies in clear, and its storage must keep it secret."""

Header = Mapping[str, Any]
"""JSON object that is stored in clear beside a wrapped keyset, and authenticated with it."""


class KeysetStorage(Protocol):
    """The place of one keyset: bytes in, bytes out. Used by one thread at a time."""

    uri: str
    """`scheme:rest`, by which the same place is found again."""
    wrapper: str
    """Name of the wrapper where the caller names none. `none` only where the place itself is a carrier of secrets."""
    lasting: bool
    """Whether what is written here outlives the process."""

    def exists(self) -> bool:
        """Say whether there is a keyset already. Asked before a key is derived or a passphrase typed."""
        ...

    def read(self) -> bytes:
        """Return the content. Raises KeysetError where there is none, or it cannot be read."""
        ...

    def create(self, content: bytes) -> None:
        """Store new content, all or nothing. Raises KeysetError where there is some already, and keeps that."""
        ...

    def replace(self, content: bytes) -> None:
        """Replace the content, all or nothing, and durably where the place lasts.

        Raises KeysetError unless what is stored is what this object read or wrote last: of two processes that change
        a keyset at the same time, the second must not undo the first one's key.
        """
        ...


class KeyWrapper(Protocol):
    """Finds the key that a keyset is encrypted under.

    The keyset itself is encrypted elsewhere, by AES-256-GCM with a fresh nonce each time: a wrapper sees only the key.
    A key service wraps a random key and keeps the result in the header; a passphrase derives the key from a salt.

    Whoever can write to the storage can write a header. So a header must not choose *whose* key is used: the name of a
    key in a service comes from the caller (what follows the wrapper's name, as in `wrap="mykms:alias/app"`) or from
    the environment, and is compared with the header's at most.
    """

    def new(self) -> tuple[bytes, Header]:
        """Return a new key, 32 bytes, and the header by which `recover` finds it again. Raises KeysetError."""
        ...

    def recover(self, header: Header) -> bytes:
        """Return the key of a header, 32 bytes. Raises KeysetError, also where the header is malformed or hostile."""
        ...
