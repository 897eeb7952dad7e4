"""The settings of a collection under another scheme, and the report of the change. Nothing is written here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ..data.metrics import norms
from ..engine.session import Session
from ..engine.write import warn_of_noise
from ..errors import InputError, NormError
from ..schemes import scheme
from ..sealing.config import CollectionConfig, check_max_norm
from .notices import tell_of_ranking

__all__ = ["SchemeChange", "with_scheme"]

_CHUNK = 8192
_SAMPLE = 2_000
_ROUNDING = 1 + 1e-5


@dataclass(frozen=True)
class SchemeChange:
    """The result of `Collection.change`."""

    before: str
    """The name of the scheme that the collection had."""
    scheme: str
    """The name of the scheme that it has now."""
    changed: bool
    """False if it had this scheme already, and nothing was done."""
    records: int
    resumed: int
    """How many of them an earlier call had encrypted already, which was stopped or killed."""
    remains: str
    """Where the old ciphertexts may still lie, and what to run against that; empty if nothing remains."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def with_scheme(session: Session, config: CollectionConfig, spec: Any, max_norm: float | None) -> CollectionConfig:
    """Return the stored settings with another scheme, not fitted yet; `config` itself if it has this scheme.

    Args:
        session: of the collection.
        config: the stored settings.
        spec: a scheme as `Store.collection` takes it.
        max_norm: the longest allowed vector. None keeps the one that is set. If none is set and the scheme needs one,
            it comes from the longest record, with a margin.

    Raises:
        InputError: the scheme or max_norm cannot be understood, or does not fit the collection.
        NormError: a record is longer than max_norm.
    """
    chosen, bound = scheme(spec), check_max_norm(max_norm, config.metric)
    if config.has_scheme(spec):
        if bound not in (None, config.max_norm):
            raise InputError(
                f"max_norm is set together with another scheme, and the collection has {chosen.name!r} already"
            )
        return config
    chosen.check_new(config.point_dim)
    fresh = replace(
        config,
        scheme=chosen,
        profile=None,
        fitted=None,
        calibration=None,
        oversample=(config.fitted or {}).get("asked", config.oversample),  # before a fit chose more
        max_norm=config.max_norm if bound is None else bound,
    )
    if fresh.bounded and (bound is not None or fresh.max_norm is None):
        fresh = _bounded(fresh, _longest(session))
    tell_of_ranking(fresh.scheme)
    if fresh.scheme.noisy:
        warn_of_noise(fresh, session.sample(_SAMPLE, seed=0))
    return fresh


def _bounded(config: CollectionConfig, longest: float | None) -> CollectionConfig:
    """Check or set max_norm for records up to a length; None if there are none."""
    if longest is None:
        return config
    if config.max_norm is None:
        return config.bounded_by(longest)
    if longest > config.max_norm * _ROUNDING:
        raise NormError(
            f"max_norm must be at least {longest:.6g}, the length of the longest record, got {config.max_norm:.6g}"
        )
    return config


def _longest(session: Session) -> float | None:
    """Return the length of the longest readable record; None if there are none."""
    rows, longest = session.without(session.records.rows(), session.keyring.dead), None
    for start in range(0, len(rows), _CHUNK):
        _, vectors, _ = session.open_vectors(rows[start : start + _CHUNK])
        if len(vectors):
            longest = max(longest or 0.0, float(norms(vectors).max()))
    return longest
