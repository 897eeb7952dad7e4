"""The `postgresql:` store: records and index in PostgreSQL with pgvector; imports backend.

schema encvec
├── meta          format of the tables
├── collections   one row each: settings, generation, next row number, number of the tables in use
├── spaces        records by key version, kept by every write
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

from .backend import AsyncPgvectorBackend, PgvectorBackend

__all__ = ["AsyncPgvectorBackend", "PgvectorBackend"]
