"""Keysets in the keyring of the operating system: macOS Keychain, Windows Credential Locker, Secret Service."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from ...errors import KeysetError, UriError
from ..protocol import NONE
from ..wrappers.service import need

__all__ = ["SERVICE", "KeyringStorage"]

SERVICE = "encvec_store"
"""The service name of our entries."""


class KeyringStorage:
    """Keyset in the entry NAME of the service `encvec_store`. The keyring itself is locked by the user's login.

    A keyring has no "replace if unchanged". The entry is compared just before it is replaced, so two processes that
    change a keyset in the same instant are not both told.
    """

    wrapper = NONE
    lasting = True

    def __init__(self, rest: str) -> None:
        if not rest or not rest.isprintable():
            raise UriError("keyring: must be followed by the name of an entry, as in keyring:vectors")
        self.uri = f"keyring:{rest}"
        self._name = rest
        self._seen: str | None = None

    def exists(self) -> bool:
        """Return True if there is an entry."""
        return self._get() is not None

    def read(self) -> bytes:
        """Read the entry."""
        text = self._get()
        if text is None:
            raise KeysetError(f"no keyset in the system keyring under {self._name!r}")
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise KeysetError(f"the entry {self._name!r} of the system keyring must hold a keyset in base64") from None
        self._seen = text
        return content

    def create(self, content: bytes) -> None:
        """Add the entry. Raises KeysetError if there is one."""
        if self.exists():
            raise KeysetError(f"the system keyring holds a keyset {self._name!r} already")
        self._set(content)

    def replace(self, content: bytes) -> None:
        """Replace the entry."""
        if self._seen is None or self._get() != self._seen:
            raise KeysetError(f"the entry {self._name!r} of the system keyring has changed since: open it again")
        self._set(content)

    def _get(self) -> str | None:
        found: str | None = _call(lambda keyring: keyring.get_password(SERVICE, self._name))
        return found or None

    def _set(self, content: bytes) -> None:
        text = base64.b64encode(content).decode()
        _call(lambda keyring: keyring.set_password(SERVICE, self._name, text))
        self._seen = text


def _call(work: Callable[[Any], Any]) -> Any:
    """Use the keyring. Its errors come from many backends and may hold what was stored: only their class is told."""
    keyring = need("keyring", "keyring")
    try:
        return work(keyring)
    except Exception as error:
        name = type(error).__name__
    raise KeysetError(f"the system keyring cannot be used ({name}): is one installed, and unlocked?")
