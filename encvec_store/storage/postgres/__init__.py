"""The `postgresql:` record store.

schema encvec
├── meta          format of the tables
├── collections   one row each: settings, generation, next row number, number of the tables in use
├── blobs         what is sealed beside the settings
├── partitions    records by key version and cell, counted by every write
├── changes       rows that each write added and removed
├── records       parent of records_1, records_2, ...: one table a collection
└── terms         parent of terms_1, terms_2, ...: fields that may be filtered
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
