"""Finds candidates: chooses a way to search, and runs its statement.

    few records, many candidates       exact: every record of the partition is compared
    a filter that few records pass     narrow: they are listed by the index on terms, and compared exactly
    otherwise                          index: HNSW (of vectors or signs) or IVFFlat, the filter checked on the way

If an index gives fewer candidates than asked for, the exact way is used. A search of one query is one statement, which
also returns the sealed vectors.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...data.arrays import Matrix, Rows
from ...data.filters import Predicate
from ...errors import StoreError
from ...storage.postgres.reading import joined
from ...storage.postgres.records import PostgresRecords
from ...storage.postgres.source import Cursor
from ...storage.postgres.wire import rows_from
from ...storage.protocol import union
from ..protocol import Nearest, Probes, share
from .building import Indexer, IndexState
from .statements import Ask, Statements, Way

__all__ = ["Searcher"]

log = logging.getLogger("encvec_store")

_MOST_EF = 1000
_LEAST_NARROW = 1_000
_MOST = 1 << 40
"""The most candidates to ask for: more than a table can hold, and no overflow in the server."""
_VISIT_COST = 6.0
"""Cost of one step in a graph, relative to comparing one listed record."""
_VISITS = 20_000
"""The most HNSW nodes that the server visits by default."""
_LOOK_AGAIN = 5.0
"""Seconds after which to look again which indexes exist."""
_BUILD_AGAIN = 300.0
"""Seconds after which a search tries again to build an index, if it could not be built."""
_NUMBERS = re.compile(r"'\[[-+.,e0-9]{40,}\]'")
"""A query vector in a plan. It is not shown to people."""
_JIT_ABOVE = 100_000
"""Records above which the server might compile an exact scan (JIT), which costs more than it saves."""


class Searcher:
    """Finds candidates in one collection."""

    def __init__(self, records: PostgresRecords) -> None:
        self._records = records
        self._options = records.source.options
        self._indexer = Indexer(records)
        self._states: dict[int, IndexState] = {}
        self._seen = -_LOOK_AGAIN
        self._warned = self._told = False
        self._build_after = 0.0
        self._statements = Statements(records)
        self.ways: Counter[str] = Counter()
        """Counts of searches by way; `short` counts those for which an index gave too few candidates."""

    def candidates(self, probes: Probes, limit: int, predicate: Predicate | None) -> list[Rows]:
        """Return up to `limit` rows for each query, nearest first."""
        return self._search(probes, limit, predicate, whole=False).lists

    def nearest(self, probes: Probes, limit: int, predicate: Predicate | None) -> Nearest:
        """Return the same rows in any order, with their envelopes."""
        if len(next(iter(probes.values()))) == 1:
            return self._search(probes, limit, predicate, whole=True)
        lists = self.candidates(probes, limit, predicate)
        return Nearest(lists, *self._records.vectors(union(lists)))

    def _search(self, probes: Probes, limit: int, predicate: Predicate | None, *, whole: bool) -> Nearest:
        """Return candidates; with `whole`, for one query, also envelopes and small payloads."""
        limit = min(limit, _MOST)
        ask = Ask(
            {partition: np.ascontiguousarray(part, np.float32) for partition, part in probes.items()},
            limit,
            predicate,
            whole,
        )
        if self._records.server.pgvector is None:  # others created it since, for the index vectors of a new scheme
            self._records.find_extension()
        if ask.dim != self._records.dim_of(self._records.content):
            self._records.catch_up()  # another process has encrypted the collection anew
            self.look_again()
            self._statements.fit(self._records.content, ask)
        if not ask.dim or not ask.count or limit <= 0:
            return self._take(ask, [])
        states = {partition: state for partition in ask.probes if (state := self._state(partition)) is not None}
        state = _together(states)
        if state is None or state.kind == "none" or share(limit, len(ask.probes)) > _MOST_EF:
            return self._exact(ask, state)
        if predicate is not None:
            found = self._narrow(ask, self._narrow_limit(state.records, limit))
            if found is not None:
                return found
        found = self._indexed(ask, states, state)
        if all(len(rows) == limit for rows in found.lists):
            return found
        self.ways["short"] += 1
        exact = self._exact(ask, state)
        if not self._told and sum(map(len, exact.lists)) > sum(map(len, found.lists)):
            self._told = True
            log.warning(
                "collection %r: its %s index gave fewer candidates than asked for, so all records were compared:"
                " no answer is lost, but that is slow (told once; stats() counts them as short). Raise %s, or filter"
                " on fields that select fewer records",
                self._records.spec.called,
                state.kind,
                "probes" if state.kind == "ivfflat" else "ef_search",  # bit is a graph too
            )
        return exact

    def states(self, *, fresh: bool = False) -> dict[int, IndexState]:
        """Return how each partition is indexed, as of a few seconds ago unless `fresh`."""
        if fresh or time.monotonic() > self._seen + _LOOK_AGAIN:
            counts = self._records.partitions()
            self._states = self._records.on_content(
                lambda cursor, content: self._indexer.states(cursor, content, counts)
            )
            self._seen = time.monotonic()
        return self._states

    def size(self) -> int:
        """Return the bytes of the indexes on the server."""
        return self._records.on_content(self._indexer.size)

    def build(self, partition: int | None = None) -> None:
        """Build what is missing, for one partition or all."""
        self._records.find_extension()
        for number, state in self.states(fresh=True).items():
            if state.wanted not in (state.kind, "none") and partition in (None, number):
                content = self._records.content
                try:
                    self._indexer.build(content, number, state)
                except StoreError:
                    if not self._records.replaced(content):
                        raise
                    break  # by new tables, with their indexes
        self.states(fresh=True)

    def index_new(self, cursor: Cursor, content: int, counts: dict[int, int], dim: int) -> None:
        """Index tables that `replace` has filled."""
        self._indexer.build_new(cursor, content, counts, dim)
        self.look_again()

    def look_again(self) -> None:
        """Look which indexes exist before the next search."""
        self._seen = -_LOOK_AGAIN

    def explain(self, partition: int, query: Matrix, limit: int, predicate: Predicate | None = None) -> str:
        """Describe the way of a search of one query, with the server's plan. Builds no index."""
        state = self.states(fresh=True).get(partition)
        if state is None:
            return "nothing to compare"
        indexed = state.kind != "none" and limit <= _MOST_EF
        ask = Ask({partition: query.reshape(1, -1)}, limit, predicate, whole=True)
        ways = [(f"{state.kind} index", self._way(state, limit)) if indexed else ("scan", Way("exact"))]
        if indexed and predicate is not None:
            most = self._narrow_limit(state.records, limit)
            ways.insert(0, (f"filter first, which at most {most:,} records pass", Way("narrow", most=most)))

        def work(cursor: Cursor, content: int) -> tuple[str, str, list[Any]]:
            passing = (
                "" if predicate is None else f"{self._statements.passing(cursor, content, partition, predicate):,} of "
            )
            for name, way in ways:
                sql, parameters = self._statements.search(content, ask, way)
                if way.kind != "narrow" or cursor.execute(sql, parameters).fetchall():
                    return name, passing, cursor.execute(b"EXPLAIN (COSTS OFF) " + sql, parameters).fetchall()
            raise AssertionError("unreachable")

        way, passing, plan = self._records.on_content(work)
        shown = [_NUMBERS.sub(f"'[{query.size} numbers]'", line) for (line,) in plan]
        return "\n".join([f"{way}, {passing}{state.records:,} records", *(f"  {line}" for line in shown)])

    def _state(self, partition: int) -> IndexState | None:
        state = self.states().get(partition)
        if state is None or state.kind != "none" or state.wanted == "none":
            return state
        if state.records <= self._options.index_in_search:
            if time.monotonic() > self._build_after:
                self._try_to_build(partition)
        elif not self._warned:
            self._warned = True
            log.warning(
                "collection %r has %d records and no index, so searches compare them all: call flush() to build it",
                self._records.spec.called,
                state.records,
            )
        return self._states.get(partition)

    def _try_to_build(self, partition: int) -> None:
        """Build an index if the server allows it. A replica, or a role that may only read, is searched without."""
        try:
            self.build(partition)
        except StoreError as error:
            self._build_after = time.monotonic() + _BUILD_AGAIN
            log.warning("searches of collection %r compare all records: %s", self._records.spec.called, error)

    def _narrow_limit(self, records: int, limit: int) -> int:
        """Return how many passing records are still cheaper to list and compare than a filtered walk of the graph."""
        return max(_LEAST_NARROW, 2 * limit, int((_VISIT_COST * limit * records) ** 0.5))

    def _exact(self, ask: Ask, state: IndexState | None) -> Nearest:
        self.ways["exact"] += 1
        # it must be set before the statement is planned, which costs round trips
        settings = {"jit": "off"} if state is None or state.records > _JIT_ABOVE else None

        def work(cursor: Cursor, content: int) -> list[Any]:
            return cursor.execute(*self._statements.search(content, ask, Way("exact"))).fetchall()

        return self._take(ask, self._records.on_content(work, settings))

    def _narrow(self, ask: Ask, most: int) -> Nearest | None:
        def work(cursor: Cursor, content: int) -> list[Any]:
            return cursor.execute(*self._statements.search(content, ask, Way("narrow", most=most))).fetchall()

        lines = self._records.on_content(work)
        if not lines:
            return None
        self.ways["narrow"] += 1
        return self._take(ask, lines)

    def _indexed(self, ask: Ask, states: dict[int, IndexState], state: IndexState) -> Nearest:
        self.ways[state.kind] += 1
        way = self._way(state, ask.limit, len(ask.probes))
        if len(ask.probes) > 1:  # a partition may have got its first records since we looked
            served = {partition for partition, other in states.items() if other.kind == state.kind}
            way = replace(way, scanned=tuple(partition for partition in ask.probes if partition not in served))

        def work(cursor: Cursor, content: int) -> list[Any]:
            return cursor.execute(*self._statements.search(content, ask, way)).fetchall()

        return self._take(ask, self._records.on_content(work))

    def _way(self, state: IndexState, limit: int, partitions: int = 1) -> Way:
        """Return how to search the indexes of some partitions, so that they give `limit` candidates together."""
        options, limit, records = self._options, share(limit, partitions), state.records // partitions
        if state.kind == "ivfflat":
            probes = ("ivfflat.probes", str(options.probes_for(records)))
            return Way(state.kind, state.storage, (probes, ("ivfflat.iterative_scan", "relaxed_order")))
        wide = min(_MOST_EF, limit * options.bit_oversample) if state.kind == "bit" else limit
        ef = min(_MOST_EF, max(share(options.ef_search, partitions), wide))
        settings = [("hnsw.ef_search", str(ef)), ("hnsw.iterative_scan", "relaxed_order")]
        visits = 4 * wide * records // self._narrow_limit(records, wide)
        if visits > _VISITS:
            settings.append(("hnsw.max_scan_tuples", str(visits)))
        return Way(state.kind, state.storage, (*settings, ("hnsw.scan_mem_multiplier", "4")), wide=wide)

    def _take(self, ask: Ask, lines: list[Any]) -> Nearest:
        size = self._records.spec.envelope_size
        if ask.whole:
            numbers, envelopes, payloads = zip(*lines, strict=True) if lines and lines[0][0] is not None else ((),) * 3
            rows = np.array(numbers, np.int64)
            vectors = np.frombuffer(joined(envelopes, size), np.uint8).reshape(-1, size)
            small = dict(zip(numbers, payloads, strict=True))
            if None in payloads:  # too large to come along
                small = {row: payload for row, payload in small.items() if payload is not None}
            return Nearest([rows], rows, vectors, small)
        found = [np.empty(0, np.int64) for _ in range(ask.count)]
        for n, packed, distances in lines:
            rows = rows_from(packed)
            # an index gives them nearly in order, and aggregates keep no order
            found[n - 1] = rows[np.lexsort((rows, np.frombuffer(distances or b"", ">f8")))]
        return Nearest(found, np.empty(0, np.int64), np.empty((0, size), np.uint8))


def _together(states: Mapping[int, IndexState]) -> IndexState | None:
    """Return the state of the largest indexed partition, with the record count of all."""
    if len(states) < 2:
        return next(iter(states.values()), None)
    largest = max(states.values(), key=lambda state: (state.kind != "none", state.records))
    return replace(largest, records=sum(state.records for state in states.values()))
