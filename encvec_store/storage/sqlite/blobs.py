"""Sealed blobs of one collection in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from ..protocol import Blob
from ..values import integer, text

__all__ = ["content", "delete", "expected", "insert", "read", "sizes"]

_READ = "SELECT content FROM blobs WHERE collection = ? AND name = ? AND part = ?"
_SIZES = """SELECT name, count(*), sum(length(content)) FROM blobs
    WHERE collection = ?1 AND name >= ?2 AND substr(name, 1, length(?2)) = ?2 GROUP BY name"""
_DELETE = "DELETE FROM blobs WHERE collection = ? AND name = ?"
_INSERT = "INSERT OR REPLACE INTO blobs (collection, name, part, key_version, content) VALUES (?, ?, ?, ?, ?)"


def content(value: object) -> bytes:
    """Return a blob as it is, and b"" for any other value. SQLite keeps any type in any column, so that is damage."""
    return value if isinstance(value, bytes) else b""


def read(cursor: sqlite3.Cursor, collection: int, name: str, part: int) -> bytes | None:
    """Return the content of a blob, or None."""
    found = cursor.execute(_READ, (collection, name, part)).fetchone()
    return None if found is None else content(found[0])


def sizes(cursor: sqlite3.Cursor, collection: int, prefix: str) -> dict[str, tuple[int, int]]:
    """Return {name: (parts, bytes)} of the blobs whose names begin with a prefix."""
    found = cursor.execute(_SIZES, (collection, prefix)).fetchall()
    return {
        text(name, "the name of a blob"): (parts, integer(size, "the size of a blob")) for name, parts, size in found
    }


def expected(cursor: sqlite3.Cursor, collection: int, expect: Mapping[str, bytes | None]) -> bool:
    """Return True if part 0 of each name has this content; None means that there is none."""
    return all(read(cursor, collection, name, 0) == wanted for name, wanted in expect.items())


def delete(cursor: sqlite3.Cursor, collection: int, names: Iterable[str]) -> None:
    """Delete all parts of blobs."""
    cursor.executemany(_DELETE, ((collection, name) for name in names))


def insert(cursor: sqlite3.Cursor, collection: int, blobs: Iterable[tuple[str, int, Blob]]) -> None:
    """Write (name, part, blob). Each is made when the one before it was written."""
    for name, part, blob in blobs:
        cursor.execute(_INSERT, (collection, name, part, blob.key_version, blob.content))
