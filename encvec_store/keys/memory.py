"""Keysets of this process only; imports errors."""

from __future__ import annotations

from ..errors import KeysetError

__all__ = ["MemoryHome"]


class MemoryHome:
    """Keeps the document in this object: gone with the process."""

    def __init__(self, rest: str) -> None:
        self.uri = f"memory:{rest}"
        self._document: bytes | None = None

    def create(self, document: bytes) -> None:
        """Keep a new document."""
        self._document = document

    def load(self) -> bytes:
        """Raise KeysetError: nothing outlives a process here."""
        if self._document is None:
            raise KeysetError("a memory: keyset cannot be opened again; create one, or use file:")
        return self._document

    def save(self, document: bytes) -> None:
        """Replace the document."""
        self._document = document
