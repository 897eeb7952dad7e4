"""Drift: do new records still fit the collection's profile?

Whitened data has mean 0 and equal variance in all directions. Rotation and noise keep this, up to the variance of the
noise itself. So index vectors show drift, and nothing more has to be kept than a thief would have anyway. With
r = beta / 4, an eigenvalue l of the sketches shows as (l + r^2) / (1 + r^2). In our experiments alignment attacks
stayed at chance up to a largest eigenvalue of 1.78. At 4.39, with the statistics of another corpus, they succeeded.

Even without drift the largest eigenvalue is above 1, because both samples are finite: for k dimensions, N records
fitted on and n records checked it is about ((1 + sqrt(a + b - a b)) / (1 - b))^2 with a = k / n, b = k / N (Wachter,
Annals of Statistics 8(5), 1980). The limit is at least a quarter above that. In the same way, the mean of n such
vectors has a mean square of (1 + r^2) / n + 1 / N by chance, distributed as a chi-square with k degrees of freedom.
Its limit is so large that at most one verdict in ten thousand exceeds it by chance (Wilson and Hilferty, PNAS 17(12),
1931).
"""

from __future__ import annotations

import logging

import numpy as np

from ..data.arrays import Kept
from ..runtime.forks import Mutex
from .base import Scheme
from .profile import Profile
from .strategy import Verdict

__all__ = ["Drift", "Verdict"]

LARGEST = 2.0
"""Eigenvalue of the sketches' covariance above which a profile is stale; 1 is a perfect fit."""
ABOVE_CHANCE = 1.25
MEAN = 0.1
"""Length of the sketches' mean above which a profile is stale; 0 is a perfect fit."""
MEAN_QUANTILE = 3.72
"""One normal variable in ten thousand exceeds so many standard deviations."""
PER_DIMENSION = 20
"""Records per dimension that a verdict needs. With fewer, chance alone makes an eigenvalue large."""


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

    def add(self, scheme: Scheme, profile: Profile | None, version: int, index_vectors: Kept) -> None:
        """Add (n, k) aligned index vectors, written under a scheme, its profile and a key version."""
        radius = scheme.watched(profile)
        if radius is None or profile is None:
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
            self.verdict = self._judge(radius, profile)
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

    def _judge(self, radius: float, profile: Profile) -> Verdict:
        k, mean = len(self._sum), self._sum / self._n
        noise = radius**2 * k / (k + 2)  # mean square length of a point of the ball
        seen = k * float(np.linalg.eigvalsh(self._products / self._n - np.outer(mean, mean))[-1])
        largest = seen * (1 + noise) - noise
        length = float(np.linalg.norm(mean)) * float(np.sqrt(1 + noise))
        a, b = k / self._n, k / profile.records
        chance = ((1 + np.sqrt(a + b - a * b)) / (1 - b)) ** 2
        largest_limit = max(LARGEST, ABOVE_CHANCE * float(chance))
        spread = 2 / (9 * k)
        mean_chance = ((1 + noise) / self._n + 1 / profile.records) * (1 - spread + MEAN_QUANTILE * spread**0.5) ** 3
        mean_limit = max(MEAN, mean_chance**0.5)
        return Verdict(
            round(largest, 4), round(length, 4), self._n, round(largest_limit, 4), round(mean_limit, 4), profile.digest
        )
