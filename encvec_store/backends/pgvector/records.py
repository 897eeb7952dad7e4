"""One collection's records: every read is one statement, every write one transaction; imports schema, source, wire.

Writers of a collection queue at its row in `collections`. That row hands out row numbers, so records are copied
straight into their table: no staging, and no number is ever used twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, LiteralString, TypeVar

import numpy as np
import psycopg
from psycopg.sql import SQL

from ...errors import CollectionNotFoundError, StaleConfigError
from ...fields import Term
from ...filters import AllOf, Predicate
from ..base import Bytes, CollectionSpec, EncryptedBatch, Matrix, Rows, order_found
from .faults import explained, is_outdated
from .predicates import PredicateSql
from .schema import Server, attach_content, create_content, drop_content, next_content
from .source import Cursor, Source
from .wire import (
    byte_arrays,
    copy_records,
    copy_terms,
    int8_array,
    packed_tokens,
    rows_from,
    term_from,
    vectors_from,
)

__all__ = ["Records"]

T = TypeVar("T")
_AT_ONCE = 1 << 26
"""Bytes fetched by one statement, about."""
_ATTEMPTS = 5
_ROWS = (
    "SELECT string_agg(int8send(row), ''::bytea ORDER BY row) FROM (SELECT DISTINCT row FROM ({listing}) AS listed"
    " WHERE row > %(after)b::int8 ORDER BY row LIMIT %(limit)b::int8) AS found"
)
_FETCH = "SELECT string_agg(int8send(row), ''::bytea), {column} FROM {records} WHERE row = ANY(%b::int8[])"
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
    next_row: int


class Records:
    """Reads and writes of one collection."""

    def __init__(self, source: Source, server: Server, collection: int, content: int, spec: CollectionSpec) -> None:
        self.source = source
        self.server = server
        self.names = server.names
        self.collection = collection
        self.spec = spec
        self._content = content

    @property
    def content(self) -> int:
        """Number of the tables in use, as far as we know."""
        return self._content

    # reads

    def on_content(self, work: Callable[[Cursor, int], T], settings: dict[str, str] | None = None) -> T:
        """Run a read on the tables in use, again where they were replaced under our hands."""
        for attempt in range(_ATTEMPTS):
            content = self._content
            try:
                return self.source.read(lambda cursor, content=content: work(cursor, content), settings)  # type: ignore[misc]
            except psycopg.Error as error:
                if not is_outdated(error) or attempt == _ATTEMPTS - 1:
                    raise explained(error, "read", self.source.place) from None
            self._content = self._column("content")
        raise AssertionError("unreachable")

    def config(self) -> bytes:
        """Return the sealed settings."""
        return bytes(self._column("config"))

    def generation(self) -> int:
        """Return the number of committed writes."""
        return int(self._column("generation"))

    def _column(self, name: LiteralString) -> Any:
        statement = self.names.sql(
            "SELECT {column} FROM {collections} WHERE id = {id}", column=SQL(name), id=self.collection
        )
        try:
            row = self.source.read(lambda cursor: cursor.execute(statement).fetchone())
        except psycopg.Error as error:
            raise explained(error, "read", self.source.place) from None
        if row is None:
            raise self._gone()
        return row[0]

    def _gone(self) -> CollectionNotFoundError:
        return CollectionNotFoundError(f"collection {self.spec.name!r} was dropped")

    def spaces(self) -> dict[int, int]:
        """Count records by space."""
        statement = self.names.sql(
            "SELECT space, records FROM {spaces} WHERE collection = {id} AND records > 0 ORDER BY space",
            id=self.collection,
        )
        return self.on_content(lambda cursor, _: dict(cursor.execute(statement).fetchall()))

    def find(self, tokens: Bytes) -> Rows:
        """Return rows of (n, 16) tokens, 0 where there is none."""
        wanted = np.ascontiguousarray(tokens)
        if not len(wanted):
            return np.empty(0, np.int64)

        def work(cursor: Cursor, content: int) -> dict[bytes, int]:
            sql = self.names.sql("SELECT token, row FROM {records} WHERE token = ANY(%b::bytea[])", content)
            return dict(cursor.execute(sql, (packed_tokens(wanted),)).fetchall())

        rows = self.on_content(work)
        return np.fromiter((rows.get(token.tobytes(), 0) for token in wanted), np.int64, len(wanted))

    def rows(self, predicate: Predicate | None, after: int, limit: int | None) -> Rows:
        """Return rows above `after`, ascending."""

        def work(cursor: Cursor, content: int) -> Rows:
            compiled = PredicateSql(self.names.records(content), self.names.terms(content))
            sql = self.names.sql(
                _ROWS, content, listing=compiled.listing(AllOf(()) if predicate is None else predicate)
            )
            parameters = {"after": after, "limit": limit, **compiled.parameters}
            (packed,) = cursor.execute(sql, parameters).fetchone() or (b"",)
            return rows_from(packed)

        return self.on_content(work)

    def envelopes(self, rows: Rows) -> tuple[Rows, Bytes]:
        """Return (found rows in the order asked, (m, envelope_size) uint8)."""
        size = self.spec.envelope_size
        found, packed = self._fetch("string_agg(envelope, ''::bytea)", rows, size)
        data = np.frombuffer(b"".join(packed), np.uint8).reshape(-1, size)
        order = order_found(rows, found.tolist())
        return found[order], data[order]

    def index_vectors(self, rows: Rows) -> tuple[Rows, Matrix]:
        """Return (found rows in the order asked, (m, index_dim) float32)."""
        dim = self.spec.index_dim
        found, packed = self._fetch("string_agg({vector_send}(index_vector), ''::bytea)", rows, 4 * dim)
        data = vectors_from(b"".join(packed), dim) if dim else np.empty((len(found), 0), np.float32)
        order = order_found(rows, found.tolist())
        return found[order], data[order]

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        """Return (found rows in the order asked, sealed payloads)."""
        found, parts = self._fetch("array_agg(payload)", rows, 1 << 12)
        payloads = [payload for part in parts for payload in part]
        order = order_found(rows, found.tolist())
        return found[order], [payloads[i] for i in order]

    def _fetch(self, column: LiteralString, rows: Rows, size: int) -> tuple[Rows, list[Any]]:
        """Return (rows, parts) as the server came upon them, in chunks."""
        asked = np.asarray(rows, np.int64)
        step = max(1, _AT_ONCE // max(size, 1))
        found: list[Rows] = [np.empty(0, np.int64)]
        parts: list[Any] = []

        for start in range(0, len(asked), step):
            some = int8_array(asked[start : start + step])

            def work(cursor: Cursor, content: int, some: bytes = some) -> Any:
                # both aggregates take the rows in one order, whatever it is
                sql = self.names.sql(_FETCH, content, column=self.names.part(column))
                return cursor.execute(sql, (some,)).fetchone()

            packed, part = self.on_content(work)
            if packed:
                found.append(rows_from(packed))
                parts.append(part or b"")
        return np.concatenate(found), parts

    def audit(self, rows: Rows) -> list[tuple[int, int, bytes, set[tuple[str, Term]]]]:
        """Return (row, space, token, {(field, term)}) of the rows found, in the order asked."""

        def work(cursor: Cursor, content: int) -> list[Any]:
            sql = self.names.sql(
                "SELECT r.row, r.space, r.token, t.field, t.kind, t.key, t.rest FROM {records} r"
                " LEFT JOIN {terms} t ON t.row = r.row WHERE r.row = ANY(%b::int8[])",
                content,
            )
            return cursor.execute(sql, (int8_array(rows),)).fetchall()

        found: dict[int, tuple[int, int, bytes, set[tuple[str, Term]]]] = {}
        for row, space, token, field, kind, key, rest in self.on_content(work):
            entry = found.setdefault(row, (row, space, token, set()))
            if field is not None:
                entry[3].add((field.decode("utf-8", "surrogatepass"), term_from(kind, key, rest)))
        return [found[row] for row in np.asarray(rows).tolist() if row in found]

    # writes

    def put(self, batch: EncryptedBatch, under: bytes, config: bytes | None) -> None:
        """Insert or replace by token, and drop the retired tokens."""
        with self.source.write() as cursor:
            state = self._lock(cursor, under)
            changes: dict[int, int] = {}
            if state.next_row > 1:
                for tokens in (packed_tokens(batch.tokens), byte_arrays(batch.retired) if batch.retired else None):
                    if tokens is not None:
                        self._delete(cursor, state.content, "token = ANY(%b::bytea[])", tokens, changes)
            self._insert(cursor, state, batch, changes)
            self._finish(cursor, state, changes, config)
            self._content = state.content

    def remove(self, rows: Rows) -> int:
        """Delete rows; returns how many there were."""
        with self.source.write() as cursor:
            state = self._lock(cursor)
            changes: dict[int, int] = {}
            self._delete(cursor, state.content, "row = ANY(%b::int8[])", int8_array(rows), changes)
            if changes:
                self._finish(cursor, state, changes, None)
            self._content = state.content
        return -sum(changes.values())

    def replace(
        self,
        batches: Iterable[EncryptedBatch],
        under: bytes,
        config: bytes,
        index: Callable[[Cursor, int, dict[int, int]], None],
    ) -> None:
        """Replace everything by way of new tables, which `index` gets to index. Others read the old ones meanwhile."""
        with self.source.write() as cursor:
            state = self._lock(cursor, under)
            old = state.content
            changes: dict[int, int] = {}
            state.content = next_content(cursor, self.names)
            create_content(cursor, self.names, state.content, self.spec.index_dim, self.spec.envelope_size)
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
            index(cursor, state.content, changes)
            cursor.execute(self.names.sql("DELETE FROM {spaces} WHERE collection = {id}", id=self.collection))
            self._finish(cursor, state, changes, config)
            attach_content(cursor, self.names, state.content)
            drop_content(cursor, self.names, old)
        self._content = state.content

    def _lock(self, cursor: Cursor, under: bytes | None = None) -> _State:
        """Wait for other writers, and see that the settings are those that the caller knows."""
        found = cursor.execute(
            self.names.sql(
                # columns of this one row only: others would be read as they were before we waited
                "SELECT content, next_row, coalesce(%b::bytea = config, true) FROM {collections}"
                " WHERE id = {id} FOR UPDATE",
                id=self.collection,
            ),
            (under,),
        ).fetchone()
        if found is None:
            raise self._gone()
        content, next_row, same = found
        if not same:
            raise StaleConfigError("the collection's settings were changed meanwhile")
        return _State(content, next_row)

    def _insert(self, cursor: Cursor, state: _State, batch: EncryptedBatch, changes: dict[int, int]) -> None:
        n = len(batch.payloads)
        if not n:
            return
        rows = np.arange(state.next_row, state.next_row + n, dtype=np.int64)
        state.next_row += n
        with_vector = bool(self.spec.index_dim)
        vector = SQL(", index_vector" if with_vector else "")
        with cursor.copy(self.names.sql(_RECORDS, state.content, vector=vector)) as copy:
            for chunk in copy_records(batch, rows, with_vector=with_vector):
                copy.write(chunk)
        if batch.terms:
            with cursor.copy(self.names.sql(_TERMS, state.content)) as copy:
                for chunk in copy_terms(batch, rows):
                    copy.write(chunk)
        _add(changes, {batch.space: n})

    def _delete(self, cursor: Cursor, content: int, which: LiteralString, values: Any, changes: dict[int, int]) -> None:
        gone = cursor.execute(self.names.sql(_DELETE, content, which=SQL(which)), (values,)).fetchall()
        _add(changes, {space: -n for space, n in gone})

    def _finish(self, cursor: Cursor, state: _State, changes: dict[int, int], config: bytes | None) -> None:
        for space, n in sorted(changes.items()):
            cursor.execute(
                self.names.sql(
                    "INSERT INTO {spaces} AS old VALUES ({id}, %s, %s) ON CONFLICT (collection, space)"
                    " DO UPDATE SET records = old.records + excluded.records",
                    id=self.collection,
                ),
                (space, n),
            )
        cursor.execute(
            self.names.sql(
                "UPDATE {collections} SET generation = generation + 1, next_row = %s, content = %s,"
                " config = coalesce(%b::bytea, config) WHERE id = {id}",
                id=self.collection,
            ),
            (state.next_row, state.content, config),
        )


def _add(changes: dict[int, int], more: dict[int, int]) -> None:
    for space, n in more.items():
        changes[space] = changes.get(space, 0) + n
