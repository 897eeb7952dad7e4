"""One index and one builder for a collection in a process, whoever opens it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

from ..data.metrics import Metric
from ..runtime.forks import Mutex
from ..sealing.config import CollectionConfig
from ..sealing.keyring import Keyring
from ..storage.protocol import Followed
from .budget import BUDGET
from .builder import Builder
from .index import SealedIndex
from .saving import Shelf
from .segments import stored_bytes

__all__ = ["Index", "Indexes", "index_of"]


@dataclass(eq=False)
class Index:
    """An index, and who builds it: None if the collection will not stay without index vectors."""

    sealed: SealedIndex
    builder: Builder | None

    def stats(self, records: Followed, keyring: Keyring) -> dict[str, Any]:
        """Describe the index in memory, and what of it is stored. See `Collection.stats`."""
        state, shelf, builder = self.sealed.state, self.sealed.shelf, self.builder
        graphs = [] if state is None else state.parts
        manifests = [] if shelf is None else shelf.manifests(records, keyring)
        stored = [part for listed, _ in manifests for part in listed.parts]
        columns = [segment for listed, _ in manifests for segment in listed.columns]
        segments = [segment for listed, _ in manifests for segment in listed.segments]
        blocks = self.sealed.blocks
        kinds = {part.graph.kind for part in graphs} if state is not None else {each.kind for each in stored}
        return {
            "kind": "+".join(sorted(kinds)) or "flat",
            "loaded": state is not None,
            "graphs": len(graphs),
            "rows": sum(len(part.rows) for part in graphs),
            "dead": sum(part.dead for part in graphs),
            "tail": 0 if state is None else state.tail.living,
            "on_gpu": sum(len(part.rows) for part in graphs if self.sealed.gpus.holds(part.graph)),
            "blocks": {"in_memory": blocks.count, "found": blocks.found, "fetched": blocks.fetched}
            | {"bytes": blocks.bytes, "fetched_bytes": blocks.fetched_bytes},
            "memory_bytes": self.sealed.bytes,
            "half_bytes": self.sealed.halves.bytes,
            "memory_limit": BUDGET.limit,
            "columns": {"segments": len(columns), "stored_bytes": sum(map(stored_bytes, columns))}
            | {"rows": self.sealed.columns.count, "memory_bytes": self.sealed.columns.bytes},
            "segments": len(segments),
            "stored_rows": sum(each.count for each in stored),
            "stored_bytes": sum(map(stored_bytes, segments)) + sum(len(raw) for _, raw in manifests),
            "building": builder is not None and builder.building,
            "failed": None if builder is None else builder.failed,
        }


_known: weakref.WeakValueDictionary[Hashable, Index] = weakref.WeakValueDictionary()
_lock = Mutex()


def index_of(
    place: Hashable | None,
    metric: Metric,
    dim: int,
    kind: str,
    *,
    builds: bool,
    stored: bool = True,
    fields: bool = True,
    device: str = "cpu",
) -> Index:
    """Return the index of a collection; the one that another opening in this process has, if there is one.

    Args:
        place: what the openings of one collection under the same keys have in common; None to share nothing.
        metric: the collection's.
        dim: coordinates of a vector.
        kind: the kind of graph wanted, or "auto".
        builds: False if only the tail is wanted, because the collection gets index vectors later.
        stored: False to keep the index in memory only.
        fields: False if records have no metadata.
        device: `cpu`, `cuda` or `auto`: where it is searched.
    """
    with _lock:
        found = _known.get(place) if place is not None else None
        if found is None:
            sealed = SealedIndex(
                metric, dim, Shelf(metric.name, dim, fields=fields) if builds and stored else None, device
            )
            found = Index(sealed, Builder(sealed, kind, lambda: BUDGET.limit) if builds else None)
            if place is not None:
                _known[place] = found
        return found


class Settled(Protocol):
    """Something with the current settings of a collection: a session."""

    config: CollectionConfig


class Indexes:
    """The index of one session: another one when the collection gets index vectors, or loses them.

    It outlives every other rewrite, because rows keep their numbers and their vectors.

    Args:
        session: of the collection.
        make: makes an index for settings.
    """

    def __init__(self, session: Settled, make: Callable[[CollectionConfig], Index]) -> None:
        self._session, self._make, self._lock = session, make, Mutex()
        config = session.config
        self._held = config.ranked, make(config)

    @property
    def current(self) -> Index:
        """The index for the newest settings that the session has seen."""
        held = self._held
        if held[0] is self._session.config.ranked:
            return held[1]
        with self._lock:
            config = self._session.config
            if self._held[0] is not config.ranked:
                self._held = config.ranked, self._make(config)
            return self._held[1]
