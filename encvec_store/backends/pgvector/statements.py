"""The statements of searches, kept by shape with a hole for the filter; imports names, predicates, records, wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg.sql import SQL, Composable, Composed

from ...errors import StaleConfigError
from ...filters import Predicate
from ..base import Matrix
from .names import kept
from .predicates import PredicateSql
from .records import Records
from .wire import vector, vector_array

__all__ = ["Ask", "Statements", "Way"]

_KEPT = 500
"""Statements kept, since putting one together takes longer than sending it."""
_HOLE = "\0"
"""Stands in a kept statement where the filter goes."""
_SMALL = 256
"""Bytes of a payload that comes along with a candidate: sending so much is cheaper than being asked for ten of them."""

# For many queries, one line each: its rows and distances, packed. Envelopes follow by a second statement, once each.
_WIDE: LiteralString = (
    "SELECT q.n, found.* FROM {before}(SELECT u.v, u.n{settings} FROM unnest(%(queries)b::{type}[]) WITH ORDINALITY"
    " AS u (v, n)) AS q CROSS JOIN LATERAL (SELECT string_agg(int8send(c.row), ''::bytea)"
    " FILTER (WHERE c.d IS NOT NULL),"  # none should be, but for damage
    " string_agg(float8send(c.d), ''::bytea) FROM ({inner}) AS c) AS found"
)
# For one query, a line for each record. The outer join tells no record from no search. Its parameter is a vector, not
# an array of one: what the server cannot guess the length of, it plans anew each time.
_WHOLE: LiteralString = (
    "SELECT c.row, c.envelope, c.payload FROM {before}(SELECT %(query)b::{type} AS v{settings}) AS q"
    " LEFT JOIN LATERAL ({inner}) AS c ON true"
)
_INNER: LiteralString = (
    "SELECT {columns} FROM {records} AS r WHERE r.space = {space}{where} ORDER BY {on} {operator} {query} LIMIT {limit}"
)
_SIGNS: LiteralString = (
    "SELECT {columns} FROM (SELECT * FROM {records} AS r WHERE r.space = {space}{where}"
    " ORDER BY {on} {operator} {query} LIMIT {wide}) AS r ORDER BY {distance} LIMIT {limit}"
)
# Not through a sort, which would copy every record: the chosen ones are read once more. Within one statement a place
# is as good as a key, and nearer.
_AFTERWARDS: LiteralString = "SELECT {columns} FROM ({inner}) AS n JOIN {records} AS r ON r.ctid = n.place"
_NARROW: LiteralString = (
    "WITH listed AS MATERIALIZED (SELECT row FROM ({hole}) AS l LIMIT {most} + 1), few AS MATERIALIZED"
    " (SELECT array_agg(row) AS rows FROM listed HAVING count(*) <= {most}) {outer}"
)
_COLUMNS = f"r.row, r.envelope, CASE WHEN octet_length(r.payload) <= {_SMALL} THEN r.payload END AS payload"


@dataclass(frozen=True)
class Ask:
    """What is searched for."""

    space: int
    queries: Matrix
    limit: int
    predicate: Predicate | None
    whole: bool
    """With envelopes; there is one query then."""


@dataclass(frozen=True)
class Way:
    """How it is searched for."""

    kind: str
    """exact, narrow, or that of the index."""
    storage: str = "exact"
    settings: tuple[tuple[str, str], ...] = ()
    most: int = 0
    """narrow: records up to which it is tried."""
    wide: int = 0
    """bit: records taken from the index of signs, to be compared by their whole index vectors."""


class Statements:
    """Searches of one collection as SQL."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._names = records.names
        self._column, self._type, self._number = kept(records.spec.half)
        self._kept: dict[tuple[Any, ...], tuple[bytes, bytes]] = {}

    def search(self, content: int, ask: Ask, way: Way) -> tuple[bytes, dict[str, Any]]:
        """Return a search and its parameters. Its lines are those of `_WHOLE` or `_WIDE`.

        Raises:
            StaleConfigError: the tables hold index vectors of another dimension (by now).
        """
        if ask.queries.shape[1] != self._records.dim_of(content):
            raise StaleConfigError("the collection's settings were changed meanwhile")
        key = (content, ask.space, ask.queries.shape[1], ask.limit, ask.predicate is None, ask.whole, way)
        text = self._kept.get(key)
        if text is None:
            if len(self._kept) > _KEPT:
                self._kept.clear()
            before, _, after = self._compose(content, ask, way).as_bytes().partition(_HOLE.encode())
            text = self._kept[key] = before, after
        parameters: dict[str, Any] = (
            {"query": vector(ask.queries[0], self._number)}
            if ask.whole
            else {"queries": vector_array(ask.queries, self._records.index_oid, self._number)}
        )
        if ask.predicate is None:
            return text[0], parameters
        compiled = PredicateSql(self._names.records(content), self._names.terms(content))
        filtering = compiled.listing(ask.predicate) if way.kind == "narrow" else compiled.holds(ask.predicate, "r.row")
        return filtering.encode().join(text), parameters | compiled.parameters

    def _compose(self, content: int, ask: Ask, way: Way) -> Composed:
        names = self._names
        narrow = way.kind == "narrow"
        joined = ask.whole and way.storage == "exact"
        dim = ask.queries.shape[1]
        column: LiteralString = f"r.{self._column}"
        exact = names.measure("exact", dim, column, "q.v")
        distance = SQL(" ").join([exact["on"], exact["operator"], exact["query"]])
        columns = (
            SQL("r.ctid AS place") if joined else SQL(_COLUMNS) if ask.whole else SQL("r.row, {} AS d").format(distance)
        )
        where = " AND r.row = ANY(few.rows)" if narrow else f" AND {_HOLE}" if ask.predicate is not None else ""
        parts: dict[str, Composable | int] = {**names.measure(way.storage, dim, column, "q.v")}
        parts |= {"columns": columns, "space": ask.space, "where": SQL(where), "limit": ask.limit}
        parts |= {"distance": distance, "wide": way.wide}
        type_ = names.part(self._type)
        inner = names.part(_SIGNS if way.kind == "bit" else _INNER, content, **parts)
        if joined:
            inner = names.part(_AFTERWARDS, content, columns=SQL(_COLUMNS), inner=inner)
        # set by the statement itself, before the scan begins: that saves a transaction's round trips
        settings = [SQL(", set_config({}, {}, true)").format(setting, value) for setting, value in way.settings]
        outer = names.part(
            _WHOLE if ask.whole else _WIDE,
            before=SQL("few CROSS JOIN " if narrow else ""),
            type=type_,
            settings=SQL("").join(settings),
            inner=inner,
        )
        return names.part(_NARROW, hole=SQL(_HOLE), most=way.most, outer=outer) if narrow else outer
