"""What exact search finds, and how near others come to it: recall, distance ratio, nDCG."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ...data import Matrix, Metric, Rows
from .source import Judged, Vectors, VectorSource

__all__ = ["Answers", "Truth", "ndcg"]

_BLOCK = 64
_SPARE = 50
_CHUNK = 50_000
_EQUAL = 1e-6


class Truth:
    """Exact neighbours of queries in plaintext, by brute force over slices of the vectors."""

    def __init__(
        self,
        metric: Metric,
        vectors: VectorSource | Vectors,
        queries: Matrix,
        k: int,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Find the k nearest of (n, d) vectors to each of (q, d) queries; `progress` gets vectors done."""
        self.metric, self.queries = metric, queries
        self._source = vectors if isinstance(vectors, VectorSource) else VectorSource(vectors)
        self.k = min(k, len(self._source))
        most = min(len(self._source), self.k + _SPARE)
        near = np.full((len(queries), most), -np.inf, np.float32), np.full((len(queries), most), -1, np.int64)
        for first, some in self._source.slices():
            for start in range(0, len(queries), _BLOCK):
                part = slice(start, start + _BLOCK)
                _merge(near[0][part], near[1][part], self._rough(queries[part], some), first)
            if progress is not None:
                progress(len(some))
        self.positions = np.empty((len(queries), self.k), np.int64)
        """(q, k) positions of the true neighbours, nearest first."""
        self.scores = np.empty((len(queries), self.k))
        """(q, k) their exact scores."""
        # in double precision what single precision let through
        for i, (places, scores) in enumerate(zip(near[1], self._exact(list(near[1])), strict=True)):
            nearest = np.argsort(metric.order(scores), kind="stable")[: self.k]
            self.positions[i], self.scores[i] = places[nearest], scores[nearest]

    def _rough(self, queries: Matrix, vectors: Matrix) -> Matrix:
        rough: Matrix = queries @ vectors.T
        if self.metric.name != "ip":
            squares = np.einsum("ij,ij->i", vectors, vectors)
            if self.metric.name == "cosine":
                rough /= np.sqrt(squares)
            else:
                rough -= squares / 2
        return rough

    def _exact(self, answers: Sequence[Rows]) -> list[npt.NDArray[np.float64]]:
        """Return exact scores of positions, one array a query. Fetches each vector once."""
        sizes = [len(answer) for answer in answers]
        if not sum(sizes):
            return [np.empty(0) for _ in answers]
        wanted = np.unique(np.concatenate([np.asarray(answer, np.int64) for answer in answers]))
        scores = [np.empty(size) for size in sizes]
        for start in range(0, len(wanted), _CHUNK):
            here = wanted[start : start + _CHUNK]
            vectors = self._source.rows(here)
            for query, answer, out in zip(self.queries, answers, scores, strict=True):
                at = np.searchsorted(here, answer)
                mine = np.flatnonzero((at < len(here)) & (here[np.minimum(at, len(here) - 1)] == answer))
                if len(mine):
                    out[mine] = self.metric.scores(query, vectors[at[mine]])
        return scores

    def part(self, queries: slice) -> Truth:
        """Return the truth of some of the queries."""
        some = copy.copy(self)
        some.queries, some.scores, some.positions = (
            self.queries[queries],
            self.scores[queries],
            self.positions[queries],
        )
        return some

    def found(self, answers: Sequence[Rows]) -> Answers:
        """Score answers: positions in the vectors, one array a query, nearest first; -1 is nothing."""
        clean = [np.asarray(answer, np.int64) for answer in answers]
        clean = [answer[answer >= 0] for answer in clean]
        return Answers(self, clean, self._exact(clean))

    def recall(self, answers: Sequence[Rows], k: int) -> float:
        """Share of the k nearest that were found; see `Answers.recall`."""
        return self.found(answers).recall(k)


class Answers:
    """Answers with their exact scores."""

    def __init__(self, truth: Truth, answers: Sequence[Rows], scores: Sequence[npt.NDArray[np.float64]]) -> None:
        self._truth, self.answers, self.scores = truth, answers, scores

    def recall(self, k: int) -> float:
        """Share of the k nearest that were found.

        An answer counts if it is as near as the k-th neighbour (as in ann-benchmarks): of two equal records,
        either is right.
        """
        k = min(k, self._truth.k)
        order, right = self._truth.metric.order, 0
        for limits, answer, scores in zip(self._truth.scores, self.answers, self.scores, strict=True):
            _, once = np.unique(answer[:k], return_index=True)
            limit = order(limits[k - 1 : k])
            right += int(np.count_nonzero(order(scores[once]) <= limit + _EQUAL * np.maximum(1, np.abs(limit))))
        return right / (k * len(self.answers)) if len(self.answers) else 0.0

    def ratio(self, k: int) -> float | None:
        """Distances of the first k answers over those of the k nearest, in sum: 1 is exact. None for `ip`.

        Of cosine, Euclidean distances of the normalised vectors. As `rel` in ann-benchmarks; short answers are
        compared with as many neighbours.
        """
        distance, mine, best = self._truth.metric, 0.0, 0.0
        if distance.name == "ip":
            return None
        for limits, scores in zip(self._truth.scores, self.scores, strict=True):
            count = min(k, len(scores), len(limits))
            for total, values in ((0, scores), (1, limits)):
                some = values[:count] if distance.name == "l2" else np.sqrt(np.maximum(0, 2 - 2 * values[:count]))
                if total:
                    best += float(some.sum())
                else:
                    mine += float(some.sum())
        return mine / best if best else None

    def distances(self) -> list[npt.NDArray[np.float64]]:
        """Return distances as ann-benchmarks keeps them: 1 - cosine, Euclidean, or minus the inner product."""
        name = self._truth.metric.name
        return [1 - s if name == "cosine" else s if name == "l2" else -s for s in self.scores]


def ndcg(judged: Judged, answers: Sequence[Rows], k: int) -> float | None:
    """Normalised discounted cumulative gain at k (Järvelin and Kekäläinen, ACM TOIS 2002), over queries with any.

    Gains are used as they are, discounted by log2(rank + 1).
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    got = []
    for query, answer in enumerate(answers):
        best = judged.best(query, k)
        if not len(best):
            continue
        gains = judged.gains(query, np.asarray(answer[:k], np.int64))
        got.append(float(gains @ discount[: len(gains)]) / float(best @ discount[: len(best)]))
    return float(np.mean(got)) if got else None


def _merge(scores: Matrix, places: Rows, new: Matrix, first: int) -> None:
    """Keep the best of what is kept (rows of `scores`, `places`) and of (q, m) new scores, in no order."""
    most = scores.shape[1]
    if new.shape[1] > most:
        chosen = np.argpartition(-new, most - 1, axis=1)[:, :most]
        new = np.take_along_axis(new, chosen, axis=1)
    else:
        chosen = np.broadcast_to(np.arange(new.shape[1]), new.shape)
    both = np.concatenate([scores, new], axis=1)
    where = np.concatenate([places, chosen + first], axis=1)
    keep = np.argpartition(-both, most - 1, axis=1)[:, :most]
    scores[:] = np.take_along_axis(both, keep, axis=1)
    places[:] = np.take_along_axis(where, keep, axis=1)
