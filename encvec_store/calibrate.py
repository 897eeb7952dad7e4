"""Choose the noise: the largest that still meets a recall target. Imports crypto.schemes, config, metrics, errors.

A search re-ranks `candidates` of the store's hints exactly, so its recall is the share of the true k
nearest that are among the candidates. That is simulated here on plaintext points: a rotation changes no
inner product, so with r = beta / 4 and unit noise n the noisy score is linear in r,

    (q + r' n') . (x + r n) = q.x + r q.n + r' n'.x + r r' n'.n,

and after four matrix products every further beta costs an addition.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .config import CollectionConfig
from .crypto.schemes.sap import Sap
from .errors import CalibrationError, InputError

__all__ = ["Calibration", "simulate"]

Matrix = npt.NDArray[np.float32]

MIN_SAMPLE = 100
MAX_SAMPLE = 20_000
MAX_QUERIES = 300
BETAS = tuple(np.round(np.arange(0.0, 6.01, 0.5), 2).tolist())
OVERSAMPLES = (1, 2, 5, 10, 20, 50)
_STEPS = 12
_RESAMPLES = 1000
_MAX_BETA = 8.0


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found, as it is kept with the collection."""

    beta: float
    """The noise chosen: the largest that meets the target."""
    oversample: int
    k: int
    target_recall: float
    recall: float
    """Simulated recall@k at `beta` on the sample."""
    recall_low: float
    """Lower bound of that: 5% quantile of a bootstrap over queries, extrapolated to `planned_size`."""
    sample_size: int
    planned_size: int
    queries: int
    seed: int
    frontier: list[dict[str, float]] = field(repr=False)
    """Simulated recall over a grid: rows of beta, candidates, recall."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def simulate(
    config: CollectionConfig,
    vectors: Matrix,
    *,
    k: int,
    target_recall: float,
    max_candidates: int,
    planned_size: int,
    seed: int = 0,
) -> Calibration:
    """Find the largest beta whose extrapolated lower recall bound meets the target.

    Args:
        config: the collection's settings; its scheme must be `sap`, whose query_beta is kept.
        vectors: (n, dim) sample, checked. Queries are drawn from it and do not find themselves.
        k: neighbours asked for.
        target_recall: share of the true k nearest to be found, below 1.
        max_candidates: records re-ranked per query.
        planned_size: records that the collection shall hold.
        seed: of the draw.

    Raises:
        CalibrationError: the target is missed even without noise, or the scheme has no noise.
        InputError: an argument is out of range.
    """
    query_beta = _noisy(config).query_beta
    k, max_candidates = _whole("k", k), _whole("max_candidates", max_candidates)
    planned_size, seed = _whole("planned_size", planned_size), _whole("seed", seed)
    if not 1 <= k <= max_candidates:
        raise InputError(f"k is from 1 to max_candidates ({max_candidates}), not {k}")
    if not isinstance(target_recall, int | float) or not 0 < target_recall < 1:
        raise InputError(f"target_recall is between 0 and 1, not {target_recall!r}")
    if len(vectors) < max(MIN_SAMPLE, 2 * k):
        raise CalibrationError(f"a sample of {len(vectors)} is too small; give at least {max(MIN_SAMPLE, 2 * k)}")
    rng = np.random.default_rng(seed)
    if len(vectors) > MAX_SAMPLE:
        vectors = vectors[rng.choice(len(vectors), MAX_SAMPLE, replace=False)]
    planned_size = max(planned_size, len(vectors))
    trial = _Trial(config, vectors, query_beta, rng)

    def low(beta: float) -> float:
        return trial.extrapolated(beta, k, max_candidates, planned_size)

    if low(0.0) < target_recall:
        raise CalibrationError(
            f"recall {target_recall:g} is out of reach with {max_candidates} candidates even without noise on "
            "what is stored: allow more candidates, or lower the scheme's query_beta"
        )
    good, bad = 0.0, _MAX_BETA
    for _ in range(_STEPS):
        middle = (good + bad) / 2
        good, bad = (middle, bad) if low(middle) >= target_recall else (good, middle)
    beta = float(np.floor(good * 100) / 100)
    return Calibration(
        beta=beta,
        oversample=-(-max_candidates // k),
        k=k,
        target_recall=target_recall,
        recall=float((trial.ranks(beta, k) < max_candidates).mean()),
        recall_low=low(beta),
        sample_size=len(vectors),
        planned_size=planned_size,
        queries=trial.queries,
        seed=seed,
        frontier=[
            {"beta": grid, "candidates": k * times, "recall": float((ranks < k * times).mean())}
            for grid in BETAS
            for ranks in [trial.ranks(grid, k)]
            for times in OVERSAMPLES
        ],
    )


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise InputError(f"{name} is a whole number, not {value!r}")
    return int(value)


def apply(config: CollectionConfig, found: Calibration) -> CollectionConfig:
    """Return the settings with the calibration's choice taken over."""
    scheme = replace(_noisy(config), beta=found.beta)
    return replace(config, scheme=scheme, oversample=found.oversample, calibration=found.to_dict())


