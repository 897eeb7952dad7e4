"""What a collection tells its scheme, and what the scheme answers. None of it holds keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .profile import Profile

if TYPE_CHECKING:
    from .base import Scheme

__all__ = ["NEVER", "Choice", "Fit", "Standing", "Task", "Verdict"]

NEVER = 1 << 62
"""As a number of missing records: this task never becomes due by itself."""


@dataclass(frozen=True)
class Verdict:
    """How well the last records that were checked fit the profile."""

    largest: float
    """Largest eigenvalue of the covariance of their sketches."""
    mean: float
    """Length of the mean of their sketches."""
    records: int
    largest_limit: float
    mean_limit: float
    profile: str
    """Digest of the profile that they were written under."""

    @property
    def stale(self) -> bool:
        """True if the profile should be fitted again."""
        return self.largest > self.largest_limit or self.mean > self.mean_limit

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        fields = asdict(self)
        del fields["profile"]
        limits = {"largest": fields.pop("largest_limit"), "mean": fields.pop("mean_limit")}
        return {**fields, "stale": self.stale, "limits": limits}


@dataclass(frozen=True)
class Standing:
    """The state of a collection."""

    point_dim: int
    counts: Collection[int]
    """The number of records of each partition."""
    profile: Profile | None = field(default=None, repr=False)
    fitted: Mapping[str, Any] | None = None
    """What the settings keep of the last fit: records, chosen parameters, and for how many records candidates were
    chosen (`sized`)."""
    calibrated: bool = False
    """True if a calibration chose the number of candidates."""
    verdict: Verdict | None = None
    """The last verdict on this profile."""

    @property
    def records(self) -> int:
        """The number of all records."""
        return sum(self.counts)

    @property
    def most(self) -> int:
        """The number of records of the largest partition."""
        return max(self.counts, default=0)

    @property
    def chosen(self) -> Collection[str]:
        """Parameters that the last fit chose. A later fit may choose them again."""
        found: Collection[str] = (self.fitted or {}).get("chosen", ())
        return found

    @property
    def stale(self) -> bool:
        """True if new records no longer fit the profile."""
        return self.verdict is not None and self.verdict.stale


@dataclass(frozen=True)
class Task:
    """Work on a whole collection that is due, or will become due."""

    name: str
    """In plain words, with the reason."""
    missing: int
    """About how many more records make it due; 0 or less if it is due."""
    fits: bool
    """True if it is a fit, which encrypts every record again. Otherwise only the number of candidates changes."""


@dataclass(frozen=True)
class Fit:
    """The result of a fit."""

    scheme: Scheme
    profile: Profile = field(repr=False)
    chosen: list[str]
    """Parameters that the fit chose."""
    undrifted: Mapping[str, float]
    """Figures that a check for drift shows on data like the sample, see `drift`."""


@dataclass(frozen=True)
class Choice:
    """The result of a calibration."""

    dimensions: int
    """Coordinates of an index vector."""
    gamma: float | None
    """Exponent of the eigenvalues on queries; None if the scheme has none."""
    beta: float
