"""Where a search gets its candidates from: a source for each way, chosen here by what the collection has.

`search` knows no kind of source. A new one implements `CandidateSource` and is chosen in `source_of`; several that
answer one search together are put under `fused`.
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
        """Return what answers searches of a collection whose index vectors have so many coordinates, 0: none."""
        return self._index if index_dim else self._scan
