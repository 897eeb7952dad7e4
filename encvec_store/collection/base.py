"""What every part of a collection has: its settings, and what all openings of it share."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine.candidates import Sources
from ..engine.session import Session
from ..maintenance.lifecycle import Lifecycle
from ..maintenance.recall import RecallWatch
from ..storage.protocol import RecordStore
from .texts import Embedder

__all__ = ["OpenCollection", "Shared"]


@dataclass(frozen=True)
class Shared:
    """What all openings of one collection in a store share."""

    session: Session
    sources: Sources
    lifecycle: Lifecycle
    store: RecordStore
    """The store of the records, which knows how names are kept."""

    def close(self) -> None:
        """Wait for the running job, and store what was built."""
        self.lifecycle.close()
        self.session.index.close()


class OpenCollection:
    """An opening of a collection, without verbs."""

    def __init__(self, shared: Shared, oversample: int | None = None, embedder: Embedder | None = None) -> None:
        self._use = shared  # while somebody holds it, the store keeps the collection open
        self._session, self._sources, self._lifecycle = shared.session, shared.sources, shared.lifecycle
        self._oversample = oversample
        self._embedder = embedder or Embedder()
        self._watch: RecallWatch | None = None

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._session.records.spec.place[1]

    @property
    def tenant(self) -> str:
        """The tenant that owns it; "" if there is none."""
        return self._session.records.spec.place[0]

    @property
    def dim(self) -> int:
        """The number of coordinates of a vector."""
        return self._session.config.dim

    @property
    def metric(self) -> str:
        """cosine, l2 or ip."""
        return self._session.config.metric.name
