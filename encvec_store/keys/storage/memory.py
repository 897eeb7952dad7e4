"""Keysets of this process only."""

from __future__ import annotations

from ...errors import KeysetError
from ..protocol import NONE

__all__ = ["MemoryStorage"]


class MemoryStorage:
    """Keyset in this object only: it is lost when the process ends."""

    wrapper = NONE
    lasting = False

    def __init__(self, rest: str) -> None:
        self.uri = f"memory:{rest}"
        self._content: bytes | None = None

    def exists(self) -> bool:
        """Return True if content was stored."""
        return self._content is not None

    def read(self) -> bytes:
        """Return the content. Raises KeysetError in a new object, which has none."""
        if self._content is None:
            raise KeysetError("a memory: keyset cannot be opened again: create one, or use file:")
        return self._content

    def create(self, content: bytes) -> None:
        """Store new content."""
        self._content = content

    def replace(self, content: bytes) -> None:
        """Replace the content."""
        self._content = content
