"""Keysets in an environment variable, as base64."""

from __future__ import annotations

import base64
import binascii
import os

from ...errors import KeysetError, UriError
from ..protocol import NONE

__all__ = ["EnvStorage"]


class EnvStorage:
    """Keyset in the variable NAME. Writes are seen by this process and its children only."""

    wrapper = NONE
    lasting = False

    def __init__(self, rest: str) -> None:
        if not rest or "=" in rest or "\0" in rest:
            raise UriError("env: must be followed by the name of a variable, as in env:MY_KEYS")
        self.uri = f"env:{rest}"
        self._name = rest
        self._seen: str | None = None  # the variable as last read or written

    def exists(self) -> bool:
        """Return True if the variable is set and not empty."""
        return bool(os.environ.get(self._name))

    def read(self) -> bytes:
        """Read the variable."""
        text = os.environ.get(self._name)
        if not text:
            raise KeysetError(f"environment variable {self._name} is not set; it should hold a keyset")
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            content = b""
        if not content or base64.b64encode(content).decode() != text:
            raise KeysetError(f"environment variable {self._name} must hold a keyset in base64; it does not")
        self._seen = text
        return content

    def create(self, content: bytes) -> None:
        """Set the variable. Raises KeysetError if it is set already."""
        if self.exists():
            raise KeysetError(f"environment variable {self._name} holds a keyset already")
        self._set(content)

    def replace(self, content: bytes) -> None:
        """Set the variable for this process and its children."""
        if self._seen is None or os.environ.get(self._name) != self._seen:
            raise KeysetError(f"environment variable {self._name} has changed since: open the keyset again")
        self._set(content)

    def _set(self, content: bytes) -> None:
        self._seen = os.environ[self._name] = base64.b64encode(content).decode()
