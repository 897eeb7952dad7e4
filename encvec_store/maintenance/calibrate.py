"""Choose the largest noise that still meets a recall target.

A scheme says what else may vary (`Scheme.field`): dimensions, the exponent on queries. The strongest choice has the
largest beta. Among nearly equal ones it has the most dimensions, which resist attacks better (docs/threat-model.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ..data.arrays import Matrix
from ..data.values import integer, number
from ..errors import CalibrationError, InputError
from ..schemes import Scheme
from ..schemes.simulation import Sample
from ..schemes.strategy import Choice
from ..sealing.config import CollectionConfig

__all__ = ["MAX_SAMPLE", "Attack", "Calibration", "applied", "enough", "simulate"]

Attack = Callable[[Matrix, Scheme], Mapping[str, Any]]
"""Function (lifted sample (n, point_dim), scheme without a profile) -> JSON values: attacks the user's own data."""


MIN_SAMPLE = 100
MAX_SAMPLE = 20_000
BETAS = tuple(np.round(np.arange(0.0, 6.01, 0.5), 2).tolist())
OVERSAMPLES = (1, 2, 5, 10, 20, 50)
_STEP = 0.01
_MAX_BETA = 8.0
_NEAR = 0.5
_TIE = 0.05


@dataclass(frozen=True)
class Calibration:
    """The result of `calibrate`, which is stored with the collection."""

    scheme: str
    beta: float
    """The chosen noise: the largest that meets the target."""
    dimensions: int
    """Dimensions of an index vector."""
    gamma: float | None
    """Exponent on queries; None if the scheme has none, as `sap`."""
    query_beta: float
    oversample: int
    k: int
    target_recall: float
    recall: float
    """Simulated recall@k at `beta` on the sample."""
    recall_low: float
    """Lower bound of `recall`: the 5% quantile of a bootstrap over queries, extrapolated to `planned_size`."""
    floor: float
    """Noise below which our own attacks succeed; 0 for `sap`, which they break at any noise."""
    least_dimensions: int
    """Dimensions below which our own attacks succeed."""
    sample_size: int
    planned_size: int
    queries: int
    seed: int
    choices: list[dict[str, Any]] = field(repr=False)
    """The largest beta that meets the target, by dimensions and gamma; None if no beta does."""
    frontier: list[dict[str, float]] = field(repr=False)
    """Simulated recall over a grid, at the chosen dimensions and gamma: rows of beta, candidates, recall."""
    attack: dict[str, Any] | None = None
    """The report of the attack at the chosen point, if an attack was given."""

    @property
    def weak(self) -> bool:
        """True if our own attacks are known to succeed at the chosen point."""
        return self.beta < self.floor or self.dimensions < self.least_dimensions

    def weakness(self) -> str:
        """Describe what is weak, with the choices that were tried."""
        tried = "; ".join(
            f"{row['dimensions']} dimensions"
            + ("" if row["gamma"] is None else f", gamma {row['gamma']:g}")
            + (": missed" if row["beta"] is None else f": beta {row['beta']:.2f}")
            for row in self.choices
        )
        return (
            f"recall {self.target_recall:g} within {self.k * self.oversample} candidates allows beta {self.beta:g} at "
            f"{self.dimensions} dimensions, but our own attacks succeed below beta {self.floor:g} or "
            f"{self.least_dimensions} dimensions ({tried}). Allow more candidates or less recall, or accept less noise"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def check_noisy(config: CollectionConfig) -> None:
    """Raise CalibrationError unless the scheme has noise to calibrate."""
    if not config.scheme.noisy:
        raise CalibrationError(
            f"calibrate is for server-ranked schemes (sketch, sap): {config.scheme.name!r} has no noise"
        )


def simulate(
    config: CollectionConfig,
    vectors: Matrix,
    *,
    k: int,
    target_recall: float,
    max_candidates: int,
    planned_size: int,
    seed: int = 0,
    attack: Attack | None = None,
) -> Calibration:
    """Find the strongest setting whose extrapolated lower bound of recall meets the target.

    Args:
        config: the collection's settings; the scheme's query_beta is kept, and a gamma of -1/2.
        vectors: (n, dim) sample, checked. Queries are drawn from it and do not find themselves.
        k: number of hits per query.
        target_recall: share of the true k nearest that must be found, below 1.
        max_candidates: records that are re-ranked per query.
        planned_size: records that the collection will hold.
        seed: of the random draws.
        attack: run at the chosen point; its report is kept.

    Raises:
        CalibrationError: the target cannot be met even without noise, or the scheme has no noise.
        ProfileError: the sample varies in too few directions.
        InputError: an argument is out of range.
    """
    scheme = config.scheme
    check_noisy(config)
    k, max_candidates = _integer("k", k), _integer("max_candidates", max_candidates)
    planned_size, seed = _integer("planned_size", planned_size), _integer("seed", seed)
    if not 1 <= k <= max_candidates:
        raise InputError(f"k must be from 1 to max_candidates ({max_candidates}), got {k}")
    share = number(target_recall)
    if share is None or not 0 < share < 1:
        raise InputError(f"target_recall must be between 0 and 1, got {target_recall!r}")
    target_recall = share
    least = max(MIN_SAMPLE, 2 * k, scheme.least_sample)
    if len(vectors) < least:
        raise CalibrationError(f"the sample must have at least {least} vectors, got {len(vectors)}")
    vectors = _at_most(vectors, seed)
    planned_size = max(planned_size, len(vectors))
    centre = config.metric.centre_of(vectors) if scheme.needs_profile else None
    sample = Sample(config.metric, config.max_norm, vectors, seed, centre)
    field = scheme.field(sample)
    choices: list[dict[str, Any]] = []

    def look(dimensions: int, gamma: float | None) -> None:
        trial = field.trial(dimensions, gamma)
        near = max((row["beta"] for row in choices if row["beta"] is not None), default=None)
        beta = _largest(lambda beta: trial.low(beta, k, max_candidates, planned_size) >= target_recall, near)
        choices.append({"dimensions": dimensions, "gamma": gamma, "beta": beta})

    for gamma in field.gammas:
        look(field.usual, gamma)
    best_gamma = max(choices, key=lambda row: -1.0 if row["beta"] is None else row["beta"])["gamma"]
    for dimensions in field.others:
        look(dimensions, best_gamma)
    met = [row for row in choices if row["beta"] is not None]
    if not met:
        raise CalibrationError(
            f"recall {target_recall:g} cannot be reached with {max_candidates} candidates, even without noise on "
            "the stored vectors: allow more candidates, or lower the scheme's query_beta"
        )
    strong = [row for row in met if row["dimensions"] >= field.least] or met
    most = max(row["beta"] for row in strong)
    row = max((row for row in strong if row["beta"] >= most - _TIE), key=lambda row: (row["dimensions"], row["beta"]))
    dimensions, gamma, beta = row["dimensions"], row["gamma"], row["beta"]
    trial = field.trial(dimensions, gamma)
    counts = [k * times for times in OVERSAMPLES]
    return Calibration(
        scheme=scheme.name,
        beta=beta,
        dimensions=dimensions,
        gamma=gamma,
        query_beta=field.query_beta,
        oversample=-(-max_candidates // k),
        k=k,
        target_recall=target_recall,
        recall=float(trial.recalls(beta, k, [max_candidates]).mean()),
        recall_low=trial.low(beta, k, max_candidates, planned_size),
        floor=field.floor,
        least_dimensions=field.least,
        sample_size=len(vectors),
        planned_size=planned_size,
        queries=len(sample.queries),
        seed=seed,
        choices=choices,
        frontier=[
            {"beta": grid, "candidates": count, "recall": float(recall.mean())}
            for grid in BETAS
            for count, recall in zip(counts, trial.recalls(grid, k, counts), strict=True)
        ],
        attack=None if attack is None else dict(attack(sample.points, scheme.tuned(Choice(dimensions, gamma, beta)))),
    )


def enough(config: CollectionConfig, vectors: Matrix, planned_size: int, oversamples: tuple[int, ...]) -> int:
    """Return the smallest oversample with which the scheme finds .99 of 10 hits; the largest if none does."""
    vectors = _at_most(vectors, 0)
    trial = config.scheme.trial(Sample(config.metric, config.max_norm, vectors, 0, config.centre), config.profile)
    for times in oversamples[:-1]:
        if trial.low(config.scheme.noise, 10, 10 * times, max(planned_size, len(vectors))) >= 0.99:
            return times
    return oversamples[-1]


def _at_most(vectors: Matrix, seed: int) -> Matrix:
    if len(vectors) <= MAX_SAMPLE:
        return vectors
    return vectors[np.random.default_rng(seed).choice(len(vectors), MAX_SAMPLE, replace=False)]


def _largest(holds: Callable[[float], bool], near: float | None) -> float | None:
    """Bisect for the largest beta that holds, rounded down; None if not even 0 does. Looks around `near` first."""
    good, bad = 0.0, _MAX_BETA
    if near is not None and near > _NEAR and holds(near - _NEAR):
        good = near - _NEAR
    elif not holds(0.0):
        return None
    if near is not None and near + _NEAR < bad and not holds(near + _NEAR):
        bad = near + _NEAR
    while bad - good > _STEP:
        middle = (good + bad) / 2
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return float(np.floor(good * 100) / 100)


def _integer(name: str, value: Any) -> int:
    checked = integer(value)
    if checked is None or checked < 0:
        raise InputError(f"{name} must be an integer >= 0, got {value!r}")
    return checked


def applied(config: CollectionConfig, found: Calibration) -> CollectionConfig:
    """Return the settings with the calibration's choice. The profile is not fitted yet."""
    chosen = (config.fitted or {}).get("chosen", ())
    return replace(
        config,
        scheme=config.scheme.tuned(Choice(found.dimensions, found.gamma, found.beta), chosen),
        profile=None,
        fitted=None,
        oversample=found.oversample,
        calibration=found.to_dict(),
    )