def _noisy(config: CollectionConfig) -> Sap:
    if not isinstance(config.scheme, Sap):
        raise CalibrationError(f"scheme {config.scheme.name!r} has no noise to calibrate")
    return config.scheme


class _Trial:
    """Noisy scores of a sample's queries against it, for any beta."""

    def __init__(self, config: CollectionConfig, vectors: Matrix, query_beta: float, rng: np.random.Generator) -> None:
        n = len(vectors)
        chosen = rng.choice(n, min(MAX_QUERIES, n // 2), replace=False)
        points = config.metric.lift(vectors, config.max_norm)
        queries = config.metric.lift_query(vectors[chosen], config.max_norm)
        noise = _ball(rng, *points.shape)
        noisy_queries = queries + np.float32(query_beta / 4) * _ball(rng, *queries.shape)
        self.queries = len(chosen)
        self._exact = queries @ points.T
        self._clean = noisy_queries @ points.T
        self._noise = noisy_queries @ noise.T
        lines = np.arange(len(chosen))
        for scores in (self._exact, self._clean):
            scores[lines, chosen] = -np.inf  # a query is no answer to itself
        self._order = rng.permutation(n)
        self._nearest: dict[tuple[int, float], npt.NDArray[np.intp]] = {}

    def ranks(self, beta: float, k: int, part: float = 1.0) -> npt.NDArray[np.int64]:
        """Return the noisy rank (queries, k), from 0, of every query's true k nearest on a part of the sample."""
        keep = self._order[: round(part * len(self._order))]
        place = (k, part)
        if place not in self._nearest:
            self._nearest[place] = np.argpartition(-self._exact[:, keep], k - 1, axis=1)[:, :k]
        noisy = self._clean[:, keep] + np.float32(beta / 4) * self._noise[:, keep]
        scores = np.take_along_axis(noisy, self._nearest[place], axis=1)
        return np.stack([(noisy > scores[:, [i]]).sum(axis=1) for i in range(k)], axis=1)

    def extrapolated(self, beta: float, k: int, candidates: int, planned: int) -> float:
        """Return the lower bootstrap bound of recall, carried along log n to the planned size."""
        recalls = (self.ranks(beta, k) < candidates).mean(axis=1)
        draws = np.random.default_rng(0).integers(0, len(recalls), (_RESAMPLES, len(recalls)))
        bound = float(np.quantile(recalls[draws].mean(axis=1), 0.05))
        parts = (0.25, 0.5, 1.0)
        means = [(self.ranks(beta, k, part) < candidates).mean() for part in parts[:-1]] + [recalls.mean()]
        slope = min(0.0, float(np.polyfit(np.log2(parts), means, 1)[0]))
        return bound + slope * float(np.log2(planned / len(self._order)))


def _ball(rng: np.random.Generator, n: int, dim: int) -> Matrix:
    """Draw n points uniform in the unit ball."""
    g = rng.standard_normal((n, dim), dtype=np.float32)
    g *= (rng.random(n) ** (1 / dim) / np.linalg.norm(g, axis=1)).astype(np.float32)[:, None]
    return g
