"""Sealed blobs of one collection in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from ..protocol import Blob
from ..values import integer, text
from .database import Database

__all__ = ["SqliteBlobs", "content", "delete", "expected", "insert", "read", "read_parts", "sizes"]

_READ = "SELECT content FROM blobs WHERE collection = ? AND name = ? AND part = ?"
_PARTS = """SELECT part, content FROM blobs
    WHERE collection = ? AND name = ? AND part IN (SELECT value FROM json_each(?))"""
_SIZES = """SELECT name, count(*), sum(length(content)) FROM blobs
    WHERE collection = ?1 AND name >= ?2 AND substr(name, 1, length(?2)) = ?2 GROUP BY name"""
_DELETE = "DELETE FROM blobs WHERE collection = ? AND name = ?"
_INSERT = "INSERT OR REPLACE INTO blobs (collection, name, part, key_version, content) VALUES (?, ?, ?, ?, ?)"


class SqliteBlobs:
    """Reads the blobs of one collection: a part of `SqliteRecords`."""

    collection: int
    _database: Database

    def blob(self, name: str, part: int = 0) -> bytes | None:
        """Return the content of a sealed blob, or None."""
        with self._database.read() as cursor:
            return read(cursor, self.collection, name, part)

    def blob_parts(self, name: str, parts: Sequence[int]) -> dict[int, bytes]:
        """Return the content of those of these parts of a sealed blob that are there."""
        with self._database.read() as cursor:
            return read_parts(cursor, self.collection, name, parts)

    def blobs(self, prefix: str) -> dict[str, tuple[int, int]]:
        """Return {name: (parts, bytes)} of the blobs whose names begin with a prefix."""
        with self._database.read() as cursor:
            return sizes(cursor, self.collection, prefix)


def content(value: object) -> bytes:
    """Return a blob as it is, and b"" for any other value. SQLite keeps any type in any column, so that is damage."""
    return value if isinstance(value, bytes) else b""


def read(cursor: sqlite3.Cursor, collection: int, name: str, part: int) -> bytes | None:
    """Return the content of a blob, or None."""
    found = cursor.execute(_READ, (collection, name, part)).fetchone()
    return None if found is None else content(found[0])


def read_parts(cursor: sqlite3.Cursor, collection: int, name: str, parts: Sequence[int]) -> dict[int, bytes]:
    """Return the content of those of these parts of a blob that are there."""
    found = cursor.execute(_PARTS, (collection, name, json.dumps(list(parts))))
    return {part: content(value) for part, value in found}


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
