"""Keysets of this process only."""

from __future__ import annotations

from ...errors import KeysetError
from ..protocol import NONE

__all__ = ["MemoryStorage"]


class MemoryStorage:
    """Keeps the content in this object, which nobody else has: gone with the process."""

    wrapper = NONE
    lasting = False

    def __init__(self, rest: str) -> None:
        self.uri = f"memory:{rest}"
        self._content: bytes | None = None

    def exists(self) -> bool:
        """Say whether something was kept."""
        return self._content is not None

    def read(self) -> bytes:
        """Return what was kept. Raises KeysetError in a new object: nothing outlives a process here."""
        if self._content is None:
            raise KeysetError("a memory: keyset cannot be opened again; create one, or use file:")
        return self._content

    def create(self, content: bytes) -> None:
        """Keep new content."""
        self._content = content

    def replace(self, content: bytes) -> None:
        """Keep other content."""
        self._content = content
