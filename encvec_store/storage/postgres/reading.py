"""Reading one collection's records, each time by one statement."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, LiteralString, TypeVar

import numpy as np
import psycopg
from psycopg.errors import UndefinedTable
from psycopg.sql import SQL

from ...data.arrays import Bytes, Matrix, Rows
from ...data.fields import Term
from ...data.filters import AllOf, Predicate
from ...errors import CollectionNotFoundError
from ..protocol import EVERY, CollectionSpec
from .faults import explained, is_moved, is_outdated, translated
from .names import kept
from .predicates import PredicateSql
from .server import Server
from .source import Cursor, Source
from .wire import int8_array, packed_tokens, rows_from, term_from, vectors_from

__all__ = ["RecordsReader", "joined"]

T = TypeVar("T")
_AT_ONCE = 1 << 26
"""Bytes fetched by one statement, about."""


_ATTEMPTS = 5
_ROWS = (
    "SELECT string_agg(int8send(row), ''::bytea ORDER BY row) FROM (SELECT DISTINCT row FROM ({listing}) AS listed"
    " WHERE row > %(after)b::int8 ORDER BY row LIMIT %(limit)b::int8) AS found"
)
_ROWS_OF: LiteralString = (
    "SELECT string_agg(int8send(row), ''::bytea ORDER BY row) FROM (SELECT row FROM {records}"
    " WHERE partition = ANY(%(of)b::int8[]) AND row > %(after)b::int8 ORDER BY row LIMIT %(limit)b::int8) AS found"
)
_FETCH: LiteralString = "SELECT row, {column} FROM {records} WHERE row = ANY(%b::int8[])"
_CURRENT: LiteralString = (
    "SELECT r.row, r.envelope, c.generation, c.content, {column} FROM {collections} AS c"
    " LEFT JOIN {records} AS r ON r.row = ANY(%b::int8[]) WHERE c.id = {id}"
)
"""One line at least, while there is the collection."""
_SHORT: LiteralString = "CASE WHEN octet_length(r.payload) <= %b::int4 THEN r.payload END"


class RecordsReader:
    """Reads of one collection. It caches only the number of the tables in use, and statements."""

    def __init__(self, source: Source, server: Server, collection: int, content: int, spec: CollectionSpec) -> None:
        self.source = source
        self.server = server
        self.names = server.names
        self.collection = collection
        self.spec = spec
        self._content = content
        self._fetches: dict[str, tuple[tuple[int, str], bytes]] = {}
        """Statements that are needed often, by template and column, with the tables and the extension they are for."""
        self._dims = {content: spec.index_dim}

    @property
    def index_oid(self) -> int:
        """The type of index vectors, by its number in the server; 0 without the extension."""
        pgvector = self.server.pgvector
        return 0 if pgvector is None else pgvector.halfvec_oid if self.spec.half else pgvector.vector_oid

    @property
    def content(self) -> int:
        """The number of the tables in use, as far as we know."""
        return self._content

    def dim_of(self, content: int) -> int:
        """Return how many coordinates index vectors have in the tables of a number that we have seen in use."""
        return self._dims[content]

    def follow(self, content: int, index_dim: int | None = None) -> None:
        """Remember the number of the tables in use, and their dimension if it is given."""
        if index_dim is not None:
            self._dims[content] = index_dim
        self._content = content

    def replaced(self, content: int) -> bool:
        """Look up whether other tables are in use by now."""
        self.catch_up()
        return self._content != content

    # reads

    def on_content(self, work: Callable[[Cursor, int], T], settings: dict[str, str] | None = None) -> T:
        """Run a read on the tables in use; run it again if they were replaced meanwhile."""
        for attempt in range(_ATTEMPTS):
            content = self._content
            try:
                return self.source.read(lambda cursor, content=content: work(cursor, content), settings)  # type: ignore[misc]
            except psycopg.Error as error:
                again = is_outdated(error) or is_moved(error)
                if not again or attempt == _ATTEMPTS - 1 or self.source.once:
                    raise explained(error, "read", self.source.place) from None
                if is_moved(error):
                    self.find_extension()
            self.catch_up()
        raise AssertionError("unreachable")

    def find_extension(self) -> None:
        """Look up where the extension is now: somebody may have moved it to another schema."""
        with translated("read", self.source.place):
            self.source.read(self.server.look)

    def catch_up(self) -> None:
        """Ask which tables are in use."""
        self.follow(*self._columns("content, index_dim"))

    def config(self) -> bytes:
        """Return the sealed settings."""
        return bytes(self._columns("config")[0])

    def generation(self) -> int:
        """Return the number of committed writes."""
        return int(self._columns("generation")[0])

    def blob(self, name: str, part: int = 0) -> bytes | None:
        """Return the content of a sealed blob, or None."""
        statement = self.names.sql(
            "SELECT content FROM {blobs} WHERE collection = {id} AND name = %s AND part = %s::int4", id=self.collection
        )
        row = self.on_content(lambda cursor, _: cursor.execute(statement, (name, part)).fetchone())
        return None if row is None else bytes(row[0])

    def blob_parts(self, name: str, parts: Sequence[int]) -> dict[int, bytes]:
        """Return the content of those of these parts of a sealed blob that are there."""
        statement = self.names.sql(
            "SELECT part, content FROM {blobs} WHERE collection = {id} AND name = %s AND part = ANY(%s::int4[])",
            id=self.collection,
        )
        return dict(self.on_content(lambda cursor, _: cursor.execute(statement, (name, list(parts))).fetchall()))

    def blobs(self, prefix: str) -> dict[str, tuple[int, int]]:
        """Return {name: (parts, bytes)} of the blobs whose names begin with a prefix."""
        statement = self.names.sql(
            "SELECT name, count(*), sum(octet_length(content))::int8 FROM {blobs}"
            " WHERE collection = {id} AND starts_with(name, %s::text) GROUP BY name",
            id=self.collection,
        )
        lines = self.on_content(lambda cursor, _: cursor.execute(statement, (prefix,)).fetchall())
        return {name: (parts, size) for name, parts, size in lines}

    def _columns(self, names: LiteralString) -> tuple[Any, ...]:
        statement = self.names.sql(
            "SELECT {columns} FROM {collections} WHERE id = {id}", columns=SQL(names), id=self.collection
        )
        try:
            row = self.source.read(lambda cursor: cursor.execute(statement).fetchone())
        except psycopg.Error as error:
            raise explained(error, "read", self.source.place) from None
        if row is None:
            raise self.gone()
        return row

    def gone(self) -> CollectionNotFoundError:
        """Return the error for a collection that was dropped."""
        return CollectionNotFoundError(f"collection {self.spec.called!r} was dropped")

    def count(self) -> int:
        """Count all records."""
        return sum(self.partitions().values())

    def newest(self) -> int:
        """Return the largest row; 0 if there is none."""

        def work(cursor: Cursor, content: int) -> int:
            sql = self.names.sql("SELECT coalesce(max(row), 0) FROM {records}", content)
            (row,) = cursor.execute(sql).fetchone() or (0,)
            return int(row)

        return self.on_content(work)

    def partitions(self) -> dict[int, int]:
        """Count records by partition."""
        statement = self.names.sql(
            "SELECT partition, records FROM {partitions} WHERE collection = {id} AND records > 0 ORDER BY partition",
            id=self.collection,
        )
        return self.on_content(lambda cursor, _: dict(cursor.execute(statement).fetchall()))

    def find(self, tokens: Bytes) -> Rows:
        """Return rows of (n, 16) tokens; 0 stands for a token without a row."""
        wanted = np.ascontiguousarray(tokens)
        if not len(wanted):
            return np.empty(0, np.int64)

        def work(cursor: Cursor, content: int) -> dict[bytes, int]:
            sql = self.names.sql("SELECT token, row FROM {records} WHERE token = ANY(%b::bytea[])", content)
            return dict(cursor.execute(sql, (packed_tokens(wanted),)).fetchall())

        rows = self.on_content(work)
        return np.fromiter((rows.get(token.tobytes(), 0) for token in wanted), np.int64, len(wanted))

    def rows(self, predicate: Predicate | None = None, *, after: int = 0, limit: int | None = None) -> Rows:
        """Return rows above `after`, ascending."""

        def work(cursor: Cursor, content: int) -> Rows:
            compiled = PredicateSql(self.names.records(content), self.names.terms(content))
            listing = SQL(compiled.listing(AllOf(()) if predicate is None else predicate))
            sql = self.names.sql(_ROWS, content, listing=listing)
            parameters = {"after": after, "limit": limit, **compiled.parameters}
            (packed,) = cursor.execute(sql, parameters).fetchone() or (b"",)
            return rows_from(packed)

        return self.on_content(work)

    def rows_of(self, partitions: Collection[int], *, after: int = 0, limit: int | None = None) -> Rows:
        """Return rows above `after` in some partitions, ascending."""
        parameters = {"of": int8_array(list(partitions)), "after": after, "limit": limit}

        def work(cursor: Cursor, content: int) -> Rows:
            (packed,) = cursor.execute(self.names.sql(_ROWS_OF, content), parameters).fetchone() or (b"",)
            return rows_from(packed)

        return self.on_content(work)

    def vectors(self, rows: Rows) -> tuple[Rows, Bytes]:
        """Return (found rows in the order asked, (m, envelope_size) uint8)."""
        found, parts = self._fetch("envelope", rows, self.spec.envelope_size)
        return found, self.envelopes(parts)

    def envelopes(self, parts: Sequence[bytes]) -> Bytes:
        """Return n sealed vectors as (n, envelope_size) uint8."""
        size = self.spec.envelope_size
        return np.frombuffer(joined(parts, size), np.uint8).reshape(-1, size)

    def current(self, rows: Rows, most: int = 0) -> tuple[int, Rows, Bytes, dict[int, bytes]]:
        """Return (a generation, *vectors(rows), {row: payload of at most `most` bytes}); a statement for each 64 MB."""
        asked, size = np.asarray(rows, np.int64), self.spec.envelope_size
        step = max(1, _AT_ONCE // max(size + most % EVERY, 1))  # with EVERY, the caller knows how long payloads are
        generation, parts, payloads = 0, dict[int, bytes](), dict[int, bytes]()
        column: LiteralString = _SHORT if most else "NULL"
        for start in range(0, max(1, len(asked)), step):
            some = int8_array(asked[start : start + step])

            def work(cursor: Cursor, content: int, some: bytes = some) -> list[Any]:
                values = (most, some) if most else (some,)
                lines = cursor.execute(self.prepared(_CURRENT, content, column), values).fetchall()
                if lines and lines[0][3] != content:  # replaced meanwhile: treat it as if its tables were gone
                    raise UndefinedTable
                return lines

            lines = self.on_content(work)
            if not lines:
                raise self.gone()
            generation = lines[0][2]
            parts.update({row: envelope for row, envelope, *_ in lines if row is not None})
            payloads.update({row: payload for row, *_, payload in lines if payload is not None})
        found, envelopes = _in_order(asked, parts)
        return generation, found, self.envelopes(envelopes), payloads

    def index_vectors(self, rows: Rows) -> tuple[Rows, Matrix]:
        """Return (found rows in the order asked, (m, index_dim) float32)."""

        def sent(content: int) -> LiteralString:  # tables without index vectors may have no column for them
            column: LiteralString = "{halfvec_send}(index_half)" if self.spec.half else "{vector_send}(index_vector)"
            return f"coalesce({column}, '')" if self.dim_of(content) else "''::bytea"

        found, parts = self._fetch(sent, rows, 4 * self.dim_of(self.content))
        dim, number = self.dim_of(self.content), kept(self.spec.half)[-1]
        if not dim:
            return found, np.empty((len(found), 0), np.float32)
        return found, vectors_from(joined(parts, 4 + np.dtype(number).itemsize * dim), dim, number)

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        """Return (found rows in the order asked, sealed payloads)."""
        return self._fetch("payload", rows, 1 << 12)

    def payload_sizes(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return (found rows in the order asked, bytes of their payloads)."""
        found, sizes = self._fetch("octet_length(payload)", rows, 1)
        return found, np.array(sizes, np.int64)

    def _fetch(
        self, column: LiteralString | Callable[[int], LiteralString], rows: Rows, size: int
    ) -> tuple[Rows, list[Any]]:
        """Return (found rows in the order asked, a column of theirs), read in chunks of about 64 MB.

        Args:
            column: what to read, or a function that says it for the tables of a number.
            rows: (n,) rows.
            size: about so many bytes come for a row.
        """
        asked = np.asarray(rows, np.int64)
        step = max(1, _AT_ONCE // max(size, 1))
        parts: dict[int, Any] = {}
        for start in range(0, len(asked), step):
            some = int8_array(asked[start : start + step])

            # a line for each row: aggregated by the server, they would take twice the time
            def work(cursor: Cursor, content: int, some: bytes = some) -> list[Any]:
                read = column(content) if callable(column) else column
                return cursor.execute(self.prepared(_FETCH, content, read), (some,)).fetchall()

            parts.update(self.on_content(work))
        return _in_order(asked, parts)

    def prepared(self, template: LiteralString, content: int, column: LiteralString = "", **numbers: int) -> bytes:
        """Return a statement that is needed often. `names.sql` takes longer than many a search."""
        name, at = template + column, (content, self.names.extension)
        known = self._fetches.get(name)
        if known is None or known[0] != at:
            part = self.names.part(column)
            sql = self.names.sql(template, content, id=self.collection, column=part, **numbers)
            known = self._fetches[name] = at, sql
        return known[1]

    def audit(self, rows: Rows) -> list[tuple[int, int, bytes, set[tuple[str, Term]]]]:
        """Return (row, partition, token, {(field, term)}) of the rows found, in the order asked."""

        def work(cursor: Cursor, content: int) -> list[Any]:
            sql = self.names.sql(
                "SELECT r.row, r.partition, r.token, t.field, t.kind, t.key, t.rest FROM {records} r"
                " LEFT JOIN {terms} t ON t.row = r.row WHERE r.row = ANY(%b::int8[])",
                content,
            )
            return cursor.execute(sql, (int8_array(rows),)).fetchall()

        found: dict[int, tuple[int, int, bytes, set[tuple[str, Term]]]] = {}
        for row, partition, token, field, kind, key, rest in self.on_content(work):
            entry = found.setdefault(row, (row, partition, token, set()))
            if field is not None:
                entry[3].add((field.decode("utf-8", "surrogatepass"), term_from(kind, key, rest)))
        return [found[row] for row in np.asarray(rows).tolist() if row in found]


def _in_order(asked: Rows, parts: Mapping[int, T]) -> tuple[Rows, list[T]]:
    """Return (found rows in the order asked, their parts)."""
    present = [row for row in asked.tolist() if row in parts]
    return np.array(present, np.int64), [parts[row] for row in present]


def joined(parts: Sequence[bytes], size: int) -> bytes:
    """Join parts of one size. A part of another size is damaged and becomes zeros, which no key authenticates."""
    if None not in parts and set(map(len, parts)) <= {size}:
        return b"".join(parts)
    return b"".join(part if part is not None and len(part) == size else bytes(size) for part in parts)
