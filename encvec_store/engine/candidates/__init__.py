"""Sources of candidates, and which one a collection uses.

`search` treats all sources alike. A new one implements `CandidateSource` and is chosen in `source_of`. `fused` makes
one source of several.
"""

from __future__ import annotations

from typing import Any

from ...data.filters import Filter
from ...sealed_index import Indexes
from ...sealing.config import CollectionConfig
from ..session import Session
from .base import Asked, CandidateSource, Found, Matching
from .encrypted import EncryptedIndex
from .fusion import Fused, fused
from .reading import Reading
from .sealed import SealedSource

__all__ = [
    "Asked",
    "CandidateSource",
    "EncryptedIndex",
    "Found",
    "Fused",
    "Reading",
    "SealedSource",
    "Sources",
    "fused",
]

_RANKED = "every search: its encrypted query, and the rows of its candidates in the order of their distances"


class Sources:
    """The sources of one session.

    Args:
        session: an open collection.
        indexes: its sealed index.
        reading: what a store that watches sees of searches in it.
    """

    def __init__(self, session: Session, indexes: Indexes, reading: Reading) -> None:
        self._encrypted = EncryptedIndex(session)
        self._sealed = SealedSource(session, indexes, reading)
        self._hides = reading.hides

    def source_of(self, index_dim: int) -> CandidateSource:
        """Return the source for index vectors of so many coordinates; 0 means that there are no index vectors."""
        return self._encrypted if index_dim else self._sealed

    def hides(self, index_dim: int) -> bool:
        """Say whether the store must not see which rows a search needs."""
        return self._hides and not index_dim

    def stats(self, index_dim: int) -> dict[str, Any]:
        """Say what a store that watches sees of searches. See `Collection.stats`."""
        if not index_dim:
            return self._sealed.stats()
        return {"reads": None, "threat": None, "server_sees": _RANKED, "remembered_bytes": 0}

    def matching(self, config: CollectionConfig, node: Filter) -> Matching | None:
        """Return the rows that satisfy a filter; None if that is not in memory. See `SealedSource.matching`."""
        return None if config.index_dim else self._sealed.matching(config, node)
