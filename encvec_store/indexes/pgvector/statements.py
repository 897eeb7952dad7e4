"""Composes the statements of searches, and caches them by shape, with a placeholder for the filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, LiteralString

import numpy as np
from psycopg.sql import SQL, Composable, Composed

from ...data.arrays import Matrix
from ...data.filters import Predicate
from ...errors import StaleConfigError
from ...storage.postgres.names import kept
from ...storage.postgres.predicates import PredicateSql
from ...storage.postgres.records import PostgresRecords
from ...storage.postgres.source import Cursor
from ...storage.postgres.wire import Raw, int8_array, vector, vector_array
from ..protocol import share

__all__ = ["Ask", "Statements", "Way"]

_KEPT = 500
"""Statements to cache: composing one takes longer than sending it."""
_HOLE = "\0"
"""Marks in a cached statement where the filter goes."""
_SMALL = 400
"""Payloads up to this many bytes are sent with a candidate; those of short records have 344. To send them is cheaper
than another statement for ten of them."""


# For many queries, one line for each: its rows and distances, packed. A second statement reads each envelope once.
_WIDE: LiteralString = (
    "SELECT q.n, found.* FROM {before}(SELECT u.v, u.n{settings} FROM unnest(%(queries)b::{type}[]) WITH ORDINALITY"
    " AS u (v, n)) AS q CROSS JOIN LATERAL (SELECT string_agg(int8send(c.row), ''::bytea)"
    " FILTER (WHERE c.d IS NOT NULL),"  # null only if damaged
    " string_agg(float8send(c.d), ''::bytea) FROM ({inner}) AS c) AS found"
)
# For one query, a line for each record. The outer join tells "no record" from "not searched". The parameter is a
# vector, not an array of one: the server would plan a statement with an array of unknown length anew each time.
_WHOLE: LiteralString = (
    "SELECT c.row, c.envelope, c.payload FROM {before}(SELECT %(query)b::{type} AS v{settings}) AS q"
    " LEFT JOIN LATERAL ({inner}) AS c ON true"
)
_INNER: LiteralString = (
    "SELECT {columns} FROM {records} AS r WHERE r.partition = {partition}{where}"
    " ORDER BY {on} {operator} {query} LIMIT {limit}"
)
_SIGNS: LiteralString = (
    "SELECT {columns} FROM (SELECT r.ctid AS place, * FROM {records} AS r WHERE r.partition = {partition}{where}"
    " ORDER BY {on} {operator} {query} LIMIT {wide}) AS r ORDER BY {distance} LIMIT {limit}"
)
# With several cells, the query has one branch for each index, since an index serves one partition. Cells without an
# index are compared in one pass. Products of all cells can be compared, so the nearest of all are chosen here.
_CELLS_WIDE: LiteralString = (
    "SELECT q.n, found.* FROM {before}(SELECT s.n{settings} FROM generate_series(1, {count}) AS s (n)) AS q"
    " CROSS JOIN LATERAL (SELECT string_agg(int8send(c.row), ''::bytea) FILTER (WHERE c.d IS NOT NULL),"
    " string_agg(float8send(c.d), ''::bytea) FROM ({inner}) AS c) AS found"
)
_CELLS_WHOLE: LiteralString = (
    "SELECT c.row, c.envelope, c.payload FROM {before}(SELECT 1 AS n{settings}) AS q LEFT JOIN LATERAL ({inner}) AS c"
    " ON true"
)
_CELLS: LiteralString = "SELECT * FROM ({branches}) AS u ORDER BY u.d LIMIT {limit}"
_BRANCH: LiteralString = "(SELECT b.* FROM (SELECT {query} AS v) AS p CROSS JOIN LATERAL ({inner}) AS b)"
_SCANNED: LiteralString = (
    "(SELECT {columns} FROM {records} AS r JOIN unnest(%(partitions)b::int8[], %(numbers)b::int8[],"
    " %(vectors)b::{type}[]) AS p (partition, n, v) ON p.partition = r.partition"
    " WHERE p.n = q.n{where} ORDER BY {distance} LIMIT {limit})"
)
# A sort would copy every record, so only the chosen ones are read, afterwards. Within one statement, ctid is as good as
# a key, and faster.
_AFTERWARDS: LiteralString = "SELECT {columns} FROM ({inner}) AS n JOIN {records} AS r ON r.ctid = n.place"
_NARROW: LiteralString = (
    "WITH listed AS MATERIALIZED (SELECT row FROM ({hole}) AS l LIMIT {most} + 1), few AS MATERIALIZED"
    " (SELECT array_agg(row) AS rows FROM listed HAVING count(*) <= {most}) {outer}"
)
_PASSING: LiteralString = "SELECT count(*) FROM {records} AS r WHERE r.partition = {partition} AND {holds}"
_COLUMNS = f"r.row, r.envelope, CASE WHEN octet_length(r.payload) <= {_SMALL} THEN r.payload END AS payload"


@dataclass(frozen=True)
class Ask:
    """What is searched for."""

    probes: Mapping[int, Matrix]
    limit: int
    predicate: Predicate | None
    whole: bool
    """True to return envelopes too; then there is one query."""

    @property
    def dim(self) -> int:
        """The number of coordinates of a query."""
        return int(next(iter(self.probes.values())).shape[1])

    @property
    def count(self) -> int:
        """The number of queries."""
        return len(next(iter(self.probes.values())))


@dataclass(frozen=True)
class Way:
    """How it is searched for."""

    kind: str
    """exact, narrow, or the kind of the index."""
    storage: str = "exact"
    settings: tuple[tuple[str, str], ...] = ()
    most: int = 0
    """narrow: the most passing records for which it is used."""
    wide: int = 0
    """bit: records to take from the index of signs and compare by their whole index vectors."""
    scanned: tuple[int, ...] = ()
    """The partitions that no index of this kind serves."""


class Statements:
    """Searches of one collection as SQL."""

    def __init__(self, records: PostgresRecords) -> None:
        self._records = records
        self._names = records.names
        self._kept: dict[tuple[Any, ...], tuple[bytes, ...]] = {}

    def search(self, content: int, ask: Ask, way: Way) -> tuple[bytes, dict[str, Any]]:
        """Return the statement of a search and its parameters. It returns the lines of `_WHOLE` or `_WIDE`.

        Raises:
            StaleConfigError: the index vectors in the tables have another dimension (by now).
        """
        self.fit(content, ask)
        many = len(ask.probes) > 1
        if many and way.kind in ("exact", "narrow"):
            way = replace(way, scanned=tuple(ask.probes))
        shape = (*ask.probes, ask.count if many else 0)
        key = (content, self._names.extension, shape, ask.dim, ask.limit, ask.predicate is None, ask.whole, way)
        text = self._kept.get(key)
        if text is None:
            if len(self._kept) > _KEPT:
                self._kept.clear()
            composed = (self._compose_cells if many else self._compose)(content, ask, way)
            text = self._kept[key] = tuple(composed.as_bytes().split(_HOLE.encode()))
        parameters = self._many(ask, way) if many else self._one(ask)
        if ask.predicate is None:
            return text[0], parameters
        compiled = PredicateSql(self._names.records(content), self._names.terms(content))
        filtering = compiled.listing(ask.predicate) if way.kind == "narrow" else compiled.holds(ask.predicate, "r.row")
        return filtering.encode().join(text), parameters | compiled.parameters

    def fit(self, content: int, ask: Ask) -> None:
        """Check that queries and index vectors have the same dimension. Raises StaleConfigError."""
        if ask.dim != self._records.dim_of(content):
            raise StaleConfigError("the collection's settings were changed meanwhile")

    def passing(self, cursor: Cursor, content: int, partition: int, predicate: Predicate) -> int:
        """Count the records of a partition that pass a filter."""
        compiled = PredicateSql(self._names.records(content), self._names.terms(content))
        holds = SQL(compiled.holds(predicate, "r.row"))
        sql = self._names.sql(_PASSING, content, partition=partition, holds=holds)
        (n,) = cursor.execute(sql, compiled.parameters).fetchone() or (0,)
        return int(n)

    def _one(self, ask: Ask) -> dict[str, Any]:
        (queries,) = ask.probes.values()
        return {"query": self._vector(queries[0])} if ask.whole else {"queries": self._vectors(queries)}

    def _vector(self, query: Matrix) -> Raw:
        return vector(query, kept(self._records.spec.half)[2])

    def _vectors(self, queries: Matrix) -> Raw:
        return vector_array(queries, self._records.index_oid, kept(self._records.spec.half)[2])

    def _many(self, ask: Ask, way: Way) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            f"query{partition}": self._vector(part[0]) if ask.whole else self._vectors(part)
            for partition, part in ask.probes.items()
            if partition not in way.scanned
        }
        if way.scanned:
            vectors = np.concatenate([ask.probes[partition] for partition in way.scanned])
            parameters |= {
                "partitions": int8_array(np.repeat(way.scanned, ask.count)),
                "numbers": int8_array(np.tile(np.arange(1, ask.count + 1), len(way.scanned))),
                "vectors": self._vectors(vectors),
            }
        return parameters

    def _compose_cells(self, content: int, ask: Ask, way: Way) -> Composed:
        names, narrow = self._names, way.kind == "narrow"
        column: LiteralString = f"r.{kept(self._records.spec.half)[0]}"
        exact = names.measure("exact", ask.dim, column, "p.v")
        distance = SQL(" ").join([exact["on"], exact["operator"], exact["query"]])
        where = SQL(" AND r.row = ANY(few.rows)" if narrow else f" AND {_HOLE}" if ask.predicate is not None else "")
        place = "r.place" if way.kind == "bit" else "r.ctid AS place"

        def columns(place: LiteralString) -> Composed:
            return SQL("{}, {} AS d").format(SQL(place if ask.whole else "r.row"), distance)

        parts: dict[str, Composable | int] = {**names.measure(way.storage, ask.dim, column, "p.v")}
        parts |= {"where": where, "limit": share(ask.limit, len(ask.probes)), "distance": distance, "wide": way.wide}
        template = _SIGNS if way.kind == "bit" else _INNER
        branches: list[Composable] = []
        for partition in ask.probes:
            if partition in way.scanned:
                continue
            inner = names.part(template, content, columns=columns(place), partition=partition, **parts)
            asked: LiteralString = (
                "%(query{partition})b::{type}" if ask.whole else "(%(query{partition})b::{type}[])[q.n]"
            )
            query = names.part(asked, partition=SQL(str(partition)), type=names.part(kept(self._records.spec.half)[1]))
            branches.append(names.part(_BRANCH, query=query, inner=inner))
        if way.scanned:
            listed = columns("r.ctid AS place")
            parts |= {"limit": ask.limit, "type": names.part(kept(self._records.spec.half)[1])}
            branches.append(names.part(_SCANNED, content, columns=listed, **parts))
        inner = names.part(_CELLS, branches=SQL(" UNION ALL ").join(branches), limit=ask.limit)
        if ask.whole:
            inner = names.part(_AFTERWARDS, content, columns=SQL(_COLUMNS), inner=inner)
        settings = [SQL(", set_config({}, {}, true)").format(setting, value) for setting, value in way.settings]
        outer = names.part(
            _CELLS_WHOLE if ask.whole else _CELLS_WIDE,
            before=SQL("few CROSS JOIN " if narrow else ""),
            settings=SQL("").join(settings),
            inner=inner,
            count=ask.count,
        )
        return names.part(_NARROW, hole=SQL(_HOLE), most=way.most, outer=outer) if narrow else outer

    def _compose(self, content: int, ask: Ask, way: Way) -> Composed:
        names = self._names
        narrow = way.kind == "narrow"
        joined = ask.whole and way.storage == "exact"
        ((partition, queries),) = ask.probes.items()
        dim = queries.shape[1]
        column: LiteralString = f"r.{kept(self._records.spec.half)[0]}"
        exact = names.measure("exact", dim, column, "q.v")
        distance = SQL(" ").join([exact["on"], exact["operator"], exact["query"]])
        columns = (
            SQL("r.ctid AS place") if joined else SQL(_COLUMNS) if ask.whole else SQL("r.row, {} AS d").format(distance)
        )
        where = " AND r.row = ANY(few.rows)" if narrow else f" AND {_HOLE}" if ask.predicate is not None else ""
        parts: dict[str, Composable | int] = {**names.measure(way.storage, dim, column, "q.v")}
        parts |= {"columns": columns, "partition": partition, "where": SQL(where), "limit": ask.limit}
        parts |= {"distance": distance, "wide": way.wide}
        type_ = names.part(kept(self._records.spec.half)[1])
        inner = names.part(_SIGNS if way.kind == "bit" else _INNER, content, **parts)
        if joined:
            inner = names.part(_AFTERWARDS, content, columns=SQL(_COLUMNS), inner=inner)
        # the statement sets them itself, before the scan begins, which saves the round trips of a transaction
        settings = [SQL(", set_config({}, {}, true)").format(setting, value) for setting, value in way.settings]
        outer = names.part(
            _WHOLE if ask.whole else _WIDE,
            before=SQL("few CROSS JOIN " if narrow else ""),
            type=type_,
            settings=SQL("").join(settings),
            inner=inner,
        )
        return names.part(_NARROW, hole=SQL(_HOLE), most=way.most, outer=outer) if narrow else outer
