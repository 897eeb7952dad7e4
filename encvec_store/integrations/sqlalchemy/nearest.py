"""Searches of a sealed column, in this process: candidates from a shared index, ranked by what the session sees.

One statement ranks the candidates and every entry that is newer than the index, in the session's own transaction. So
rows that it flushed count, rows that it deleted do not, and row-level security and the statement's WHERE decide.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, LargeBinary, Select, func, type_coerce
from sqlalchemy.orm import Session, scoped_session

from ...data.arrays import Matrix, Rows
from ...data.metrics import as_vectors
from ...errors import StoreUnreachableError
from ...runtime.concurrency import offload
from ...sealed_index import BUDGET, Listed, Snapshot
from ...sealed_index import nearest as candidates
from ...sealing.config import check_k
from ...storage.protocol import BUSY
from ..cipher import plain_array
from .building import build_soon
from .columns import column_of
from .context import Bind, connection_of
from .incarnations import commits_each
from .prepared import ColumnSearch, SearchStatements
from .search import Ranked, rerank
from .sharing import HEAD, SharedIndex
from .types import EncryptedVector
from .values import opened
from .waiting import in_any_session, to_the_end

__all__ = ["nearest", "nearest_async"]

_log = logging.getLogger("encvec_store")
_told: set[str] = set()
_ATTEMPTS = 16
_FEW = 2_000
"""A filter that so few rows pass runs first."""
_MORE = 4
"""With a filter that many rows pass, so many times the candidates are ranked."""
_CHUNK = 2_000
_HIDDEN = "row-level security applies to the table or to its companion"
_UNFOLLOWED = (
    "the table has no triggers, or they were disabled since, or do not see all rows (partitions, subscriptions)"
)
_VERSION = 25, 4
"""Position of the key version in a cell, from 1, and its size."""


@in_any_session
def nearest(bind: Bind, statement: Select[Any], column: Any, query: Any, k: int) -> list[Ranked]:
    """Return the k rows of a statement whose vectors are nearest to a query, with exact scores, nearest first.

        nearest(session, select(Item).where(Item.title != "draft"), Item.embedding, query, k=10)

    An index in this process, shared by all sessions, gives the candidates. It follows the table: commits of every
    client count, and what this session has flushed, also before it commits. With an async session: `nearest_async`.

    Args:
        bind: a session or connection.
        statement: a select, with any WHERE; its ORDER BY, LIMIT and OFFSET are replaced. Not one with GROUP BY, HAVING
            or DISTINCT ON.
        column: `Model.embedding`, or that of an alias or table.
        query: (dim,).
        k: number of rows to return.

    Raises:
        InputError: a bad query or k, or a statement whose rows are groups.
        AuthenticationError: a vector was altered or moved, or the keys are wrong.
        StoreUnreachableError: rows were replaced faster than they could be read.
    """
    kind: EncryptedVector = column_of(column).type  # type: ignore[assignment]
    k = check_k(k)
    if kind.paired:
        return rerank(bind, statement, query, k, column=column)
    asked = as_vectors(plain_array(query, "query")[None], kind.dim, name="query")
    kind.cipher.config.metric.check(asked, None, "query")
    connection = connection_of(bind, statement)
    session = bind() if isinstance(bind, scoped_session) else bind
    if isinstance(session, Session) and session.autoflush:
        session.flush()
    search = _Search(session, connection, statement, column, asked[0], k)
    for attempt in range(_ATTEMPTS):
        hits = search.hits(attempt)
        if hits is not None:
            return hits
    raise StoreUnreachableError(BUSY)


async def nearest_async(session: Any, statement: Select[Any], column: Any, query: Any, k: int) -> list[Ranked]:
    """Return what `nearest` returns, for an `AsyncSession`. Long computations run in a thread.

    If the task is cancelled, the session is not used any more when this returns.
    """
    found: list[Ranked] = await to_the_end(nearest, session.sync_session, statement, column, query, k)

    return found


class _Ranking(NamedTuple):
    """The best rows: their keys, scores, and the values they were opened from."""

    keys: list[tuple[Any, ...]]
    scores: dict[bytes, float]
    vectors: dict[bytes, Matrix]
    candidates: int
    """How many rows of the index were among those compared."""


class _Search:
    def __init__(
        self,
        bind: Session | Connection,
        connection: Connection,
        statement: Select[Any],
        column: Any,
        query: Matrix,
        k: int,
    ) -> None:
        self.bind, self.connection, self.statement, self.query, self.k = bind, connection, statement, query, k
        self.sql = ColumnSearch.of(column)
        self.kind = self.sql.kind
        self.asked, self.values = self.sql.asked(statement)

    def hits(self, attempt: int) -> list[Ranked] | None:
        """Search once. Returns None if rows were replaced meanwhile."""
        shared = SharedIndex(self.kind, self.connection, self.statement)
        state = shared.guess() if attempt == 0 else None
        ranking = None if state is None else self._by_index(shared, state, None)
        if ranking is None:
            shared.read()
            if not shared.followed:
                _tell(self.kind, _HIDDEN if shared.head.hidden else _UNFOLLOWED)
                return self._loaded(self._scanned())
            state = shared.state()
            if state is None:
                return self._loaded(self._scanned())
            ranking = self._by_index(shared, state, attempt)
        BUDGET.used(shared.index.sealed)
        build_soon(shared, self.connection, self.kind)
        return None if ranking is None else self._loaded(ranking)

    def _by_index(self, shared: SharedIndex, state: Snapshot, attempt: int | None) -> _Ranking | None:
        """Rank what the index names. Returns None to try again; without an attempt, the state is a guess."""
        guessed, attempt, sealed = attempt is None, attempt or 0, shared.index.sealed
        gone = 0 if guessed else shared.head.gone
        filtered = self.statement.whereclause is not None or bool(self.statement._with_options)
        wanted = state.needs(self.k)
        limit = wanted + gone
        allowed: Listed | None = None
        if filtered or attempt > 1:
            allowed = self._few_passing() if attempt <= 1 else self._all_passing()
            if allowed is None:
                limit *= _MORE
        for _ in range(2):
            queries = self.query[None]
            if guessed:  # nothing is fetched
                (rows,), _ = offload(state.tail.count // 16, state.nearest, queries, limit, allowed, sealed.gpus)
            else:
                state, (rows,), _ = candidates(shared.follower, sealed, state, queries, limit, allowed)
            ranking = self._ranked(rows, shared, state, guessed)
            if ranking is None:
                return None
            if ranking.candidates >= min(wanted, len(rows)) or (allowed is None and len(rows) < limit):
                return ranking
            if allowed is not None or (not filtered and attempt == 0):
                return None if attempt + 1 < _ATTEMPTS else ranking
            allowed, limit = self._all_passing(), wanted + gone
        return None

    def _few_passing(self) -> Listed | None:
        """Return the rows that the statement selects; None if they are more than `_FEW`, counting repeated ones."""
        values = {**self.values, "encvec_limit": _FEW + 1}
        found = self._rows(self.asked.passing(few=True), values)
        return None if len(found) > _FEW else _listed(found)

    def _all_passing(self) -> Listed:
        return _listed(self._rows(self.asked.passing(few=False), self.values))

    def _rows(self, asked: Any, values: dict[str, Any]) -> Any:
        """Run a statement that loads no objects: on the connection itself, unless somebody changes it on its way."""
        session = self.bind if isinstance(self.bind, Session) else None
        quick = session is None or not (session.dispatch.do_orm_execute or asked._with_options)
        return (self.connection if quick else self.bind).execute(asked, values).all()

    def _ranked(self, rows: Rows, shared: SharedIndex, state: Snapshot, guessed: bool) -> _Ranking | None:
        """Compare those of the rows that the session sees, and all entries that are newer than the index.

        Returns None if a guess was wrong, or if the index may not answer any more.
        """
        values = {**self.values, **shared.values(state.generation), "encvec_rows": rows.tolist()}
        every = self._rows(self.asked.ranked, values)
        head = shared.head_from(tuple(every[0][-HEAD:])) if every else None
        if guessed and (head is None or not shared.confirms(state, head)):
            return None
        if not guessed and head is not None and not shared.holds(head):
            return None
        found = [row[:-HEAD] for row in every if row[-HEAD - 1] is not None]
        best = _Best(self)
        best.add([tuple(row[1:-1]) for row in found], [bytes(row[-1]) for row in found])
        known = set(rows.tolist())
        return best.ranking(sum(row[0] in known for row in found))

    def _scanned(self) -> _Ranking:
        """Compare all vectors that the statement selects."""
        sql = self.sql
        cell = type_coerce(sql.element, LargeBinary())
        dead = [version.to_bytes(4, "big") for version in self.kind.cipher.dead]
        asked = SearchStatements(sql, self.statement).columns(*sql.loaded, sql.packed)
        asked = asked.where(cell.is_not(None), func.substring(cell, *_VERSION, type_=LargeBinary()).not_in(dead))
        best = _Best(self)
        # a cursor of the server, which a transaction must hold: so memory takes a part of the table
        options = {} if commits_each(self.connection) else {"yield_per": _CHUNK}
        with self.bind.execute(asked, execution_options=options) as found:
            for some in found.partitions(_CHUNK):
                best.add([tuple(row[:-1]) for row in some], [bytes(row[-1]) for row in some])
        return best.ranking(0)

    def _loaded(self, ranking: _Ranking) -> list[Ranked] | None:
        """Select the best rows; None if one was replaced or deleted since it was ranked."""
        if not ranking.keys:
            return []
        keys = [key[0] for key in ranking.keys] if len(self.sql.keys) == 1 else ranking.keys
        token = opened.set({(self.kind.cipher, packed): vector for packed, vector in ranking.vectors.items()})
        try:
            rows = self.bind.execute(self.asked.loaded, {**self.values, "encvec_keys": keys}).all()
        finally:
            opened.reset(token)
        scored = [(ranking.scores.get(bytes(row[-1] or b"")), row) for row in rows]
        if any(score is None for score, _ in scored) or len({bytes(row[-1]) for row in rows}) < len(ranking.keys):
            return None
        metric = self.kind.cipher.config.metric
        order = np.argsort(metric.order(np.array([score for score, _ in scored])), kind="stable")[: self.k]
        hits = [scored[i] for i in order]
        return [Ranked(row[0] if len(row) == 2 else tuple(row[:-1]), float(score or 0.0)) for score, row in hits]


class _Best:
    """Keeps the k nearest of all vectors that it is given."""

    def __init__(self, search: _Search) -> None:
        self._search = search
        self._rows: list[tuple[float, float, tuple[Any, ...], bytes, Matrix]] = []
        """Order, score, key, selected value and vector of the nearest so far."""

    def add(self, keys: list[tuple[Any, ...]], packed: list[bytes]) -> None:
        if not keys:
            return
        kind = self._search.kind
        first = {key: place for place, key in reversed(list(enumerate(keys)))}  # a join may repeat a row
        places = sorted(first.values())
        cells = [packed[place] for place in places]
        metric = kind.cipher.config.metric
        vectors: Matrix = offload(len(cells), kind.cipher.open, cells, bound=kind.require_identity)
        scores = metric.scores(self._search.query, vectors)
        order = metric.order(scores)
        known = {row[2] for row in self._rows}
        for i in np.argsort(order, kind="stable")[: self._search.k]:
            key = keys[places[i]]
            if key not in known:
                self._rows.append((float(order[i]), float(scores[i]), key, cells[i], vectors[i]))
        self._rows = sorted(self._rows, key=lambda row: row[0])[: self._search.k]

    def ranking(self, candidates: int) -> _Ranking:
        for *_, vector in self._rows:
            vector.setflags(write=False)
        return _Ranking(
            [key for _, _, key, _, _ in self._rows],
            {packed: score for _, score, _, packed, _ in self._rows},
            {packed: vector for *_, packed, vector in self._rows},
            candidates,
        )


def _listed(found: Any) -> Listed:
    return Listed(np.unique(np.array([row[0] for row in found], np.int64)))


def _tell(kind: EncryptedVector, why: str) -> None:
    place = kind.cipher.place
    if place not in _told:
        _told.add(place)
        _log.warning(
            "searches of %s open all vectors, because %s: see `follow` in the guide's part on SQLAlchemy", place, why
        )
