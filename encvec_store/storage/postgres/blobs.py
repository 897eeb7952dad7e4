"""Sealed blobs of one collection in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import LiteralString

from ...runtime.concurrency import each
from ..protocol import Blob
from .faults import queued
from .names import Names
from .reading import RecordsReader
from .source import Cursor

__all__ = ["delete_blobs", "drop_blobs", "insert_blobs", "keep"]

# A blob refers to its collection, so inserting one locks the collection's row FOR KEY SHARE, which `put` does not wait
# for. Two that compare must wait for each other, also if there is no blob yet that could be locked.
_SHARED: LiteralString = "SELECT FROM {collections} WHERE id = {id} FOR KEY SHARE"
_ALONE: LiteralString = "SELECT FROM {collections} WHERE id = {id} FOR NO KEY UPDATE"
_EXPECTED: LiteralString = (
    "SELECT name, content FROM {blobs} WHERE collection = {id} AND name = ANY(%s::text[]) AND part = 0"
)
_DELETE: LiteralString = "DELETE FROM {blobs} WHERE collection = {id} AND name = ANY(%s::text[])"
_DROP: LiteralString = "DELETE FROM {blobs} WHERE collection = {id} AND starts_with(name, %s::text)"
_INSERT: LiteralString = (
    "INSERT INTO {blobs} (collection, name, part, key_version, content)"
    " VALUES ({id}, %s, %s::int4, %s::int8, %b::bytea)"
    " ON CONFLICT (collection, name, part) DO UPDATE SET key_version = excluded.key_version, content = excluded.content"
)
_LONG = 1 << 20
"""Sealing a blob takes as long as work on many records."""


def keep(
    records: RecordsReader,
    blobs: Iterable[tuple[str, int, Blob]],
    drop: Iterable[str],
    expect: Mapping[str, bytes | None],
) -> bool:
    """Do what `Records.keep` does."""
    names, collection = records.names, records.collection
    with records.source.write() as cursor:
        with queued(records.source.place):
            found = cursor.execute(names.sql(_ALONE if expect else _SHARED, id=collection)).fetchone()
        if found is None:
            raise records.gone()
        if expect:  # a statement of its own, so that it sees what was committed during the wait
            held: dict[str, bytes] = dict(
                cursor.execute(names.sql(_EXPECTED, id=collection), (list(expect),)).fetchall()
            )
            if any(held.get(name) != content for name, content in expect.items()):
                return False
        delete_blobs(cursor, names, collection, drop)
        insert_blobs(cursor, names, collection, each(_LONG, iter(blobs)))
    return True


def delete_blobs(cursor: Cursor, names: Names, collection: int, gone: Iterable[str]) -> None:
    """Delete all parts of blobs."""
    if listed := list(gone):
        cursor.execute(names.sql(_DELETE, id=collection), (listed,))


def drop_blobs(cursor: Cursor, names: Names, collection: int, prefix: str) -> None:
    """Delete all blobs whose names begin with a prefix."""
    cursor.execute(names.sql(_DROP, id=collection), (prefix,))


def insert_blobs(cursor: Cursor, names: Names, collection: int, blobs: Iterable[tuple[str, int, Blob]]) -> None:
    """Write (name, part, blob). Each is made when the one before it was sent."""
    sql = names.sql(_INSERT, id=collection)
    for name, part, blob in blobs:
        cursor.execute(sql, (name, part, blob.key_version, blob.content))
