"""Keysets in an environment variable, unwrapped: the environment is the secret's carrier; imports errors."""

from __future__ import annotations

import base64
import binascii
import os

from ..errors import KeysetError, UriError

__all__ = ["EnvHome"]


class EnvHome:
    """Keyset in the variable NAME, as base64. Writes reach this process and its children only."""

    def __init__(self, rest: str) -> None:
        if not rest or "=" in rest or "\0" in rest:
            raise UriError("env: needs the name of a variable, as in env:ENCVEC_KEYSET")
        self.uri = f"env:{rest}"
        self._name = rest

    def create(self, document: bytes) -> None:
        """Set the variable. Raises KeysetError where it is set already."""
        if os.environ.get(self._name):
            raise KeysetError(f"environment variable {self._name} holds a keyset already")
        self.save(document)

    def load(self) -> bytes:
        """Read the variable."""
        text = os.environ.get(self._name)
        if not text:
            raise KeysetError(f"environment variable {self._name} is not set; it should hold a keyset")
        try:
            document = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            document = b""
        if not document or base64.b64encode(document).decode() != text:
            raise KeysetError(f"environment variable {self._name} holds no keyset")
        return document

    def save(self, document: bytes) -> None:
        """Set the variable for this process and its children."""
        os.environ[self._name] = base64.b64encode(document).decode()
