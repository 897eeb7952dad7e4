"""Simulations of searches under noise, on a sample of plaintext points.

A search scores its candidates exactly, so its recall is the share of the true k nearest that are among them. A
rotation changes no inner product, so none is drawn. With r = beta / 4, unit noise n and a stored point z, the noisy
score of a query q is

    q.(z + r n) / |z + r n|,    |z + r n|^2 = 1 + 2 r z.n + r^2 n.n

(without the division for `sap`). After three products each further beta costs one addition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..data.arrays import Matrix
from ..data.metrics import Centre, Metric
from .profile import Profile

__all__ = ["MAX_QUERIES", "Sample", "Trial", "ball", "plain_trial", "sketch_trial", "sketched"]

MAX_QUERIES = 300
_RESAMPLES = 1000


class Sample:
    """Points, some of them as queries, and each query's true nearest points without itself.

    Args:
        metric: the collection's metric.
        max_norm: the largest length of a vector, if the metric needs it.
        vectors: (n, dim), checked.
        seed: for the random choice of queries.
        centre: what the vectors are lifted from, if the scheme has that.
    """

    def __init__(
        self, metric: Metric, max_norm: float | None, vectors: Matrix, seed: int, centre: Centre | None = None
    ) -> None:
        n, rng = len(vectors), np.random.default_rng(seed)
        self.seed = seed
        self.chosen = rng.choice(n, min(MAX_QUERIES, n // 2), replace=False)
        self.points = metric.lift(vectors, max_norm, centre)
        self.queries = metric.lift_query(vectors[self.chosen], max_norm, centre)
        self.order = rng.permutation(n)
        self._exact = self.without_itself(self.queries @ self.points.T)
        self._nearest: dict[tuple[int, float], npt.NDArray[np.intp]] = {}

    def without_itself(self, scores: Matrix) -> Matrix:
        """Give each query's own point the lowest score."""
        scores[np.arange(len(self.chosen)), self.chosen] = -np.inf
        return scores

    def part(self, share: float) -> npt.NDArray[np.intp]:
        """Return the places of a random part of the sample."""
        return self.order[: round(share * len(self.order))]

    def nearest(self, k: int, share: float) -> npt.NDArray[np.intp]:
        """Return the places in `part(share)` of each query's true k nearest: (queries, k)."""
        known = self._nearest.get((k, share))
        if known is None:
            exact = self._exact[:, self.part(share)]
            most = min(k, exact.shape[1])
            known = self._nearest[k, share] = np.argpartition(-exact, most - 1, axis=1)[:, :most]
        return known


class Trial:
    """Noisy scores of a sample's queries and index vectors, for any beta."""

    def __init__(self, sample: Sample, stored: Matrix, asked: Matrix, *, sphere: bool) -> None:
        self._sample = sample
        noise = ball(np.random.default_rng(sample.seed), *stored.shape)
        self._clean = sample.without_itself(asked @ stored.T)
        self._noise = asked @ noise.T
        self._cross = 2 * np.einsum("ij,ij->i", stored, noise) if sphere else None
        self._square = np.einsum("ij,ij->i", noise, noise)

    def recalls(self, beta: float, k: int, candidates: Sequence[int], share: float = 1.0) -> npt.NDArray[np.float64]:
        """Return each query's recall for each number of candidates: (len(candidates), queries)."""
        keep = self._sample.part(share)
        r = np.float32(beta / 4)
        noisy = self._clean[:, keep] + r * self._noise[:, keep]
        if self._cross is not None:
            noisy /= np.sqrt(1 + r * self._cross[keep] + r * r * self._square[keep])
        hits = np.take_along_axis(noisy, self._sample.nearest(k, share), axis=1)
        n = noisy.shape[1]
        places = [max(0, n - count) for count in candidates]
        noisy.partition(sorted(set(places)), axis=1)
        return np.stack([(hits >= noisy[:, [place]]).mean(axis=1) for place in places])

    def low(self, beta: float, k: int, candidates: int, planned: int) -> float:
        """Return a lower bound of recall: the 5% quantile of a bootstrap over queries, extrapolated along log n."""
        recalls = self.recalls(beta, k, [candidates])[0]
        draws = np.random.default_rng(0).integers(0, len(recalls), (_RESAMPLES, len(recalls)))
        bound = float(np.quantile(recalls[draws].mean(axis=1), 0.05))
        if planned <= len(self._sample.order):
            return bound
        parts = (0.25, 0.5, 1.0)
        means = [self.recalls(beta, k, [candidates], part).mean() for part in parts[:-1]] + [recalls.mean()]
        slope = min(0.0, float(np.polyfit(np.log2(parts), means, 1)[0]))
        return bound + slope * float(np.log2(planned / len(self._sample.order)))


def plain_trial(sample: Sample, query_beta: float) -> Trial:
    """Simulate `sap`."""
    return Trial(sample, sample.points, _perturbed(sample, sample.queries, query_beta), sphere=False)


def sketch_trial(sample: Sample, profile: Profile, gamma: float, query_beta: float) -> Trial:
    """Simulate `sketch` under a profile."""
    scales = profile.eigenvalues.astype(np.float64)
    stored = sketched(sample.points, profile)
    asked = _unit((sample.queries - profile.mean) @ (profile.basis * scales**gamma).astype(np.float32))
    return Trial(sample, stored, _perturbed(sample, asked, query_beta), sphere=True)


def sketched(points: Matrix, profile: Profile) -> Matrix:
    """Whiten (n, dim) points by a profile and put them on the sphere: (n, k) sketches without rotation and noise."""
    scales = profile.eigenvalues.astype(np.float64)
    return _unit((points - profile.mean) @ (profile.basis * scales**-0.5).astype(np.float32))


def _perturbed(sample: Sample, queries: Matrix, beta: float) -> Matrix:
    return queries + np.float32(beta / 4) * ball(np.random.default_rng(sample.seed + 1), *queries.shape)


def _unit(points: Matrix) -> Matrix:
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    return (points / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def ball(rng: np.random.Generator, n: int, dim: int) -> Matrix:
    """Draw n points uniform in the unit ball."""
    g = rng.standard_normal((n, dim), dtype=np.float32)
    g *= (rng.random(n) ** (1 / dim) / np.linalg.norm(g, axis=1)).astype(np.float32)[:, None]
    return g
