"""Drift: do new records still fit the collection's profile?

Whitened data has mean 0 and equal variance in all directions. Rotation and noise keep this, up to the variance of the
noise itself. So index vectors show drift, and nothing more has to be kept than a thief would have anyway. With
r = beta / 4, an eigenvalue l of the sketches shows as (l + r^2) / (1 + r^2). In our experiments alignment attacks
stayed at chance up to a largest eigenvalue of 1.78. At 4.39, with the statistics of another corpus, they succeeded.

Even without drift the largest eigenvalue is above 1 and the mean is not 0. Both samples are finite, noise adds to the
chance error, and a collection in tight clusters is not white on the sphere under any profile. How much that comes to
depends on the data, so it is measured when the profile is fitted: the sample is cut in halves, a profile of one half is
checked with records of the other (cross-validation: Stone, JRSS B 36(2), 1974). The limits lie above the worst that
this showed, and never below LARGEST and MEAN.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from ..data.arrays import Kept, Matrix
from ..runtime.forks import Mutex
from .base import Scheme
from .profile import Profile, Wide, fit
from .simulation import ball, sketched
from .strategy import Verdict

__all__ = ["Drift", "Verdict", "undrifted"]

LARGEST = 2.0
"""Eigenvalue of the sketches' covariance above which a profile is stale; 1 is a perfect fit."""
MEAN = 0.1
"""Length of the sketches' mean above which a profile is stale; 0 is a perfect fit."""
LARGEST_MARGIN, MEAN_MARGIN = 1.25, 1.5
"""How far above the worst figures of undrifted data the limits lie: a false alarm in a few thousand verdicts."""
PER_DIMENSION = 20
"""Records per dimension that a verdict needs. With fewer, chance alone makes an eigenvalue large."""
_VERDICTS = 10
"""Verdicts on undrifted data, at least, unless the sample is too small. The worst of them counts."""


log = logging.getLogger("encvec_store")


class Drift:
    """Adds up what this process writes, and gives a verdict whenever there is enough."""

    def __init__(self) -> None:
        self._lock = Mutex()
        self._place: tuple[Scheme, int] | None = None
        self._clear(0)
        self.verdict: Verdict | None = None
        self._told: str | None = None
        """Digest of the profile that was last warned about, so that sorted input does not cause many warnings."""

    def _clear(self, k: int) -> None:
        self._n, self._sum, self._products = 0, np.zeros(k), np.zeros((k, k))

    def add(
        self,
        scheme: Scheme,
        profile: Profile | None,
        version: int,
        index_vectors: Kept,
        undrifted: Mapping[str, float] | None,
    ) -> None:
        """Add (n, k) aligned index vectors, written under a scheme, its profile and a key version.

        `undrifted` are the figures that were measured when the profile was fitted. Without them nothing is judged.
        """
        radius = scheme.watched(profile)
        if radius is None or profile is None or undrifted is None:
            return
        index_vectors = index_vectors.astype(np.float32, copy=False)
        k = index_vectors.shape[1]
        with self._lock:
            if self._place != (scheme, version):  # another rotation
                self._place = scheme, version
                self._clear(k)
            self._n += len(index_vectors)
            self._sum += index_vectors.sum(axis=0, dtype=np.float64)
            self._products += index_vectors.T @ index_vectors
            if self._n < PER_DIMENSION * k:
                return
            self.verdict = self._judge(radius, profile, undrifted)
            self._clear(k)
            news = self.verdict.stale and self._told != profile.digest
            if news:
                self._told = profile.digest
        if news:
            log.warning(
                "the profile no longer fits new records (largest eigenvalue %.2f, mean %.2f), so the sketch protects "
                "less than it should. It is fitted again when the collection has doubled, or by refit()",
                self.verdict.largest,
                self.verdict.mean,
            )

    def _judge(self, radius: float, profile: Profile, undrifted: Mapping[str, float]) -> Verdict:
        largest, length = _figures(self._n, self._sum, self._products, radius)
        limits = max(LARGEST, LARGEST_MARGIN * undrifted["largest"]), max(MEAN, MEAN_MARGIN * undrifted["mean"])
        return Verdict(
            round(largest, 4), round(length, 4), self._n, round(limits[0], 4), round(limits[1], 4), profile.digest
        )


def undrifted(points: Matrix, k: int, radius: float) -> dict[str, float]:
    """Return the largest eigenvalue and mean that sketches of (n, dim) points show although nothing has drifted.

    Args:
        points: the sample that a profile is fitted on.
        k: dimensions of the profile.
        radius: of the noise.
    """
    rng = np.random.default_rng(0)
    order = rng.permutation(len(points))
    halves = order[: len(points) // 2], order[len(points) // 2 :]
    found: list[tuple[float, float]] = []
    for fitted_on, judged in (halves, halves[::-1]):
        if len(found) >= _VERDICTS:
            break
        profile = fit(points[fitted_on]).cut(k)
        size = min(PER_DIMENSION * k, len(judged))
        for start in range(0, len(judged) - size + 1, size):
            sketches = sketched(points[judged[start : start + size]], profile)
            sketches += np.float32(radius) * ball(rng, *sketches.shape)
            sketches /= np.linalg.norm(sketches, axis=1, keepdims=True)
            moments = sketches.sum(axis=0, dtype=np.float64), (sketches.T @ sketches).astype(np.float64)
            found.append(_figures(size, *moments, radius))
    largest, mean = (round(max(figures), 4) for figures in zip(*found, strict=True))
    return {"largest": largest, "mean": mean}


def _figures(n: int, total: Wide, products: Wide, radius: float) -> tuple[float, float]:
    """Return the largest eigenvalue and the length of the mean of n sketches without their noise, from their sums."""
    k, mean = len(total), total / n
    noise = radius**2 * k / (k + 2)  # mean square length of a point of the ball
    seen = k * float(np.linalg.eigvalsh(products / n - np.outer(mean, mean))[-1])
    return seen * (1 + noise) - noise, float(np.linalg.norm(mean)) * float(np.sqrt(1 + noise))
