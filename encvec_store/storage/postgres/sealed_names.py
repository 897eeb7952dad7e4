"""Sealed names in PostgreSQL: the table `name_key`, which only a store with sealed names has, and a blob a collection.

It is readable whatever tenant is set: all tenants' names are under one name key, which is sealed.
"""

from __future__ import annotations

from typing import LiteralString

from psycopg.errors import InsufficientPrivilege
from psycopg.sql import Identifier

from ...errors import StoreUnreachableError
from ..names import check_no_collections, sealed_name
from .blobs import insert_blobs
from .faults import explained
from .names import Names
from .server import LOCK
from .source import Cursor

__all__ = ["LISTED", "THERE", "insert_name", "keep_key", "read_key"]

THERE: LiteralString = "to_regclass({name_key_name}) IS NOT NULL"
"""True if names are sealed. It sees what was committed up to now, also in an older snapshot."""
LISTED: LiteralString = (
    "SELECT tenant, c.name, coalesce(b.content, '') FROM {collections} c LEFT JOIN {blobs} b ON b.collection = c.id"
    " AND b.name = 'name' AND part = 0"
)
_CREATE: LiteralString = (
    "CREATE TABLE {name_key} (one boolean PRIMARY KEY DEFAULT true CHECK (one), content bytea NOT NULL)"
)
# Tables of collections, because row-level security hides collections, and not tables. Where a transaction sees what was
# there at its beginning, the lock comes too late: then nobody may ever have created a collection.
_COLLECTIONS: LiteralString = (
    "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass({all_records_name}))"
    " OR (current_setting('transaction_isolation') <> 'read committed' AND (SELECT is_called FROM {numbers}))"
)


def read_key(cursor: Cursor, names: Names) -> bytes | None:
    """Return the sealed name key, or None. A table without a row is damage, not a store with names in clear."""
    if cursor.execute(names.sql(f"SELECT {THERE}")).fetchone() != (True,):
        return None
    found = cursor.execute(names.sql("SELECT content FROM {name_key}")).fetchone()
    return b"" if found is None else bytes(found[0])


def keep_key(cursor: Cursor, names: Names, place: str, sealed: bytes, expect: bytes | None) -> bool:
    """Do what `KeepsNames.keep_name_key` does, in a transaction that writes."""
    if expect is not None:
        sql = names.sql("UPDATE {name_key} SET content = %b WHERE content = %b RETURNING one")
        return cursor.execute(sql, (sealed, expect)).fetchone() is not None
    # who creates a collection holds a lock that this one waits for, and sees the table if it had to wait itself
    cursor.execute(names.sql("LOCK TABLE {collections} IN SHARE MODE"))
    cursor.execute(b"SELECT pg_advisory_xact_lock(%s)", (LOCK,))  # in the order in which who creates one takes them
    # a server hears of tables that others made while we waited when it locks one in a way that it has not yet
    cursor.execute(names.sql("SELECT FROM {collections} LIMIT 0"))
    if read_key(cursor, names) is not None:
        return False
    sql = names.sql(_COLLECTIONS, numbers=Identifier(names.schema, "contents"))
    check_no_collections(place, there=cursor.execute(sql).fetchone() == (True,))
    try:
        cursor.execute(names.sql(_CREATE))
    except InsufficientPrivilege as error:
        raise StoreUnreachableError(
            f"{explained(error, 'write to', place)}; names are sealed first by the owner of the schema"
        ) from None
    cursor.execute(names.sql("INSERT INTO {name_key} (content) VALUES (%b)"), (sealed,))
    return True


def insert_name(cursor: Cursor, names: Names, collection: int, sealed: bytes | None) -> None:
    """Keep the sealed name of a new collection."""
    insert_blobs(cursor, names, collection, ((blob, 0, made) for blob, made in sealed_name(sealed).items()))
