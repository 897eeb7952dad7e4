"""The protocol of a keyset's home; imports nothing of ours."""

from __future__ import annotations

from typing import Protocol

__all__ = ["KeysetHome"]


class KeysetHome(Protocol):
    """A place that keeps one keyset document, wrapped as the place requires."""

    uri: str

    def create(self, document: bytes) -> None:
        """Store a new document. Raises KeysetError where one exists already."""
        ...

    def load(self) -> bytes:
        """Return the document. Raises KeysetError when missing, malformed or refused."""
        ...

    def save(self, document: bytes) -> None:
        """Replace the document, all or nothing."""
        ...
