"""The `postgresql:` record store.

schema encvec
├── meta          format of the tables
├── collections   one row for each collection: settings, generation, next row number, number of its tables
├── blobs         sealed bytes beside the settings
├── partitions    counts of records by key version and cell, kept by every write
├── changes       rows that each write added and removed
├── records       parent of records_1, records_2, ...: one table for each collection
└── terms         parent of terms_1, terms_2, ...: values that the server may filter by
"""

from __future__ import annotations

from ...errors import StoreUnreachableError

try:
    import psycopg  # noqa: F401
except ImportError as error:
    raise StoreUnreachableError(
        f"the postgresql store needs psycopg ({error}): pip install 'encvec-store[postgres]'"
    ) from None

from .options import PostgresOptions, parse_url
from .records import PostgresRecords
from .source import Source
from .store import AsyncPostgresStore, PostgresStore
from .wire import Raw, RawDumper, split_value, term_from, typed_kind, vector

__all__ = [
    "AsyncPostgresStore",
    "PostgresOptions",
    "PostgresRecords",
    "PostgresStore",
    "Raw",
    "RawDumper",
    "Source",
    "parse_url",
    "split_value",
    "term_from",
    "typed_kind",
    "vector",
]
