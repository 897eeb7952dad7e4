"""Exact scores of opened vectors; imports handle, metrics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data.metrics import Metric
from ..storage import Rows
from ..waits import Lock, offload
from .session import Handle

__all__ = ["OpenedVectors", "best"]

_CHUNK = 8192
_ATTEMPTS = 4


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
    compared = vectors if places is None else vectors[places]
    found = []
    for start in range(0, max(1, len(compared)), _CHUNK):  # else double precision would double a large collection
        part = compared[start : start + _CHUNK]
        near = metric.contenders(query, part, k)
        found.append((start + near, metric.scores(query, part[near])))
    chosen, scores = found[0] if len(found) == 1 else map(np.concatenate, zip(*found, strict=True))
    order = np.argsort(metric.order(scores), kind="stable")[:k]
    chosen = chosen[order]
    return (chosen if places is None else places[chosen]), scores[order]


class OpenedVectors:
    """All vectors of a collection, opened in this process: what the scheme `sealed` searches."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._opened = np.empty(0, np.int64), np.empty((0, handle.config.dim), np.float32)
        """Rows and their vectors: one attribute, as other threads read it while one refreshes."""
        self._seen: tuple[int, set[int]] | None = None
        self._lock = Lock()

    def refresh(self) -> None:
        """Open what was written since the last time, and forget what was deleted or may not be read any more."""
        if self._state() == self._seen:
            return
        with self._lock:
            state = self._state()
            if state == self._seen:
                return
            for _ in range(_ATTEMPTS):
                if self._update(state[1]):
                    break  # else some were written anew after they were listed, or all of them: look again
            self._seen = state

    def _update(self, dead: set[int]) -> bool:
        """Bring what is opened up to date; False where rows vanished meanwhile."""
        have, held = self._opened
        now = self._handle.without(self._handle.backend.rows(), dead)
        kept = np.isin(have, now, assume_unique=True)
        rows, vectors = [have[kept]], [held[kept]]
        new = np.setdiff1d(now, have, assume_unique=True)
        for start in range(0, len(new), _CHUNK):
            found, opened, _ = self._handle.open_vectors(new[start : start + _CHUNK])
            rows.append(found)
            vectors.append(opened)
        self._opened = np.concatenate(rows), offload(len(now), np.concatenate, vectors)
        return len(self._opened[0]) == len(now)

    def _state(self) -> tuple[int, set[int]]:
        return self._handle.backend.generation(), self._handle.vault.dead

    def __len__(self) -> int:
        return len(self._opened[0])

    def nearest(self, query: npt.NDArray[np.float32], limit: int, allowed: Rows | None) -> Rows:
        """Return up to `limit` rows, exactly nearest first, among `allowed` where given."""
        rows, vectors = self._opened
        places = None if allowed is None else np.flatnonzero(np.isin(rows, allowed, assume_unique=True))
        if not len(rows) or (places is not None and not len(places)):
            return np.empty(0, np.int64)
        chosen, _ = best(self._handle.config.metric, query, vectors, places, limit)
        return rows[chosen]
