"""The protocols of a keyset's storage and wrapper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

__all__ = ["NONE", "Header", "KeyWrapper", "KeysetStorage", "RenewsKeys"]

NONE = "none"
"""The name for "no wrapper": the keyset is stored in clear, and the storage must keep it secret."""

Header = Mapping[str, Any]
"""JSON object, stored in clear beside a wrapped keyset and authenticated with it."""


class KeysetStorage(Protocol):
    """Stores the bytes of one keyset. Used by one thread at a time."""

    uri: str
    """`scheme:rest`, by which the same storage is found again."""
    wrapper: str
    """The default wrapper. It is `none` only if the storage itself is meant for secrets.

    Empty if the storage lies beside the data: one must be named, and `none` is refused.
    """
    lasting: bool
    """True if what is written here outlives the process."""

    def exists(self) -> bool:
        """Return True if there is a keyset. Called before a key is derived or a passphrase is asked for."""
        ...

    def read(self) -> bytes:
        """Return the content. Raises KeysetError if there is none, or it cannot be read."""
        ...

    def create(self, content: bytes) -> None:
        """Store new content, all or nothing. Raises KeysetError, and changes nothing, if there is content already."""
        ...

    def replace(self, content: bytes) -> None:
        """Replace the content, all or nothing, and durably if the storage is lasting.

        Raises KeysetError unless the stored content is what this object read or wrote last. If two processes change
        a keyset at the same time, the second must not undo the first one's new key.
        """
        ...


class KeyWrapper(Protocol):
    """Finds the key that encrypts a keyset.

    `StoredKeyset` encrypts the keyset, by AES-256-GCM with a new nonce each time; a wrapper only supplies the key.
    A key service wraps a random key and keeps the result in the header. A passphrase derives the key from a salt.

    Whoever can write to the storage can write a header. So a header must not choose *whose* key is used. The name of
    a key in a service comes from the caller (the part after the wrapper's name, as in `wrap="mykms:alias/app"`) or
    from the environment. At most it is compared with the header.
    """

    def new(self) -> tuple[bytes, Header]:
        """Return a new key of 32 bytes, and the header by which `recover` finds it again. Raises KeysetError."""
        ...

    def recover(self, header: Header) -> bytes:
        """Return the key of a header, 32 bytes. Raises KeysetError, also if the header is malformed or hostile."""
        ...


@runtime_checkable
class RenewsKeys(Protocol):
    """A wrapper whose keys become too weak as time goes by: what it finds outdated gets a new key at the next save."""

    def outdated(self, header: Header) -> bool:
        """Return True if the key of a header that was recovered should be replaced by a new one."""
        ...
