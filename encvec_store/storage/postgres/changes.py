"""What was written since: the change table of a collection, read and tidied up; imports reading, wire, ranges."""

from __future__ import annotations

from typing import LiteralString

import numpy as np
from psycopg.errors import UndefinedTable

from ..protocol import Changes, Rows
from ..ranges import unpacked
from .reading import Reader
from .source import Cursor
from .wire import int8_array, rows_from

__all__ = ["ADDED", "REMOVED", "changed", "purge"]

ADDED, REMOVED = 1, 0
"""Kinds of changes."""
_MOST = 10_000
"""Changes of a collection that `purge` leaves alone."""
_MOST_BYTES = 1 << 24
_NEVER = 1 << 62
"""A generation that no collection reaches."""
_NOTHING = np.empty(0, np.int64)

# One statement, so one snapshot: the generation is that of the last change in the answer.
_HEAD: LiteralString = (
    "SELECT c.generation, c.content, c.stamp, c.purged, c.next_row, c.index_dim, d.added, d.removed"
    " FROM {collections} AS c CROSS JOIN LATERAL"
    " (SELECT string_agg(rows, ''::bytea ORDER BY generation) FILTER (WHERE kind = {added}) AS added,"
    " string_agg(rows, ''::bytea ORDER BY generation) FILTER (WHERE kind = {removed}) AS removed"
    " FROM {changes} WHERE collection = {id} AND generation > %s::int8) AS d WHERE c.id = {id}"
)
_WHOLE: LiteralString = (
    "SELECT c.generation, c.content, c.stamp, c.next_row, c.index_dim, r.space, r.rows FROM {collections} AS c"
    " LEFT JOIN (SELECT space, string_agg(int8send(row), ''::bytea ORDER BY row) AS rows FROM {records} GROUP BY space)"
    " AS r ON true WHERE c.id = {id}"
)
_SPACES: LiteralString = (
    "SELECT space, string_agg(int8send(row), ''::bytea ORDER BY row) FROM {records} WHERE row = ANY(%b::int8[])"
    " GROUP BY space"
)
_COUNT: LiteralString = (
    "SELECT count(*), coalesce(sum(octet_length(rows)), 0)::int8 FROM {changes} WHERE collection = {id}"
)
_LOCKED: LiteralString = "SELECT FROM {collections} WHERE id = {id} FOR UPDATE"
"""By itself: the next statement sees what was committed while this one waited."""
_PURGE: LiteralString = (
    "WITH gone AS (DELETE FROM {changes} WHERE collection = {id})"
    " UPDATE {collections} SET purged = generation WHERE id = {id}"
)


def changed(records: Reader, since: int, content: int, stamp: int | None) -> Changes | None:
    """Return what `Records.changes` returns."""

    def work(cursor: Cursor, _: int) -> Changes | None:
        asked = _NEVER if since < 0 else since
        head = cursor.execute(
            records.names.sql(_HEAD, id=records.collection, added=ADDED, removed=REMOVED), (asked,)
        ).fetchone()
        if head is None:
            return _gone(since, content)
        generation, now, current, purged, next_row, index_dim, added, removed = head
        if (generation, now) == (since, content) and stamp in (None, current):
            return None
        records.follow(now, index_dim)
        if now != content or not purged <= since <= generation or stamp is not None:
            return _whole(cursor, records, since)
        try:
            came, went = unpacked(added or b""), unpacked(removed or b"")
        except ValueError:  # damaged: what is there is known all the same
            return _whole(cursor, records, since)
        # a row that went again since then is none that the caller knows
        spaces = _spaces(cursor, records, now, np.setdiff1d(came, went, assume_unique=True))
        gone = np.setdiff1d(went, came, assume_unique=True)
        return Changes(generation, now, current, spaces, gone, False, next_row, index_dim)

    return records.on_content(work)


def _whole(cursor: Cursor, records: Reader, since: int) -> Changes:
    """List everything there is."""
    tables = records.content
    lines = cursor.execute(records.names.sql(_WHOLE, tables, id=records.collection)).fetchall()
    if not lines:
        return _gone(since, tables)
    generation, content, stamp, next_row, index_dim, *_ = lines[0]
    # while we hold a lock on its tables, no content is replaced: a snapshot that says otherwise was taken before
    if content != tables:
        raise UndefinedTable
    rows = {space: rows_from(packed) for *_, space, packed in lines if space is not None}
    return Changes(generation, content, stamp, rows, _NOTHING, True, next_row, index_dim)


def _spaces(cursor: Cursor, records: Reader, content: int, rows: Rows) -> dict[int, Rows]:
    """Return rows by space. What another write has removed meanwhile is left out: its change comes next."""
    if not len(rows):
        return {}
    found = cursor.execute(records.names.sql(_SPACES, content), (int8_array(rows),)).fetchall()
    return {space: rows_from(packed) for space, packed in found}


def _gone(since: int, content: int) -> Changes:
    """Return what is told of a collection that was dropped."""
    return Changes(since, content, 0, {}, _NOTHING, whole=True)


def purge(records: Reader) -> None:
    """Forget the changes of a collection if there are many: who follows it lists everything, once."""
    some = records.names.sql(_COUNT, id=records.collection)
    n, size = records.on_content(lambda cursor, _: cursor.execute(some).fetchone()) or (0, 0)
    if n > _MOST or size > _MOST_BYTES:
        with records.source.write() as cursor:
            cursor.execute(records.names.sql(_LOCKED, id=records.collection))
            cursor.execute(records.names.sql(_PURGE, id=records.collection))
