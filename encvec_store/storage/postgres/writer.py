"""Writes of one collection's records, each in one transaction.

Writers of a collection wait for each other at its row in `collections`. That row has the next row number, so records
are copied straight into their table, and no number is ever used twice.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, LiteralString

import numpy as np
from psycopg.sql import SQL

from ...data.arrays import Bytes, Rows
from ...errors import StaleConfigError
from ...runtime.concurrency import each
from ..protocol import Blob, CollectionSpec, EncryptedBatch, check_resealed, union
from ..ranges import KEPT, entries
from .blobs import delete_blobs, drop_blobs, insert_blobs
from .changes import forget
from .faults import queued
from .names import kept
from .reading import RecordsReader
from .schema import attach_content, create_content, drop_content, next_content
from .source import Cursor
from .tenancy import insert_batch
from .wire import byte_arrays, copy_records, copy_terms, int8_array, packed_tokens, rows_from

__all__ = ["PostgresWriter"]

_RECORDS = "COPY {records} (row, partition, token, envelope{vector}, payload) FROM STDIN (FORMAT binary)"
_TERMS = "COPY {terms} (row, n, field, kind, key, rest) FROM STDIN (FORMAT binary)"
_DELETE = (
    "WITH gone AS (DELETE FROM {records} WHERE {which} RETURNING row, partition),"
    " freed AS (DELETE FROM {terms} t USING gone WHERE t.row = gone.row)"
    " SELECT partition, count(*), string_agg(int8send(row), ''::bytea) FROM gone GROUP BY partition"
)
_IN_PARTITIONS: LiteralString = "row = ANY(%b::int8[]) AND partition = ANY(%b::int8[])"
_FINISH = (
    "WITH counted AS (INSERT INTO {partitions} AS old (collection, partition, records)"
    " SELECT {id}, s.partition, s.n FROM unnest(%(partitions)b::int8[], %(counts)b::int8[]) AS s (partition, n)"
    " ON CONFLICT (collection, partition) DO UPDATE SET records = old.records + excluded.records),"
    " noted AS (INSERT INTO {changes} (collection, generation, kind, rows)"
    " SELECT {id}, %(generation)s::int8, c.kind, c.rows FROM unnest(%(kinds)b::int8[], %(rows)b::bytea[])"
    " AS c (kind, rows))"
    " UPDATE {collections} SET generation = %(generation)s::int8, stamp = %(stamp)s::int8,"
    " next_row = %(next_row)s::int8, content = %(content)s::int8, index_dim = %(index_dim)s::int4,"
    " config = coalesce(%(config)b::bytea, config), purged = coalesce(%(purged)s::int8, purged) WHERE id = {id}"
)


@dataclass
class _State:
    """The state of a write so far."""

    generation: int
    content: int
    index_dim: int
    next_row: int
    counts: dict[int, int] = field(default_factory=dict)
    """By partition: how many more records there are, or fewer if negative."""
    first: int = 0
    """The row of the first record of this write."""
    removed: list[Rows] = field(default_factory=list)

    def count(self, more: Mapping[int, int]) -> None:
        """Add to the counts of records."""
        for partition, n in more.items():
            self.counts[partition] = self.counts.get(partition, 0) + n

    def entries(self) -> dict[int, bytes]:
        """Return its entries for the change table."""
        return entries(np.arange(self.first, self.next_row, dtype=np.int64), np.sort(union(self.removed)))


class PostgresWriter:
    """Writes of one collection."""

    def __init__(self, records: RecordsReader) -> None:
        self._records = records
        self._names = records.names
        self._collection = records.collection

    def put(
        self,
        batches: Iterable[EncryptedBatch],
        under: bytes,
        config: bytes | None,
        blobs: Mapping[str, Blob | None],
        over: Rows | None,
    ) -> bool:
        """Insert or replace by token, and drop the retired tokens. Returns False if a row of `over` is not there."""
        source = self._records.source
        with ExitStack() as stack:
            cursor = stack.enter_context(source.write())
            if over is not None:  # the batches are made of what is read meanwhile
                stack.enter_context(source.reading_through(cursor))
            state = self._lock(cursor, under)
            if over is not None:
                self._records.follow(state.content, state.index_dim)
                counting = self._names.sql("SELECT count(*) FROM {records} WHERE row = ANY(%b::int8[])", state.content)
                ((there,),) = cursor.execute(counting, (int8_array(over),)).fetchall()
                if there < len(over):
                    return False
            # in an empty collection, only records of this write can exist already: do not ask the server for others
            written: set[bytes] | None = set() if state.next_row == 1 else None
            for batch in batches:
                if batch.rows is not None:
                    raise ValueError("a batch for put must have no rows, as new ones are given out: leave rows None")
                if written is None or not written.isdisjoint((*_listed(batch.tokens), *batch.retired)):
                    self._delete(cursor, state, "token = ANY(%b::bytea[])", packed_tokens(batch.tokens))
                    if batch.retired:
                        self._delete(cursor, state, "token = ANY(%b::bytea[])", byte_arrays(batch.retired))
                if written is not None:
                    written.update(_listed(batch.tokens))
                n = len(batch.payloads)
                rows = np.arange(state.next_row, state.next_row + n, dtype=np.int64)
                state.next_row += n
                self._insert(cursor, state, batch, rows, copying=self._records.server.row_security == "off")
            self._keep(cursor, blobs)
            self._finish(cursor, state, config)
            self._records.follow(state.content, state.index_dim)
        return True

    def remove(self, rows: Rows) -> int:
        """Delete rows; returns how many there were."""
        with self._records.source.write() as cursor:
            state = self._lock(cursor)
            self._delete(cursor, state, "row = ANY(%b::int8[])", int8_array(rows))
            if state.counts:
                self._finish(cursor, state, None)
            self._records.follow(state.content, state.index_dim)
        return -sum(state.counts.values())

    def reseal(
        self,
        batch: EncryptedBatch,
        old: Collection[int],
        under: bytes,
        config: bytes | None,
        blobs: Mapping[str, Blob | None],
        *,
        renumber: bool,
        relist: bool,
    ) -> int:
        """Put records that were sealed anew in the place of what they were."""
        asked = check_resealed(batch)
        with self._records.source.write() as cursor:
            state = self._lock(cursor, under)
            if asked:
                self._delete(cursor, state, _IN_PARTITIONS, int8_array(asked), int8_array(list(old)))
            gone = union(state.removed)
            if not len(gone) and not relist:
                return 0
            batch = batch.only(np.flatnonzero(np.isin(asked, gone)))
            rows = np.sort(gone) if batch.rows is None else batch.rows
            if renumber:
                rows = np.arange(state.next_row, state.next_row + len(gone), dtype=np.int64)
                state.next_row += len(gone)
            else:
                state.removed.clear()
            self._insert(cursor, state, batch, rows, copying=self._records.server.row_security == "off")
            self._keep(cursor, blobs)
            self._finish(cursor, state, config, replaced=relist)
            self._records.follow(state.content, state.index_dim)
        return len(gone)

    def replace(
        self,
        batches: Iterable[EncryptedBatch],
        under: bytes,
        config: bytes,
        spec: CollectionSpec,
        index_dim: int | None,
        blobs: Mapping[str, Blob | None],
        drop: Sequence[str],
        index: Callable[[Cursor, int, dict[int, int], int], None] | None,
    ) -> None:
        """Replace everything by new tables, which `index` may index. Others read the old ones meanwhile."""
        with self._records.source.write() as cursor:
            state = self._lock(cursor, under, replacing=True)
            old = state.content
            self._records.follow(old, state.index_dim)  # others may have replaced the tables that we knew
            state.content = next_content(cursor, self._names)
            state.index_dim = state.index_dim if index_dim is None else index_dim
            records = self._records
            create_content(cursor, records.source, records.server, state.content, spec, state.index_dim)
            with records.source.reading_through(cursor):
                for batch in batches:
                    rows = _kept_rows(batch, state.next_row)
                    if state.counts:
                        tokens = byte_arrays([*_listed(batch.tokens), *batch.retired])
                        self._delete(cursor, state, "token = ANY(%b::bytea[])", tokens)
                    self._insert(cursor, state, batch, rows)
            if index is not None:
                index(cursor, state.content, state.counts, state.index_dim)
            for table in ("{partitions}", "{changes}"):
                statement = "DELETE FROM {table} WHERE collection = {id}"
                cursor.execute(self._names.sql(statement, id=self._collection, table=self._names.part(table)))
            for prefix in drop:
                drop_blobs(cursor, self._names, self._collection, prefix)
            self._keep(cursor, blobs)
            self._finish(cursor, state, config, replaced=True)
            with queued(self._records.source.place):
                attach_content(cursor, self._names, state.content)
                drop_content(cursor, self._names, old)
        self._records.follow(state.content, state.index_dim)

    def _lock(self, cursor: Cursor, under: bytes | None = None, *, replacing: bool = False) -> _State:
        """Wait for other writers, and check that the settings are those that the caller knows.

        `replace` changes the number of the tables, which is a key of the row. So it also waits for those who store
        blobs: at the beginning, rather than at the end of a long write.
        """
        sql = self._names.sql(
            # only columns of the locked row: anything else would be read as it was before the wait
            "SELECT generation, content, index_dim, next_row, coalesce(%b::bytea = config, true)"
            " FROM {collections} WHERE id = {id} FOR {strength}",
            id=self._collection,
            strength=SQL("UPDATE" if replacing else "NO KEY UPDATE"),
        )
        with queued(self._records.source.place):
            found = cursor.execute(sql, (under,)).fetchone()
        if found is None:
            raise self._records.gone()
        generation, content, index_dim, next_row, same = found
        if not same:
            raise StaleConfigError("the collection's settings were changed meanwhile")
        return _State(generation, content, index_dim, next_row, first=next_row)

    def _insert(
        self, cursor: Cursor, state: _State, batch: EncryptedBatch, rows: Rows, *, copying: bool = True
    ) -> None:
        n = len(batch.payloads)
        if not n:
            return
        state.count(Counter(batch.partitions.tolist()))
        if not copying:
            if state.index_dim:
                self._records.server.look(cursor)
            insert_batch(cursor, self._names, state.content, batch, rows, self._records.index_oid)
            return
        with_vector = bool(state.index_dim)
        column = SQL(f", {kept(self._records.spec.half)[0]}" if with_vector else "")
        with cursor.copy(self._names.sql(_RECORDS, state.content, vector=column)) as copy:
            for chunk in each(n, copy_records(batch, rows, with_vector=with_vector)):
                copy.write(chunk)
        if batch.terms:
            with cursor.copy(self._names.sql(_TERMS, state.content)) as copy:
                for chunk in each(n, copy_terms(batch, rows)):
                    copy.write(chunk)

    def _keep(self, cursor: Cursor, blobs: Mapping[str, Blob | None]) -> None:
        names, collection = self._names, self._collection
        delete_blobs(cursor, names, collection, (name for name, blob in blobs.items() if blob is None))
        some = ((name, 0, blob) for name, blob in blobs.items() if blob is not None)
        insert_blobs(cursor, names, collection, some)

    def _delete(self, cursor: Cursor, state: _State, which: LiteralString, *values: Any) -> None:
        gone = cursor.execute(self._names.sql(_DELETE, state.content, which=SQL(which)), values).fetchall()
        state.count({partition: -n for partition, n, _ in gone})
        state.removed += [rows_from(listed) for *_, listed in gone]

    def _finish(self, cursor: Cursor, state: _State, config: bytes | None, *, replaced: bool = False) -> None:
        """Store counts, changes and generation. After `replace` the number of the content tells, not changes."""
        noted = {} if replaced else state.entries()
        partitions = sorted(state.counts)
        generation = state.generation + 1
        cursor.execute(
            self._names.sql(_FINISH, id=self._collection),
            {
                "partitions": int8_array(partitions),
                "counts": int8_array([state.counts[partition] for partition in partitions]),
                "kinds": int8_array(list(noted)),
                "rows": byte_arrays(list(noted.values())),
                "generation": generation,
                "stamp": secrets.randbits(62),
                "next_row": state.next_row,
                "content": state.content,
                "index_dim": state.index_dim,
                "config": config,
                "purged": generation if replaced else None,
            },
        )
        if not generation % KEPT:  # so nobody has to tidy up
            forget(cursor, self._records)


def _listed(tokens: Bytes) -> list[bytes]:
    found: list[bytes] = np.ascontiguousarray(tokens).view("V16").ravel().tolist()
    return found


def _kept_rows(batch: EncryptedBatch, next_row: int) -> Rows:
    """Return the rows that the records of a batch keep. Raises ValueError."""
    if batch.rows is None:
        raise ValueError("a batch for replace must have rows: those that its records have already")
    rows = np.asarray(batch.rows, np.int64)
    if rows.shape != (len(batch.payloads),) or (len(rows) and not 1 <= rows.min() <= rows.max() < next_row):
        raise ValueError("rows of a batch for replace must be those that its records have already, one for each")
    return rows
