"""What a collection tells its scheme, and what the scheme answers: small data, no keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .profile import Profile

if TYPE_CHECKING:
    from .base import Scheme

__all__ = ["NEVER", "Choice", "Fit", "Standing", "Task", "Verdict"]

NEVER = 1 << 62
"""Records to go until something that does not come by itself."""


@dataclass(frozen=True)
class Verdict:
    """How the last records that were looked at fit the profile."""

    largest: float
    """Largest eigenvalue of their sketches' covariance."""
    mean: float
    """Length of their sketches' mean."""
    records: int
    largest_limit: float
    mean_limit: float
    profile: str
    """Digest of the profile they were written under."""

    @property
    def stale(self) -> bool:
        """Whether the profile should be fitted anew."""
        return self.largest > self.largest_limit or self.mean > self.mean_limit

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        fields = asdict(self)
        del fields["profile"]
        limits = {"largest": fields.pop("largest_limit"), "mean": fields.pop("mean_limit")}
        return {**fields, "stale": self.stale, "limits": limits}


@dataclass(frozen=True)
class Standing:
    """Where a collection stands."""

    point_dim: int
    counts: Collection[int]
    """Records by partition."""
    profile: Profile | None = field(default=None, repr=False)
    fitted: Mapping[str, Any] | None = None
    """What the settings keep of the last fit: records, what was chosen, how many records candidates were sized for."""
    calibrated: bool = False
    """Whether a calibration chose the candidates."""
    verdict: Verdict | None = None
    """The last one on this profile."""

    @property
    def records(self) -> int:
        """All records."""
        return sum(self.counts)

    @property
    def most(self) -> int:
        """Records of the largest partition."""
        return max(self.counts, default=0)

    @property
    def chosen(self) -> Collection[str]:
        """Parameters that the last fit chose: a later one may choose others."""
        found: Collection[str] = (self.fitted or {}).get("chosen", ())
        return found

    @property
    def stale(self) -> bool:
        """Whether what is written no longer fits the profile."""
        return self.verdict is not None and self.verdict.stale


@dataclass(frozen=True)
class Task:
    """Work on a whole collection that is due, or will be."""

    name: str
    """In plain words, with the reason."""
    missing: int
    """Records to go until it is due, about; 0 or less when it is."""
    fits: bool
    """Whether it is a fit, which encrypts every record anew. Else the candidates are chosen for more records."""


@dataclass(frozen=True)
class Fit:
    """What fitting came to."""

    scheme: Scheme
    profile: Profile = field(repr=False)
    chosen: list[str]
    """Parameters that were left to us."""


@dataclass(frozen=True)
class Choice:
    """What a calibration chose."""

    dimensions: int
    """Of an index vector."""
    gamma: float | None
    """Exponent on queries; None where the scheme has none."""
    beta: float
