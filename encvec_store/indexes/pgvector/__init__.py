"""pgvector ranks on the server: an index over the records of a `postgresql:` store."""

from __future__ import annotations

from typing import Any

from ...storage.postgres import AsyncPostgresStore, PostgresRecords, PostgresStore
from ...storage.protocol import Records
from ..protocol import Connection, VectorIndex
from .index import PgvectorIndex

__all__ = ["PgvectorIndex", "connect", "connect_in_loop"]


def connect(url: str, **options: Any) -> Connection:
    """Open a `postgresql:` store. `PostgresStore` documents the URL, the options and the errors."""
    return _connection(PostgresStore(url, **options))


def connect_in_loop(url: str, **options: Any) -> Connection:
    """Open one for async callers, in a walk of `concurrency.spawn`: every call waits in their event loop."""
    return _connection(AsyncPostgresStore(url, **options))


def _connection(store: PostgresStore) -> Connection:
    return Connection(store, _index, store.device)


def _index(records: Records) -> VectorIndex:
    if not isinstance(records, PostgresRecords):
        raise TypeError(f"a pgvector index must be over records in PostgreSQL, got {type(records).__name__}")
    return PgvectorIndex(records)
