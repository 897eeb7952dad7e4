"""Candidates by an exact scan of opened vectors, for collections without index vectors."""

from __future__ import annotations

import numpy as np

from ...data.arrays import Matrix, Rows
from ...data.filters import Predicate
from ...runtime.concurrency import Lock, offload
from ...sealing.config import CollectionConfig
from ..rerank import best
from ..session import Session
from .base import Asked, Found

__all__ = ["OpenedScan", "OpenedVectors"]

_CHUNK = 8192
_ATTEMPTS = 4


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
        self._opened.refresh()
        allowed = None if self._predicate is None else self._session.records.rows(self._predicate)
        chosen = range(len(self._queries)) if positions is None else positions
        size = len(self._opened)
        return [offload(size, self._opened.nearest, self._queries[i], limit, allowed) for i in chosen]

    def opened(self, limit: int) -> Found | None:
        return None

    def explain(self, k: int, oversample: int) -> list[str]:
        records, predicate = self._session.records, self._predicate
        rows = records.count() if predicate is None else len(records.rows(predicate))
        return [f"no index: {rows:,} vectors are opened and compared here"]


class OpenedVectors:
    """All vectors of a collection, opened, in memory."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._opened = np.empty(0, np.int64), np.empty((0, session.config.dim), np.float32)
        """Rows and their vectors. They are one attribute, because other threads read it during a refresh."""
        self._seen: tuple[int, set[int]] | None = None
        self._lock = Lock()

    def refresh(self) -> None:
        """Open new records, and forget those that were deleted or whose key version was disabled."""
        if self._state() == self._seen:
            return
        with self._lock:
            state = self._state()
            if state == self._seen:
                return
            for _ in range(_ATTEMPTS):
                if self._update(state[1]):
                    break  # otherwise records were written again after they were listed: look again
            self._seen = state

    def _update(self, dead: set[int]) -> bool:
        """Update the opened vectors; False if rows vanished meanwhile."""
        have, held = self._opened
        now = self._session.without(self._session.records.rows(), dead)
        kept = np.isin(have, now, assume_unique=True)
        rows, vectors = [have[kept]], [held[kept]]
        new = np.setdiff1d(now, have, assume_unique=True)
        for start in range(0, len(new), _CHUNK):
            found, opened, _ = self._session.open_vectors(new[start : start + _CHUNK])
            rows.append(found)
            vectors.append(opened)
        self._opened = np.concatenate(rows), offload(len(now), np.concatenate, vectors)
        return len(self._opened[0]) == len(now)

    def _state(self) -> tuple[int, set[int]]:
        return self._session.records.generation(), self._session.keyring.dead

    def __len__(self) -> int:
        return len(self._opened[0])

    def nearest(self, query: Matrix, limit: int, allowed: Rows | None) -> Rows:
        """Return up to `limit` rows, nearest first; only rows of `allowed`, if that is given."""
        rows, vectors = self._opened
        places = None if allowed is None else np.flatnonzero(np.isin(rows, allowed, assume_unique=True))
        if not len(rows) or (places is not None and not len(places)):
            return np.empty(0, np.int64)
        chosen, _ = best(self._session.config.metric, query, vectors, places, limit)
        return rows[chosen]
