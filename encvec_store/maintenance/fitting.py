"""The settings of a collection once its scheme is fitted: profile, parameters, candidates. Nothing is written here."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from ..data.arrays import Matrix
from ..engine.session import Session
from ..errors import CalibrationError, ProfileError
from ..runtime.concurrency import offload
from ..sealing.config import CollectionConfig
from .calibrate import enough

__all__ = ["SAMPLE", "fitted", "fitted_again", "grown", "sized"]

SAMPLE = 20_000
"""Vectors looked at, at most, unless a profile takes more."""
_OVERSAMPLES = (20, 30, 50, 75, 100, 150, 200)
_DOUBLED = 2
"""The number of candidates is chosen for a collection this many times as large."""


def grown(config: CollectionConfig, vectors: Matrix, count: int) -> CollectionConfig:
    """Return the settings that a new collection has come to when it holds `count` records like (n, dim) vectors.

    They stay as they are where the scheme takes no profile, or where `vectors` are too few to fit one.
    """
    if not config.scheme.needs_profile or len(vectors) < config.scheme.least_records:
        return config
    return fitted(config, vectors, count)


def fitted(config: CollectionConfig, vectors: Matrix, count: int) -> CollectionConfig:
    """Fit the scheme to (n, dim) vectors of a collection of `count` records, and choose what is left open.

    Candidates are chosen too, unless a calibration chose them. Raises ProfileError: too few vectors, or they vary in
    too few directions.
    """
    centre = config.metric.centre_of(vectors)
    points = config.metric.lift(vectors, config.max_norm, centre)
    found = offload(len(vectors), config.scheme.fit, points, count, centre)
    at, before = dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), config.fitted or {}
    fresh = replace(
        config,
        scheme=found.scheme,
        profile=found.profile,
        fitted={
            "at": at,
            "records": count,
            "chosen": found.chosen,
            "undrifted": found.undrifted,
            "asked": before.get("asked", config.oversample),
        },
    )
    return fresh if config.calibration is not None else sized(fresh, vectors, count)


def fitted_again(session: Session, config: CollectionConfig) -> CollectionConfig:
    """Fit the scheme to the vectors of a collection. What an earlier fit chose is chosen again.

    Raises:
        CalibrationError: the scheme has no profile.
        ProfileError: too few records, or they vary in too few directions.
    """
    scheme = config.scheme.renewed((config.fitted or {}).get("chosen", ()))
    if not scheme.needs_profile:
        raise CalibrationError(f"scheme {scheme.name!r} has no profile to fit")
    least = scheme.least_records
    vectors = session.sample(max(SAMPLE, least), seed=0)
    if len(vectors) < least:
        raise ProfileError(f"a profile needs at least {least} readable records, got {len(vectors)}")
    return fitted(replace(config, scheme=scheme), vectors, session.records.count())


def sized(config: CollectionConfig, vectors: Matrix, count: int) -> CollectionConfig:
    """Return the settings with enough candidates for twice as many records."""
    planned = _DOUBLED * count
    times = offload(len(vectors), enough, config, vectors, planned, _OVERSAMPLES)
    return replace(config, oversample=max(config.oversample, times), fitted={**(config.fitted or {}), "sized": planned})
