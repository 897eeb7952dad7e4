"""One index and one builder for a collection in a process, whoever opens it."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from ..data.metrics import Metric
from ..runtime.forks import Mutex
from .budget import BUDGET
from .builder import Builder
from .index import SealedIndex
from .saving import Shelf

__all__ = ["Index", "index_of"]


@dataclass(eq=False)
class Index:
    """An index, and who builds it: None if the collection will not stay without index vectors."""

    sealed: SealedIndex
    builder: Builder | None

    def stats(self) -> dict[str, Any]:
        """Describe the index in memory, and what of it is stored."""
        state = self.sealed.state
        graphs = [] if state is None else state.parts
        stored = [part.stored for part in graphs if part.stored is not None]
        return {
            "kind": "+".join(sorted({part.graph.kind for part in graphs})) or "flat",
            "loaded": state is not None,
            "graphs": len(graphs),
            "rows": sum(len(part.rows) for part in graphs),
            "dead": sum(part.dead for part in graphs),
            "tail": 0 if state is None else state.tail.living,
            "memory_bytes": self.sealed.bytes,
            "memory_limit": BUDGET.limit,
            "segments": sum(len(each.codes) + 1 for each in stored),
            "stored_rows": sum(each.count for each in stored),
            "stored_bytes": sum(segment.padded for each in stored for segment in (*each.codes, each.structure)),
            "building": self.builder is not None and self.builder.building,
        }


_known: weakref.WeakValueDictionary[Hashable, Index] = weakref.WeakValueDictionary()
_lock = Mutex()


def index_of(
    place: Hashable | None, metric: Metric, dim: int, kind: str, *, builds: bool, stored: bool = True
) -> Index:
    """Return the index of a collection; the one that another opening in this process has, if there is one.

    Args:
        place: what the openings of one collection under the same keys have in common; None to share nothing.
        metric: the collection's.
        dim: coordinates of a vector.
        kind: the kind of graph wanted, or "auto".
        builds: False if only the tail is wanted, because the collection gets index vectors later.
        stored: False to keep the index in memory only.
    """
    with _lock:
        found = _known.get(place) if place is not None else None
        if found is None:
            sealed = SealedIndex(metric, dim, Shelf(metric.name, dim) if builds and stored else None)
            found = Index(sealed, Builder(sealed, kind, lambda: BUDGET.limit) if builds else None)
            if place is not None:
                _known[place] = found
        return found
