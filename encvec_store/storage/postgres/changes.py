"""Reads and tidies the change table of a collection.

Every write has at least one entry, even if it added and removed nothing. A reader that misses one knows that it was
lost, and lists all rows.
"""

from __future__ import annotations

from typing import LiteralString

import numpy as np
from psycopg.errors import UndefinedTable

from ...data.arrays import Rows
from ...data.filters import Predicate
from ...errors import CollectionNotFoundError, StoreUnreachableError
from ..protocol import BUSY, Changes
from ..ranges import ADDED, BYTES_MOST, ENTRIES_MOST, KEPT, REMOVED, unpacked
from .reading import RecordsReader
from .source import Cursor
from .wire import rows_from

__all__ = ["changed", "following", "forget", "purge"]

_NEVER = 1 << 62
"""Larger than any generation."""
_ATTEMPTS = 32
_NOTHING = np.empty(0, np.int64)

# One statement, so one snapshot: the generation is that of the last change in the answer, and the rows are those that
# are there at that moment. From the first new row on, the caller has seen nothing; its number is the first eight bytes
# of the ranges. The upper bound is for the planner: an open range would seem to be a third of the table.
_HEAD: LiteralString = (
    "SELECT c.generation, c.content, c.stamp, c.purged, c.next_row, c.index_dim, d.*, r.partition, r.rows, e.*"
    " FROM {collections} AS c"
    " CROSS JOIN LATERAL (SELECT count(DISTINCT generation),"
    " string_agg(rows, ''::bytea ORDER BY generation) FILTER (WHERE kind = {added}) AS added,"
    " string_agg(rows, ''::bytea ORDER BY generation) FILTER (WHERE kind = {removed})"
    " FROM {changes} WHERE collection = {id} AND generation > %s::int8) AS d"
    " CROSS JOIN LATERAL (SELECT ('x' || encode(substr(d.added, 1, 8), 'hex'))::bit(64)::int8 AS first) AS f"
    " LEFT JOIN LATERAL (SELECT partition, string_agg(int8send(row), ''::bytea ORDER BY row) AS rows FROM {records}"
    " WHERE row BETWEEN f.first AND c.next_row GROUP BY partition) AS r ON d.added <> ''"
    " LEFT JOIN LATERAL (SELECT array_agg(row), array_agg(envelope) FROM (SELECT row, envelope FROM {records}"
    " WHERE row BETWEEN f.first AND c.next_row ORDER BY row LIMIT {few}) AS new) AS e ON d.added <> ''"
    " WHERE c.id = {id}"
)
_FEW = 32
"""The sealed vectors of so many new rows come with the changes: a follower opens them next."""
_WHOLE: LiteralString = (
    "SELECT c.generation, c.content, c.stamp, c.next_row, c.index_dim, r.partition, r.rows FROM {collections} AS c"
    " LEFT JOIN (SELECT partition, string_agg(int8send(row), ''::bytea ORDER BY row) AS rows FROM {records}"
    " GROUP BY partition) AS r ON true WHERE c.id = {id}"
)
_COUNT: LiteralString = (
    "SELECT count(*), coalesce(sum(octet_length(rows)), 0)::int8 FROM {changes} WHERE collection = {id}"
)
_LOCK: LiteralString = "SELECT FROM {collections} WHERE id = {id} FOR NO KEY UPDATE"
"""A statement of its own, so that the next one sees what was committed during the wait."""
_FORGET: LiteralString = (
    "WITH known AS (UPDATE {collections} SET purged = CASE WHEN (SELECT sum(octet_length(rows)) FROM {changes}"
    " WHERE collection = {id}) > {most} THEN generation ELSE greatest(purged, generation - {kept}) END"
    " WHERE id = {id} RETURNING purged)"
    " DELETE FROM {changes} USING known WHERE collection = {id} AND generation <= known.purged"
)


def changed(records: RecordsReader, since: int, content: int, stamp: int | None) -> Changes | None:
    """Return what `Records.changes` returns."""

    def work(cursor: Cursor, tables: int) -> Changes | None:
        sql = records.prepared(_HEAD, tables, added=ADDED, removed=REMOVED, few=_FEW)
        lines = cursor.execute(sql, (_NEVER if since < 0 else since,)).fetchall()
        if not lines:
            return _gone(since, content)
        generation, now, current, purged, next_row, index_dim, n, added, removed, _, _, some, sealed = lines[0]
        if (generation, now) == (since, content) and stamp in (None, current):
            return None
        records.follow(now, index_dim)
        # the stamps of earlier generations are not kept
        if now != content or stamp is not None or not purged <= since < generation or n != generation - since:
            return _whole(cursor, records, since)
        if now != tables:  # replaced meanwhile: treat it as if its tables were gone
            raise UndefinedTable
        try:
            came, went = unpacked(added or b""), unpacked(removed or b"")
        except ValueError:  # damaged: list all rows
            return _whole(cursor, records, since)
        if len(came):
            went = went[: np.searchsorted(went, came[0])]  # the caller has never seen the others
        partitions = {line[9]: rows_from(line[10]) for line in lines if line[9] is not None}
        sent = (np.array(some, np.int64), records.envelopes(sealed)) if some else None
        return Changes(generation, now, current, partitions, went, False, next_row, index_dim, sent)

    try:
        return records.on_content(work)
    except CollectionNotFoundError:
        return _gone(since, content)


def following(records: RecordsReader, since: int, content: int, predicate: Predicate) -> tuple[Changes | None, Rows]:
    """Return what `Records.following` returns: two statements, again where somebody wrote in between.

    Raises:
        StoreUnreachableError: somebody wrote in between every time.
    """
    for _ in range(_ATTEMPTS):
        rows = records.rows(predicate)
        changes = changed(records, since, content, None)
        if changes is None or changes.index_dim is None:
            return changes, rows
        rows = records.rows(predicate)
        if records.generation() == changes.generation:
            return changes, rows
    raise StoreUnreachableError(BUSY)


def _whole(cursor: Cursor, records: RecordsReader, since: int) -> Changes:
    """List all rows."""
    tables = records.content
    lines = cursor.execute(records.names.sql(_WHOLE, tables, id=records.collection)).fetchall()
    if not lines:
        return _gone(since, tables)
    generation, content, stamp, next_row, index_dim, *_ = lines[0]
    if content != tables:  # replaced meanwhile: treat it as if its tables were gone
        raise UndefinedTable
    rows = {partition: rows_from(listed) for *_, partition, listed in lines if partition is not None}
    return Changes(generation, content, stamp, rows, _NOTHING, True, next_row, index_dim)


def _gone(since: int, content: int) -> Changes:
    """Return the changes of a collection that was dropped."""
    return Changes(since, content, 0, {}, _NOTHING, whole=True)


def forget(cursor: Cursor, records: RecordsReader) -> None:
    """Forget all but the newest changes, or all if they are large. The collection must be locked."""
    sql = records.names.sql(_FORGET, id=records.collection, most=BYTES_MOST, kept=KEPT)
    cursor.execute(sql)


def purge(records: RecordsReader) -> None:
    """Forget old changes if there are many."""
    sql = records.names.sql(_COUNT, id=records.collection)
    n, size = records.on_content(lambda cursor, _: cursor.execute(sql).fetchone()) or (0, 0)
    if n > ENTRIES_MOST or size > BYTES_MOST:
        with records.source.write() as cursor:
            cursor.execute(records.names.sql(_LOCK, id=records.collection))
            forget(cursor, records)
