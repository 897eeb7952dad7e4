"""Writing one collection's records, each time in one transaction; imports records, schema, source, wire.

Writers of a collection queue at its row in `collections`. That row hands out row numbers, so records are copied
straight into their table: no staging, and no number is ever used twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import numpy as np
from psycopg.sql import SQL

from ...errors import StaleConfigError
from ...waits import each
from ..protocol import EncryptedBatch, Rows
from .names import kept
from .records import Records
from .schema import attach_content, create_content, drop_content, next_content
from .source import Cursor
from .tenancy import insert_batch
from .wire import byte_arrays, copy_records, copy_terms, int8_array, packed_tokens

__all__ = ["Writer"]

_RECORDS = "COPY {records} (row, space, token, envelope{vector}, payload) FROM STDIN (FORMAT binary)"
_TERMS = "COPY {terms} (row, field, kind, key, rest) FROM STDIN (FORMAT binary)"
_DELETE = (
    "WITH gone AS (DELETE FROM {records} WHERE {which} RETURNING row, space),"
    " freed AS (DELETE FROM {terms} t USING gone WHERE t.row = gone.row)"
    " SELECT space, count(*) FROM gone GROUP BY space"
)


@dataclass
class _State:
    content: int
    index_dim: int
    next_row: int


class Writer:
    """Writes of one collection."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._names = records.names
        self._spec = records.spec
        self._collection = records.collection

    def put(
        self,
        batches: Iterable[EncryptedBatch],
        under: bytes,
        config: bytes | None,
        artefacts: Mapping[str, bytes] | None,
    ) -> None:
        """Insert or replace by token, and drop the retired tokens."""
        with self._records.source.write() as cursor:
            state = self._lock(cursor, under)
            changes: dict[int, int] = {}
            empty = state.next_row == 1
            for batch in batches:
                for tokens in (packed_tokens(batch.tokens), byte_arrays(batch.retired) if batch.retired else None):
                    if tokens is not None and not empty:
                        self._delete(cursor, state.content, "token = ANY(%b::bytea[])", tokens, changes)
                self._insert(cursor, state, batch, changes, copying=self._records.server.row_security == "off")
            self._keep(cursor, artefacts)
            self._finish(cursor, state, changes, config)
            self._records.follow(state.content, state.index_dim)

    def remove(self, rows: Rows) -> int:
        """Delete rows; returns how many there were."""
        with self._records.source.write() as cursor:
            state = self._lock(cursor)
            changes: dict[int, int] = {}
            self._delete(cursor, state.content, "row = ANY(%b::int8[])", int8_array(rows), changes)
            if changes:
                self._finish(cursor, state, changes, None)
            self._records.follow(state.content, state.index_dim)
        return -sum(changes.values())

    def replace(
        self,
        batches: Iterable[EncryptedBatch],
        under: bytes,
        config: bytes,
        index_dim: int | None,
        artefacts: Mapping[str, bytes] | None,
        index: Callable[[Cursor, int, dict[int, int], int], None],
    ) -> None:
        """Replace everything by way of new tables, which `index` gets to index. Others read the old ones meanwhile."""
        with self._records.source.write() as cursor:
            state = self._lock(cursor, under)
            old = state.content
            changes: dict[int, int] = {}
            state.content = next_content(cursor, self._names)
            state.index_dim = state.index_dim if index_dim is None else index_dim
            create_content(cursor, self._names, state.content, self._spec, state.index_dim)
            for batch in batches:
                gone: dict[int, int] = {}
                self._delete(
                    cursor,
                    state.content,
                    "token = ANY(%b::bytea[])",
                    byte_arrays([*map(bytes, batch.tokens), *batch.retired]),
                    gone,
                )
                _add(changes, gone)
                self._insert(cursor, state, batch, changes)
            index(cursor, state.content, changes, state.index_dim)
            cursor.execute(self._names.sql("DELETE FROM {spaces} WHERE collection = {id}", id=self._collection))
            self._keep(cursor, artefacts)
            self._finish(cursor, state, changes, config)
            attach_content(cursor, self._names, state.content)
            drop_content(cursor, self._names, old)
        self._records.follow(state.content, state.index_dim)

    def _lock(self, cursor: Cursor, under: bytes | None = None) -> _State:
        """Wait for other writers, and see that the settings are those that the caller knows."""
        found = cursor.execute(
            self._names.sql(
                # columns of this one row only: others would be read as they were before we waited
                "SELECT content, index_dim, next_row, coalesce(%b::bytea = config, true) FROM {collections}"
                " WHERE id = {id} FOR UPDATE",
                id=self._collection,
            ),
            (under,),
        ).fetchone()
        if found is None:
            raise self._records.gone()
        content, index_dim, next_row, same = found
        if not same:
            raise StaleConfigError("the collection's settings were changed meanwhile")
        return _State(content, index_dim, next_row)

    def _insert(
        self, cursor: Cursor, state: _State, batch: EncryptedBatch, changes: dict[int, int], *, copying: bool = True
    ) -> None:
        n = len(batch.payloads)
        if not n:
            return
        rows = np.arange(state.next_row, state.next_row + n, dtype=np.int64)
        state.next_row += n
        _add(changes, Counter(batch.spaces.tolist()))
        if not copying:
            insert_batch(cursor, self._names, state.content, batch, rows, self._records.index_oid)
            return
        with_vector = bool(state.index_dim)
        column = SQL(f", {kept(self._spec.half)[0]}" if with_vector else "")
        with cursor.copy(self._names.sql(_RECORDS, state.content, vector=column)) as copy:
            for chunk in each(n, copy_records(batch, rows, with_vector=with_vector)):
                copy.write(chunk)
        if batch.terms:
            with cursor.copy(self._names.sql(_TERMS, state.content)) as copy:
                for chunk in each(n, copy_terms(batch, rows)):
                    copy.write(chunk)

    def _keep(self, cursor: Cursor, artefacts: Mapping[str, bytes] | None) -> None:
        if artefacts is None:
            return
        cursor.execute(self._names.sql("DELETE FROM {artefacts} WHERE collection = {id}", id=self._collection))
        for name, content in artefacts.items():
            cursor.execute(
                self._names.sql("INSERT INTO {artefacts} VALUES ({id}, %s, %b)", id=self._collection), (name, content)
            )

    def _delete(self, cursor: Cursor, content: int, which: LiteralString, values: Any, changes: dict[int, int]) -> None:
        gone = cursor.execute(self._names.sql(_DELETE, content, which=SQL(which)), (values,)).fetchall()
        _add(changes, {space: -n for space, n in gone})

    def _finish(self, cursor: Cursor, state: _State, changes: dict[int, int], config: bytes | None) -> None:
        for space, n in sorted(changes.items()):
            cursor.execute(
                self._names.sql(
                    "INSERT INTO {spaces} AS old VALUES ({id}, %s, %s) ON CONFLICT (collection, space)"
                    " DO UPDATE SET records = old.records + excluded.records",
                    id=self._collection,
                ),
                (space, n),
            )
        cursor.execute(
            self._names.sql(
                "UPDATE {collections} SET generation = generation + 1, next_row = %s, content = %s,"
                " index_dim = %s, config = coalesce(%b::bytea, config) WHERE id = {id}",
                id=self._collection,
            ),
            (state.next_row, state.content, state.index_dim, config),
        )


def _add(changes: dict[int, int], more: dict[int, int]) -> None:
    for space, n in more.items():
        changes[space] = changes.get(space, 0) + n
