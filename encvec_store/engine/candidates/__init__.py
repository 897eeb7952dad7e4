"""Sources of candidates, and which one a collection uses.

`search` treats all sources alike. A new one implements `CandidateSource` and is chosen in `source_of`. `fused` makes
one source of several.
"""

from __future__ import annotations

from ...data.filters import Filter
from ...sealed_index import Indexes
from ...sealing.config import CollectionConfig
from ..session import Session
from .base import Asked, CandidateSource, Found, Matching
from .encrypted import EncryptedIndex
from .fusion import Fused, fused
from .sealed import SealedSource

__all__ = ["Asked", "CandidateSource", "EncryptedIndex", "Found", "Fused", "SealedSource", "Sources", "fused"]


class Sources:
    """The sources of one session."""

    def __init__(self, session: Session, indexes: Indexes) -> None:
        self._encrypted = EncryptedIndex(session)
        self._sealed = SealedSource(session, indexes)

    def source_of(self, index_dim: int) -> CandidateSource:
        """Return the source for index vectors of so many coordinates; 0 means that there are no index vectors."""
        return self._encrypted if index_dim else self._sealed

    def matching(self, config: CollectionConfig, node: Filter) -> Matching | None:
        """Return the rows that satisfy a filter; None if that is not in memory. See `SealedSource.matching`."""
        return None if config.index_dim else self._sealed.matching(config, node)
