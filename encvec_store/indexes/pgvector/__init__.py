"""pgvector ranks on the server: an index over the records of a `postgresql:` store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...storage.postgres import AsyncPostgresStore, PostgresRecords, PostgresStore
from ...storage.protocol import Records
from ..protocol import Connection, VectorIndex
from .index import PgvectorIndex

__all__ = ["PgvectorIndex", "connect", "connect_in_loop"]

_KINDS = {"none": "flat", "hnsw": "hnsw", "ivfflat": "ivf", "lists": "lists"}
"""The option `index`, as the kind of an index in this process."""


def connect(url: str, **options: Any) -> Connection:
    """Open a `postgresql:` store. `PostgresStore` documents the URL, the options and the errors."""
    return _connection(PostgresStore(url, **options), options)


def connect_in_loop(url: str, **options: Any) -> Connection:
    """Open one for async callers, in a walk of `concurrency.spawn`: every call waits in their event loop."""
    return _connection(AsyncPostgresStore(url, **options), options)


def _connection(store: PostgresStore, options: Mapping[str, Any]) -> Connection:
    # with a pool or an engine of the caller's, the URL does not say which database it is
    shared = options.get("pool") is None and options.get("engine") is None
    kind = _KINDS.get(store.index, "auto")
    return Connection(store, _index, store.device, kind=kind, ranked_options=store.ranked_options, shared=shared)


def _index(records: Records) -> VectorIndex:
    if not isinstance(records, PostgresRecords):
        raise TypeError(f"a pgvector index must be over records in PostgreSQL, got {type(records).__name__}")
    return PgvectorIndex(records)
