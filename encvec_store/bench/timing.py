"""Times queries in turns between variants, and scores answers against exact search; imports metrics.

A neighbour on the machine, a slower clock or a colder cache then meets every variant alike. The order changes
from query to query, so none always runs in the wake of the same other.
"""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..metrics import Metric

__all__ = ["Timed", "Truth", "interleave"]

Matrix = npt.NDArray[np.float32]
Progress = Callable[[int], None]
WARM_UP = 50
_BLOCK = 64
_SPARE = 50


@dataclass
class Timed:
    """One variant's latencies and answers."""

    seconds: list[float] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    """Of the first pass, one a query."""

    def row(self) -> dict[str, float]:
        """Median and 95% quantile in milliseconds, queries per second."""
        p50, p95 = np.quantile(self.seconds, [0.5, 0.95])
        return {"p50_ms": 1e3 * float(p50), "p95_ms": 1e3 * float(p95), "qps": len(self.seconds) / sum(self.seconds)}


def interleave(
    variants: Mapping[str, Callable[[Matrix], Any]],
    queries: Matrix,
    *,
    passes: int = 1,
    progress: Progress | None = None,
) -> dict[str, Timed]:
    """Ask every variant every query, one at a time; after a warm-up of up to 50 untimed queries each.

    Args:
        variants: name -> search of one (d,) query.
        queries: (q, d).
        passes: times that all queries are asked.
        progress: called with the number of queries done since the last call.
    """
    for query in queries[:WARM_UP]:
        for search in variants.values():
            search(query)
    timed = {name: Timed() for name in variants}
    names = list(variants)
    gc.collect()
    for turn in range(passes):
        for i, query in enumerate(queries):
            shift = (turn + i) % len(names)
            for name in names[shift:] + names[:shift]:
                search = variants[name]
                start = time.perf_counter()
                answer = search(query)
                took = time.perf_counter() - start
                timed[name].seconds.append(took)
                if not turn:
                    timed[name].answers.append(answer)
            if progress is not None:
                progress(1)
    return timed


class Truth:
    """Exact neighbours of queries in plaintext, by brute force."""

    def __init__(self, metric: Metric, vectors: Matrix, queries: Matrix, k: int) -> None:
        """Find the k nearest of (n, d) vectors to each of (q, d) queries."""
        self._metric, self._vectors, self._queries = metric, vectors, queries
        self.k = min(k, len(vectors))
        self.scores = np.empty((len(queries), self.k))
        """(q, k) exact scores of the true neighbours, nearest first."""
        squares = np.einsum("ij,ij->i", vectors, vectors)
        lengths = np.sqrt(squares)
        most = min(len(vectors), self.k + _SPARE)
        for start in range(0, len(queries), _BLOCK):
            rough = queries[start : start + _BLOCK] @ vectors.T
            if metric.name == "cosine":
                rough /= lengths
            elif metric.name == "l2":
                rough -= squares / 2
            near = np.argpartition(-rough, most - 1, axis=1)[:, :most]
            for i, some in enumerate(near, start):  # in double precision what single precision let through
                exact = metric.scores(queries[i], vectors[some])
                self.scores[i] = exact[np.argsort(metric.order(exact), kind="stable")[: self.k]]

    def part(self, queries: slice) -> Truth:
        """Return the truth of some of the queries."""
        some = copy.copy(self)
        some._queries, some.scores = self._queries[queries], self.scores[queries]
        return some

    def recall(self, answers: Sequence[npt.NDArray[np.int64]], k: int) -> float:
        """Share of the k nearest that were found: positions in the vectors, one array a query, nearest first.

        An answer counts if it is as near as the k-th neighbour (as in ann-benchmarks): of two equal records,
        either is right.
        """
        k = min(k, self.k)
        found = 0
        for query, limits, answer in zip(self._queries, self.scores, answers, strict=True):
            chosen = np.unique(np.asarray(answer, np.int64)[:k])
            if not len(chosen):
                continue
            limit = self._metric.order(limits[k - 1 : k])
            scores = self._metric.order(self._metric.scores(query, self._vectors[chosen]))
            found += int(np.count_nonzero(scores <= limit + 1e-6 * np.maximum(1, np.abs(limit))))
        return found / (k * len(self._queries))
