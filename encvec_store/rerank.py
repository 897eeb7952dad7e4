"""Exact scores of opened vectors; imports handle, metrics."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from .backends import Rows
from .handle import Handle
from .metrics import Metric

__all__ = ["OpenedVectors", "best"]

_CHUNK = 8192


def best(
    metric: Metric,
    query: npt.NDArray[np.float32],
    vectors: npt.NDArray[np.float32],
    places: npt.NDArray[np.intp] | None,
    k: int,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return (places, exact scores) of the k vectors nearest to a query, nearest first.

    Args:
        metric: the collection's.
        query: (dim,).
        vectors: (n, dim).
        places: which of the vectors take part; None for all.
        k: how many.
    """
    scores = np.concatenate(
        [metric.scores(query, part) for part in _parts(vectors if places is None else vectors[places])]
    )
    order = np.argsort(metric.order(scores), kind="stable")[:k]
    return (order if places is None else places[order]), scores[order]


def _parts(vectors: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    """Split so that double precision never doubles a large collection in memory."""
    return [vectors[start : start + _CHUNK] for start in range(0, max(1, len(vectors)), _CHUNK)]


class OpenedVectors:
    """All vectors of a collection, opened in this process: what the scheme `sealed` searches."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._rows: Rows = np.empty(0, np.int64)
        self._vectors = np.empty((0, handle.config.dim), np.float32)
        self._generation = -1
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Open what was written since the last time, and forget what was deleted."""
        with self._lock:
            generation = self._handle.backend.generation()
            if generation == self._generation:
                return
            now = self._readable(self._handle.backend.rows())
            kept = np.isin(self._rows, now, assume_unique=True)
            rows, vectors = [self._rows[kept]], [self._vectors[kept]]
            new = np.setdiff1d(now, self._rows, assume_unique=True)
            for start in range(0, len(new), _CHUNK):
                found, opened, _ = self._handle.open_vectors(new[start : start + _CHUNK])
                rows.append(found)
                vectors.append(opened)
            self._rows, self._vectors = np.concatenate(rows), np.concatenate(vectors)
            self._generation = generation

    def _readable(self, rows: Rows) -> Rows:
        """Leave out records under key versions that are disabled or destroyed."""
        live = set(self._handle.vault.live)
        if set(self._handle.backend.spaces()) <= live:
            return rows
        return np.array([row for row, space, _, _ in self._handle.backend.audit(rows) if space in live], np.int64)

    def nearest(self, query: npt.NDArray[np.float32], limit: int, allowed: Rows | None) -> Rows:
        """Return up to `limit` rows, exactly nearest first, among `allowed` where given."""
        rows, vectors = self._rows, self._vectors
        places = None if allowed is None else np.flatnonzero(np.isin(rows, allowed, assume_unique=True))
        if not len(rows) or (places is not None and not len(places)):
            return np.empty(0, np.int64)
        chosen, _ = best(self._handle.config.metric, query, vectors, places, limit)
        return rows[chosen]
