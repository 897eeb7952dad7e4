"""The parts under a collection, for tools that look inside: benchmarks, attacks, tests, stores and schemes of your own.

These names are documented but not stable: they may change in any version. Applications need none of them.
docs/architecture.md lists the package faces that give the other low-level names, such as `encvec_store.schemes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .collection import Collection
from .data import Rows
from .engine import lookup
from .engine.search import asked
from .engine.session import Session
from .indexes import VectorIndex
from .maintenance.lifecycle import Lifecycle
from .storage import Records

__all__ = ["candidates", "index", "lifecycle", "places", "records", "session", "set_search_options"]


def session(collection: Collection) -> Session:
    """Return the open session of a collection: its records, index, keyring and current settings."""
    return collection._session


def records(collection: Collection) -> Records:
    """Return the sealed records of a collection, as its store keeps them."""
    return session(collection).records


def places(collection: Collection, ids: Sequence[str]) -> Rows:
    """Return the row numbers of records by their ids; 0 where there is no such record."""
    return lookup.places(session(collection), ids)


def index(collection: Collection) -> VectorIndex:
    """Return the vector index of a collection."""
    return session(collection).index


def lifecycle(collection: Collection) -> Lifecycle:
    """Return what fits, refits and spreads a collection as it grows."""
    return collection._lifecycle


def candidates(collection: Collection, queries: npt.NDArray[np.float32], limit: int) -> list[Rows]:
    """Ask the index only: up to `limit` rows for each of (q, dim) queries, nearest first, nothing opened."""
    inner = session(collection)
    return asked(inner, collection._sources, inner.refresh(), queries, None).candidates(limit)


def set_search_options(collection: Collection, *, oversample: int | None = None, **options: int) -> None:
    """Change how an open collection of a `faiss:` store searches, without opening it anew.

    Args:
        collection: of that store.
        oversample: candidates that are re-ranked for each hit; None leaves it.
        options: options of the store's URL that a search reads, such as `ef_search`.
    """
    if options:
        found: Any = index(collection)
        found.options = replace(found.options, **options)
    if oversample is not None:
        collection._oversample = oversample
