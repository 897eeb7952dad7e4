"""Candidates by an exact scan of opened vectors, for collections without index vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...data.arrays import Matrix, Rows
from ...data.filters import Predicate
from ...data.metrics import Metric
from ...data.partitions import version_of
from ...runtime.concurrency import Lock, offload
from ...sealing.config import CollectionConfig
from ...storage.protocol import union
from ..rerank import best
from ..session import Session
from .base import Asked, Found

__all__ = ["OpenedScan", "OpenedVectors"]

_CHUNK = 8192
_ATTEMPTS = 8


class OpenedScan:
    """Compares the queries with every opened vector. The candidates are the true nearest records."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._opened = OpenedVectors(session)

    def ask(self, config: CollectionConfig, queries: Matrix, predicate: Predicate | None) -> Asked:
        """Check the queries. The vectors are opened when candidates are asked for."""
        config.metric.check(queries, None, "queries")  # with an index, the lift of the queries does this
        return _Scan(self._session, self._opened, queries, predicate)


class _Scan:
    def __init__(self, session: Session, opened: OpenedVectors, queries: Matrix, predicate: Predicate | None) -> None:
        self._session, self._opened, self._queries, self._predicate = session, opened, queries, predicate

    def wanted(self, k: int, oversample: int) -> int:
        return k

    def candidates(self, limit: int, positions: list[int] | None = None) -> list[Rows]:
        opened, allowed = self._opened.current(self._predicate)
        chosen = range(len(self._queries)) if positions is None else positions
        metric, size = self._session.config.metric, len(opened.rows)
        return [offload(size, opened.nearest, metric, self._queries[i], limit, allowed) for i in chosen]

    def opened(self, limit: int) -> Found | None:
        return None

    def explain(self, k: int, oversample: int) -> list[str]:
        records, predicate = self._session.records, self._predicate
        rows = records.count() if predicate is None else len(records.rows(predicate))
        return [f"no index: {rows:,} vectors are opened and compared here"]


class Opened(NamedTuple):
    """Opened vectors: (n,) rows, ascending, and (n, dim) vectors."""

    rows: Rows
    vectors: Matrix

    def nearest(self, metric: Metric, query: Matrix, limit: int, allowed: Rows | None) -> Rows:
        """Return up to `limit` rows, nearest first; only rows of `allowed`, if that is given."""
        places = None if allowed is None else np.flatnonzero(np.isin(self.rows, allowed, assume_unique=True))
        if not len(self.rows) or (places is not None and not len(places)):
            return np.empty(0, np.int64)
        chosen, _ = best(metric, query, self.vectors, places, limit)
        return self.rows[chosen]


class _Moment(NamedTuple):
    """Opened vectors, and the state of the records that they belong to."""

    generation: int
    content: int
    dead: frozenset[int]
    """Key versions that could not be read."""
    opened: Opened


class OpenedVectors:
    """All vectors of a collection, opened, in memory."""

    def __init__(self, session: Session) -> None:
        self._session = session
        nothing = Opened(np.empty(0, np.int64), np.empty((0, session.config.dim), np.float32))
        self._moment = _Moment(-1, 0, frozenset(), nothing)
        """This is one attribute, because other threads read it while one replaces it."""
        self._lock = Lock()

    def current(self, predicate: Predicate | None) -> tuple[Opened, Rows | None]:
        """Return all opened vectors, and the rows that satisfy a predicate (None: all), as of the same moment."""
        records, moment, allowed = self._session.records, self._moment, None
        if moment.generation >= 0 and moment.dead == self._session.keyring.dead:
            if predicate is None:
                same = records.generation() == moment.generation
            else:
                changes, allowed = records.following(moment.generation, moment.content, predicate)
                same = changes is None
            if same:
                return moment.opened, allowed
        with self._lock:
            for _ in range(_ATTEMPTS):
                whole, allowed = self._update(predicate)
                if whole:
                    break  # otherwise some records were updated after they were listed: look again
            return self._moment.opened, allowed

    def _update(self, predicate: Predicate | None) -> tuple[bool, Rows | None]:
        """Open new records, and forget those that were deleted or whose key version was disabled.

        Returns (False if rows vanished before they were opened, the rows that satisfy the predicate).
        """
        records, moment, allowed = self._session.records, self._moment, None
        dead = frozenset(self._session.keyring.dead)
        since = (moment.generation, moment.content) if dead == moment.dead else (-1, 0)
        if predicate is None:
            changes = records.changes(*since)
        else:
            changes, allowed = records.following(*since, predicate)
        if changes is None:
            return True, allowed
        if changes.index_dim is None:
            records.generation()  # says that the collection is gone
        added = [rows for partition, rows in changes.added.items() if version_of(partition) not in dead]
        listed, (have, held) = np.sort(union(added)), moment.opened
        kept = np.isin(have, listed) if changes.whole else ~np.isin(have, changes.removed)
        rows, vectors = [have[kept]], [held[kept]]
        new = np.setdiff1d(listed, have, assume_unique=True)
        for start in range(0, len(new), _CHUNK):
            found, opened, _ = self._session.open_vectors(new[start : start + _CHUNK])
            rows.append(found)
            vectors.append(opened)
        now = Opened(*offload(sum(map(len, rows)), _in_order, rows, vectors))
        self._moment = _Moment(changes.generation, changes.content, dead, now)
        return sum(map(len, rows[1:])) == len(new), allowed


def _in_order(rows: list[Rows], vectors: list[Matrix]) -> tuple[Rows, Matrix]:
    """Join lists of rows and their vectors, ascending by row."""
    joined, matrix = np.concatenate(rows), np.concatenate(vectors)
    if (joined[1:] > joined[:-1]).all():
        return joined, matrix
    order = np.argsort(joined, kind="stable")
    return joined[order], matrix[order]
