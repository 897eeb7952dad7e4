"""Sealed names in SQLite: the table `name_key`, which only a store with sealed names has, and a blob a collection."""

from __future__ import annotations

import sqlite3

from ..names import NAME, check_kind_of_names, check_no_collections, sealed_name
from ..values import text
from .blobs import content, insert
from .place import NAME_KEY

__all__ = ["check", "keep", "key", "listed", "name"]

_CREATE = f"CREATE TABLE {NAME_KEY} (one INTEGER PRIMARY KEY CHECK (one = 1), content BLOB NOT NULL)"
_THERE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
_LISTED = """SELECT tenant, c.name, b.content FROM collections c LEFT JOIN blobs b
    ON b.collection = c.id AND b.name = ?1 AND part = 0 WHERE ?2 IS NULL OR tenant = ?2"""


def key(cursor: sqlite3.Cursor) -> bytes | None:
    """Return the sealed name key, or None. A table without a row is damage, not a store with names in clear."""
    if cursor.execute(_THERE, (NAME_KEY,)).fetchone() is None:
        return None
    found = cursor.execute(f"SELECT content FROM {NAME_KEY}").fetchone()  # noqa: S608
    return b"" if found is None else content(found[0])


def keep(cursor: sqlite3.Cursor, place: str, sealed: bytes, expect: bytes | None) -> bool:
    """Do what `KeepsNames.keep_name_key` does, in a transaction that writes."""
    if key(cursor) != expect:
        return False
    if expect is None:
        check_no_collections(place, there=cursor.execute("SELECT 1 FROM collections").fetchone() is not None)
        cursor.execute(_CREATE)
    cursor.execute(f"INSERT OR REPLACE INTO {NAME_KEY} VALUES (1, ?)", (sealed,))  # noqa: S608
    return True


def listed(cursor: sqlite3.Cursor, tenant: str | None) -> list[tuple[str, str, bytes]]:
    """List (tenant, name, sealed name)."""
    found = cursor.execute(_LISTED, (NAME, tenant)).fetchall()
    return [(text(owner, "a tenant"), text(name, "a name"), content(sealed)) for owner, name, sealed in found]


def check(cursor: sqlite3.Cursor, place: str, sealed: bytes | None) -> None:
    """Check that a new collection has a name of the kind that the store keeps."""
    there = cursor.execute(_THERE, (NAME_KEY,)).fetchone() is not None
    check_kind_of_names(place, sealed=there, given=sealed is not None)


def name(cursor: sqlite3.Cursor, collection: int, sealed: bytes | None) -> None:
    """Keep the sealed name of a new collection."""
    insert(cursor, collection, ((blob, 0, made) for blob, made in sealed_name(sealed).items()))
