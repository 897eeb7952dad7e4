"""Candidates: which way to search, and the statements for it; imports index, predicates, records, wire.

    few records, many candidates       exact: every record of the space is compared
    a filter that few records pass     narrow: they are listed by the index on terms, and compared exactly
    otherwise                          index: HNSW or IVFFlat, the filter checked on the way

Whatever an index leaves out is made up for: where fewer come than were asked, the exact way is gone.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any, LiteralString

import numpy as np
from psycopg.sql import SQL, Composable, Composed

from ...errors import StaleConfigError
from ...filters import Predicate
from ..base import Matrix, Rows
from .index import Indexer, IndexState, expression
from .predicates import PredicateSql
from .records import Records
from .source import Cursor
from .wire import rows_from, vector_array

__all__ = ["Searcher"]

log = logging.getLogger("encvec_store")

_MOST_EF = 1000
_LEAST_NARROW = 1_000
_VISIT_COST = 6.0
"""How much dearer a step in a graph is than comparing a listed record."""
_TEXTS = 500
"""Statements kept, since putting one together takes as long as sending it."""
_LOOK_AGAIN = 5.0
"""Seconds for which we believe to know which indexes there are."""

_OUTER: LiteralString = (
    "SELECT q.n, found.* FROM {queries} AS q CROSS JOIN LATERAL (SELECT string_agg(int8send(c.row), ''::bytea),"
    " string_agg(float8send(c.d), ''::bytea) FROM ({inner}) AS c) AS found"
)
_INNER: LiteralString = (
    "SELECT r.row, {on} {negative_inner_product} {query} AS d FROM {records} AS r"
    " WHERE r.space = {space}{where} ORDER BY {on} {negative_inner_product} {query} LIMIT {limit}"
)
_NARROW: LiteralString = (
    "WITH listed AS MATERIALIZED (SELECT row FROM ({listing}) AS l LIMIT {most} + 1), few AS MATERIALIZED"
    " (SELECT array_agg(row) AS rows FROM listed HAVING count(*) <= {most}) {outer}"
)
_EXACT = {"jit": "off"}


class Searcher:
    """Finds candidates in one collection."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._names = records.names
        self._options = records.source.options
        self._indexer = Indexer(records.source, records.server, records.dim_of)
        self._states: dict[int, IndexState] = {}
        self._seen = -_LOOK_AGAIN
        self._warned = False
        self._texts: dict[tuple[Any, ...], bytes] = {}
        self.ways: Counter[str] = Counter()
        """Searches by way; `short` counts those that an index answered with too few."""

    def candidates(self, space: int, queries: Matrix, limit: int, predicate: Predicate | None) -> list[Rows]:
        """Return up to `limit` rows for each of (q, index_dim) queries, nearest first."""
        asked = np.ascontiguousarray(queries, np.float32)
        if not asked.shape[1] or not len(asked) or limit <= 0:
            return [np.empty(0, np.int64) for _ in asked]
        if asked.shape[1] != self._records.dim_of(self._records.content):
            self._records.catch_up()  # another process moved the collection to a sketch, or to another one
            self._seen = -_LOOK_AGAIN
        state = self._state(space)
        if state is None or state.kind == "none" or limit > _MOST_EF:
            return self._exact(space, asked, limit, predicate)
        if predicate is not None:
            most = self._narrow_limit(state.records, limit)
            found = self._narrow(space, asked, limit, predicate, most)
            if found is not None:
                return found
        found = self._indexed(space, asked, limit, predicate, state)
        if all(len(rows) == limit for rows in found):
            return found
        self.ways["short"] += 1
        return self._exact(space, asked, limit, predicate)

    def states(self, *, fresh: bool = False) -> dict[int, IndexState]:
        """Return how each space is indexed, as of a moment ago."""
        if fresh or time.monotonic() > self._seen + _LOOK_AGAIN:
            counts = self._records.spaces()
            self._states = self._records.on_content(
                lambda cursor, content: self._indexer.states(cursor, content, counts)
            )
            self._seen = time.monotonic()
        return self._states

    def build(self, space: int | None = None) -> None:
        """Build what is missing, for one space or all."""
        for number, state in self.states(fresh=True).items():
            if state.wanted not in (state.kind, "none") and space in (None, number):
                content = self._records.content
                self._indexer.build(content, number, state)
        self.states(fresh=True)

    def index_new(self, cursor: Cursor, content: int, counts: dict[int, int], dim: int) -> None:
        """Index the tables of `Writer.replace`."""
        self._indexer.build_new(cursor, content, counts, dim)
        self._seen = -_LOOK_AGAIN

    def explain(self, space: int, query: Matrix, limit: int, predicate: Predicate | None = None) -> str:
        """Return the server's plan for a search of one query, where its filter is not narrow."""
        state = self.states(fresh=True).get(space)
        indexed = state is not None and state.kind != "none" and limit <= _MOST_EF
        half = state.half if state is not None and indexed else None

        def work(cursor: Cursor, content: int) -> list[Any]:
            sql, parameters = self._statement(content, space, query.reshape(1, -1), limit, predicate, half)
            return cursor.execute(b"EXPLAIN (COSTS OFF) " + sql, parameters).fetchall()

        return "\n".join(str(line) for (line,) in self._records.on_content(work))

    def _state(self, space: int) -> IndexState | None:
        state = self.states().get(space)
        if state is None or state.kind != "none" or state.wanted == "none":
            return state
        if state.records <= self._options.index_in_search:
            self.build(space)
        elif not self._warned:
            self._warned = True
            log.warning(
                "collection %r has %d records and no index, so searches compare them all: call flush() to build it",
                self._records.spec.name,
                state.records,
            )
        return self._states.get(space)

    def _narrow_limit(self, records: int, limit: int) -> int:
        """Records up to which listing and comparing them is cheaper than a graph that skips the others."""
        return max(_LEAST_NARROW, 2 * limit, int((_VISIT_COST * limit * records) ** 0.5))

    def _exact(self, space: int, asked: Matrix, limit: int, predicate: Predicate | None) -> list[Rows]:
        self.ways["exact"] += 1

        def work(cursor: Cursor, content: int) -> list[Any]:
            # not the expression that indexes are on, so that none of them is used
            sql, parameters = self._statement(content, space, asked, limit, predicate, None)
            return cursor.execute(sql, parameters).fetchall()

        return self._take(self._records.on_content(work, _EXACT), asked, limit)

    def _narrow(self, space: int, asked: Matrix, limit: int, predicate: Predicate, most: int) -> list[Rows] | None:
        def work(cursor: Cursor, content: int) -> list[Any]:
            compiled = PredicateSql(self._names.records(content), self._names.terms(content))
            few = SQL(" AND r.row = ANY(few.rows)")
            self._check_dim(content, asked)
            outer = self._compose(content, space, limit, None, few, before="few CROSS JOIN ")
            sql = self._names.sql(_NARROW, listing=compiled.listing(predicate), most=most, outer=outer)
            parameters = {"queries": vector_array(asked, self._records.server.vector_oid)}
            return cursor.execute(sql, parameters | compiled.parameters).fetchall()

        lines = self._records.on_content(work)
        if not lines:
            return None
        self.ways["narrow"] += 1
        return self._take(lines, asked, limit)

    def _indexed(
        self, space: int, asked: Matrix, limit: int, predicate: Predicate | None, state: IndexState
    ) -> list[Rows]:
        self.ways[state.kind] += 1
        settings = self._settings(limit, state)

        def work(cursor: Cursor, content: int) -> list[Any]:
            inline = None if predicate is not None else settings
            sql, parameters = self._statement(content, space, asked, limit, predicate, state.half, inline)
            return cursor.execute(sql, parameters).fetchall()

        # without a filter the statement sets them itself, which saves the transaction's round trips
        return self._take(self._records.on_content(work, settings if predicate is not None else None), asked, limit)

    def _settings(self, limit: int, state: IndexState) -> dict[str, str]:
        options = self._options
        if state.kind == "ivfflat":
            return {"ivfflat.probes": str(options.probes_for(state.records)), "ivfflat.iterative_scan": "relaxed_order"}
        visits = 4 * limit * state.records // self._narrow_limit(state.records, limit)
        return {
            "hnsw.ef_search": str(min(_MOST_EF, max(options.ef_search, 2 * limit))),
            "hnsw.iterative_scan": "relaxed_order",
            "hnsw.max_scan_tuples": str(max(20_000, visits)),
            "hnsw.scan_mem_multiplier": "4",
        }

    def _statement(
        self,
        content: int,
        space: int,
        asked: Matrix,
        limit: int,
        predicate: Predicate | None,
        half: bool | None,
        inline: dict[str, str] | None = None,
    ) -> tuple[bytes, dict[str, Any]]:
        """Return a search and its parameters; `half` as in `_compose`."""
        names = self._names
        self._check_dim(content, asked)
        parameters: dict[str, Any] = {"queries": vector_array(asked, self._records.server.vector_oid)}
        if predicate is not None:
            compiled = PredicateSql(names.records(content), names.terms(content))
            where = SQL(" AND {}").format(compiled.holds(predicate, SQL("r.row")))
            composed = self._compose(content, space, limit, half, where, inline)
            return composed.as_bytes(), parameters | compiled.parameters
        key = (content, space, limit, half, *(inline or {}).values())
        sql = self._texts.get(key, b"")
        if not sql:
            if len(self._texts) > _TEXTS:
                self._texts.clear()
            sql = self._texts[key] = self._compose(content, space, limit, half, SQL(""), inline).as_bytes()
        return sql, parameters

    def _compose(
        self,
        content: int,
        space: int,
        limit: int,
        half: bool | None,
        where: Composable,
        inline: dict[str, str] | None = None,
        before: LiteralString = "",
    ) -> Composed:
        """Return a search. `half` says what the index keeps; None is for an expression that no index is on."""
        names = self._names
        calls = [SQL(", set_config({}, {}, true)").format(setting, value) for setting, value in (inline or {}).items()]
        source: LiteralString = "{}(SELECT u.v, u.n{} FROM unnest(%(queries)b::{}[]) WITH ORDINALITY AS u (v, n))"
        queries = SQL(source).format(SQL(before), SQL("").join(calls), names.sql_type(half=False))
        on = (
            SQL("r.index_vector")
            if half is None
            else expression(names, "r.index_vector", self._records.dim_of(content), half=half)
        )
        query = SQL("q.v::{}").format(names.sql_type(half=True)) if half else SQL("q.v")
        inner = names.part(_INNER, content, on=on, query=query, space=space, where=where, limit=limit)
        return names.part(_OUTER, queries=queries, inner=inner)

    def _check_dim(self, content: int, asked: Matrix) -> None:
        if asked.shape[1] != self._records.dim_of(content):
            raise StaleConfigError("the collection's settings were changed meanwhile")

    def _take(self, lines: list[Any], asked: Matrix, limit: int) -> list[Rows]:
        found = [np.empty(0, np.int64) for _ in asked]
        for n, packed, distances in lines:
            rows = rows_from(packed)
            # an index hands them out nearly in order, and aggregates promise none
            found[n - 1] = rows[np.lexsort((rows, np.frombuffer(distances or b"", ">f8")))]
        return found
