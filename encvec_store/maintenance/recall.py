"""Estimates the recall of live searches on a sample of the records.

Let M records be nearer to a query than the last of its k hits, but missing from the answer. Each costs at most one true
neighbour, so recall@k >= 1 - M / k. If a random sample of m of the N records holds c of them, M is about c N / m. Sums
of such rare counts are nearly Poisson, which gives the interval (Wilson and Hilferty's approximation to chi-square,
PNAS 17, 1931).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.arrays import Rows
from ..data.ids import Id
from ..data.metrics import as_array, as_vectors
from ..data.records import Hit
from ..data.values import integer, number
from ..engine.session import Session
from ..errors import EncvecError, InputError
from ..runtime.forks import Mutex

__all__ = ["RecallWatch"]

_Z = 1.96
_GROWN = 1.25
_HAIR = 1e-9

log = logging.getLogger("encvec_store")


class RecallWatch:
    """Checks a random share of the searches, and keeps totals."""

    def __init__(self, session: Session, share: float, size: int, *, hides: bool = False) -> None:
        if hides:
            raise InputError("recall cannot be watched under threat='watching-server': it reads records by the query")
        checked, records = number(share), integer(size)
        if checked is None or not 0 < checked <= 1:
            raise InputError(f"share must be a number from 0 to 1, got {share!r}")
        if records is None or records < 1:
            raise InputError(f"sample must be an integer >= 1, got {size!r}")
        self._session, self._share, self._size = session, checked, records
        self._lock = Mutex()
        self._rows: Rows = np.empty(0, np.int64)
        self._ids: list[Id] = []
        self._vectors: npt.NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._count = 0
        """Records in the collection when the sample was drawn."""
        self._checked = self._missed = 0
        self._scales = 0.0
        """Sum over the checks of how much recall each missing record of the sample costs."""

    def saw(self, queries: Any, k: int, hits: Sequence[Hit] | Sequence[Sequence[Hit]]) -> None:
        """Check a share of searches without a filter. Raises nothing."""
        matrix = as_array(queries, "queries")
        lists: Any = [hits] if matrix.ndim == 1 else hits
        matrix = matrix[None] if matrix.ndim == 1 else matrix
        for query, found in zip(matrix, lists, strict=True):
            if random.random() < self._share and len(found) == k:  # noqa: S311 - the choice is no secret
                try:
                    self._check(as_vectors(query[None], self._session.config.dim)[0], found)
                except EncvecError as error:
                    log.warning("a search could not be checked: %s", error)

    def stats(self) -> dict[str, Any]:
        """Return the estimate and its 95% interval; None before the first check."""
        with self._lock:
            report: dict[str, Any] = {"share": self._share, "sample": len(self._rows), "checked": self._checked}
            if not self._checked:
                return {**report, "recall": None, "low": None, "high": None}
            per_miss = self._scales / self._checked**2
            low, high = _poisson(self._missed)
            return {
                **report,
                "missed": self._missed,
                "recall": max(0.0, 1 - self._missed * per_miss),
                "low": max(0.0, 1 - high * per_miss),
                "high": max(0.0, 1 - low * per_miss),
            }

    def _check(self, query: npt.NDArray[np.float32], hits: Sequence[Hit]) -> None:
        metric = self._session.config.metric
        with self._lock:
            self._draw()
            if not len(self._rows):
                return
            nearness = metric.order(metric.scores(query, self._vectors))
            last = float(metric.order(np.array([hits[-1].score]))[0])
            answered = {hit.id for hit in hits}
            nearer = np.flatnonzero(nearness < last - _HAIR * max(1.0, abs(last)))
            missing = [place for place in nearer.tolist() if self._ids[place] not in answered]
            if missing:  # leave out records that were deleted or replaced since the sample was drawn
                there, _ = self._session.records.vectors(self._rows[missing])
                gone = [place for place in missing if self._rows[place] not in there]
                self._forget(gone)
                missing = [place for place in missing if place not in gone]
            scale = self._session.records.count() / (max(1, len(self._rows)) * len(hits))
            self._checked += 1
            self._missed += len(missing)
            self._scales += scale

    def _draw(self) -> None:
        """Draw a new sample if the collection's size has changed much."""
        count = self._session.records.count()
        if self._count and self._count / _GROWN < count < self._count * _GROWN:
            return
        rows = self._session.without(self._session.records.rows(), self._session.keyring.dead)
        if len(rows) > self._size:
            rows = np.sort(np.random.default_rng().choice(rows, self._size, replace=False))
        found, vectors, _ = self._session.open_vectors(rows)
        named, payloads, _ = self._session.open_payloads(found)
        kept = np.isin(found, named)
        self._rows, self._vectors = found[kept], vectors[kept]
        self._ids = [id for id, _, _ in payloads]
        self._count = count

    def _forget(self, places: list[int]) -> None:
        keep = np.ones(len(self._rows), bool)
        keep[places] = False
        self._rows, self._vectors = self._rows[keep], self._vectors[keep]
        self._ids = [id for id, kept in zip(self._ids, keep.tolist(), strict=True) if kept]


def _poisson(count: int) -> tuple[float, float]:
    """Return the 95% interval of the mean of a Poisson count."""
    n = count + 1
    high = n * (1 - 1 / (9 * n) + _Z / (3 * n**0.5)) ** 3
    low = 0.0 if not count else count * (1 - 1 / (9 * count) - _Z / (3 * count**0.5)) ** 3
    return low, high
