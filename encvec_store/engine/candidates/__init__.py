"""Sources of candidates, and which one a collection uses.

`search` treats all sources alike. A new one implements `CandidateSource` and is chosen in `source_of`. `fused` makes
one source of several.
"""

from __future__ import annotations

from ..session import Session
from .base import Asked, CandidateSource, Found
from .encrypted import EncryptedIndex
from .fusion import Fused, fused
from .scan import OpenedScan

__all__ = ["Asked", "CandidateSource", "EncryptedIndex", "Found", "Fused", "OpenedScan", "Sources", "fused"]


class Sources:
    """The sources of one session."""

    def __init__(self, session: Session) -> None:
        self._index = EncryptedIndex(session)
        self._scan = OpenedScan(session)

    def source_of(self, index_dim: int) -> CandidateSource:
        """Return the source for index vectors of so many coordinates; 0 means that there are no index vectors."""
        return self._index if index_dim else self._scan
