"""A collection's settings: checked arguments, and their sealed form."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..crypto.envelope import INCARNATION
from ..data.arrays import Matrix
from ..data.fields import Policy, parse_policies
from ..data.metrics import Centre, Metric, metric
from ..data.precision import Precision, precision
from ..data.values import integer, number
from ..errors import AuthenticationError, ConfigMismatchError, InputError, ShapeError
from ..schemes import Scheme, scheme
from ..schemes.profile import Profile

__all__ = ["DEFAULT_OVERSAMPLE", "CollectionConfig"]

FORMAT = 1
KNOWN: frozenset[str] = frozenset()
"""Names that settings may require a reader to know (`needs`). A reader that does not know one refuses."""
MAX_DIM = 16_000
MOST_K = 1 << 40
"""No collection has so many records. A larger k asks for the same, and would not fit the 64 bits of a store."""
DEFAULT_OVERSAMPLE = 10
DEFAULT_SCHEME = "sealed"
RANKED_SCHEME = "sketch"
"""The server-ranked scheme that tools take where the default has nothing to rank or attack."""
NORM_MARGIN = 1.25


@dataclass(frozen=True)
class CollectionConfig:
    """Settings of one collection. They are stored sealed. Every record names the revision it was written under."""

    dim: int
    metric: Metric
    scheme: Scheme
    policies: dict[str, Policy] | None
    max_norm: float | None
    """The longest allowed vector, for ip and l2. None until the first write sets it, if the scheme needs it."""
    oversample: int
    """Candidates that are re-ranked per requested hit."""
    precision: Precision = Precision.SINGLE
    """How vectors are stored."""
    incarnation: bytes = field(default=b"", repr=False)
    """16 random bytes, drawn when the collection is created. Every key depends on them, so a collection that is
    dropped and created again shares nothing with the old one."""
    revision: int = 1
    """Counts changes of the settings; it only grows."""
    rewritten: int = 1
    """The revision of the last rewrite of all records: no record names an older one."""
    rewritten_key: int = 1
    """The key version of that rewrite: no record is under an older one."""
    calibration: dict[str, Any] | None = None
    """The report of the last `calibrate`."""
    fitted: dict[str, Any] | None = None
    """When the profile was fitted (`at`, UTC), on how many records, and which parameters were chosen then. `asked` is
    the oversample before fits chose more."""
    encrypted: dict[str, int] = field(default_factory=dict)
    """By key version: how many records were encrypted under it, about; see `sealing.limits`."""
    model: str | None = None
    """The name of the model that made the vectors, if anyone said it."""
    needs: tuple[str, ...] = ()
    """Names of what a reader must know to open the collection."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Fields of later versions, which this version keeps as they are."""
    sealed: bytes = field(default=b"", compare=False, repr=False)
    """The sealed form that these settings were opened from. A write names the settings it was made under by it."""
    profile: Profile | None = field(default=None, compare=False, repr=False)
    """The profile whose digest the scheme names. It is a blob of its own, too large to be written with every write."""

    @classmethod
    def build(
        cls,
        *,
        dim: int,
        metric_name: str | None,
        scheme_spec: Any,
        fields: Mapping[str, str] | None,
        max_norm: float | None,
        oversample: int | None,
        precision_name: str | None = None,
        model: str | None = None,
    ) -> CollectionConfig:
        """Check the arguments of a new collection. Raises InputError."""
        dim = check_dim(dim)
        measure = metric(metric_name if metric_name is not None else "cosine")
        chosen = scheme(scheme_spec if scheme_spec is not None else DEFAULT_SCHEME)
        chosen.check_new(dim + measure.extra)
        return cls(
            dim=dim,
            metric=measure,
            scheme=chosen,
            policies=parse_policies(fields),
            max_norm=check_max_norm(max_norm, measure),
            oversample=check_oversample(oversample),
            precision=precision(precision_name),
            incarnation=os.urandom(INCARNATION),
            model=model,
        )

    @property
    def point_dim(self) -> int:
        """Coordinates of a lifted vector."""
        return self.dim + self.metric.extra

    @property
    def index_dim(self) -> int:
        """Coordinates of an index vector; 0 if there are no index vectors."""
        return self.scheme.index_dim(self.point_dim)

    @property
    def ranked(self) -> bool:
        """True if records have index vectors, or will have them once the scheme is fitted."""
        return self.index_dim > 0 or self.scheme.needs_profile

    @property
    def bounded(self) -> bool:
        """True if vectors must not be longer than max_norm, because they are or will be lifted for an index."""
        return self.metric.bounded and self.ranked

    @property
    def centre(self) -> Centre | None:
        """What vectors are lifted from, if a profile says so."""
        return None if self.profile is None else self.profile.centre

    def lift(self, vectors: Matrix) -> Matrix:
        """Map (n, dim) checked vectors to (n, point_dim) points of the unit sphere."""
        return self.metric.lift(vectors, self.max_norm, self.centre)

    def lift_query(self, queries: Matrix) -> Matrix:
        """Map (q, dim) checked queries to (q, point_dim) points of the unit sphere."""
        return self.metric.lift_query(queries, self.max_norm or 1.0, self.centre)

    @property
    def cells(self) -> int:
        """Number of cells: random parts of the collection, each with a rotation of its own."""
        return (self.scheme.cells or 1) if self.index_dim else 1

    def changed(self, *, rewritten: int | None = None, **fields: Any) -> CollectionConfig:
        """Return settings with some fields changed, under the next revision.

        Args:
            rewritten: the key version under which all records are encrypted anew with it, if they are.
            fields: the changed fields.
        """
        revision = self.revision + 1
        if rewritten is not None:
            fields |= {"rewritten": revision, "rewritten_key": rewritten}
        return replace(self, **fields, revision=revision)

    def check_follows(self, known: CollectionConfig) -> None:
        """Refuse settings that cannot be later than the known ones: older ones, or those of another collection.

        Raises AuthenticationError.
        """
        fixed = ("incarnation", "dim", "metric", "policies", "precision")
        if any(getattr(self, name) != getattr(known, name) for name in fixed):
            raise AuthenticationError("the collection's settings are those of another collection: they were replaced")
        if self.revision < known.revision or (self.revision == known.revision and self != known):
            raise AuthenticationError(
                f"the collection's settings are of revision {self.revision}, and revision {known.revision} was seen:"
                " older ones were put back"
            )

    def covers(self, least: int, largest: int) -> bool:
        """Return True if records of the revisions `least` to `largest` can belong to these settings."""
        return self.rewritten <= least and largest <= self.revision

    def bounded_by(self, largest: float) -> CollectionConfig:
        """Return the settings with max_norm set from the largest norm of the first batch, with a margin."""
        return self.changed(max_norm=NORM_MARGIN * largest if largest > 0 else 1.0)

    def of_model(self, model: str | None) -> CollectionConfig:
        """Return the settings with a model, if they have none yet."""
        return self if model is None or self.model is not None else self.changed(model=model)

    def check_model(self, model: str | None) -> None:
        """Refuse vectors of another model. Raises ConfigMismatchError."""
        if model is not None and self.model not in (None, model):
            raise ConfigMismatchError(f"the collection has vectors of model {self.model!r}, not of {model!r}")

    def check_same(
        self,
        *,
        dim: int | None,
        metric_name: str | None,
        scheme_spec: Any,
        fields: Mapping[str, str] | None,
        max_norm: float | None,
        oversample: int | None,
        precision_name: str | None = None,
        model: str | None = None,
    ) -> CollectionConfig:
        """Compare the settings with the arguments of a later opening. Arguments that are None match anything.

        A different oversample is no mismatch: it applies to this opening only. Raises ConfigMismatchError.
        """
        differing = []
        if dim is not None and check_dim(dim) != self.dim:
            differing.append(f"dim is {self.dim}, not {dim}")
        if metric_name is not None and metric(metric_name) is not self.metric:
            differing.append(f"metric is {self.metric.name}, not {metric_name}")
        other = scheme_spec is not None and not self.has_scheme(scheme_spec)
        if other:
            differing.append(f"scheme is {_describe(self.scheme)}, not {_describe(scheme(scheme_spec))}")
        if fields is not None and parse_policies(fields) != self.policies:
            policies = {name: policy.value for name, policy in (self.policies or {}).items()}
            differing.append(f"fields are {policies}, not {dict(fields)}")
        if max_norm is not None and check_max_norm(max_norm, self.metric) != self.max_norm:
            mine = "set by the first write" if self.max_norm is None else f"{self.max_norm:g}"
            differing.append(f"max_norm is {mine}, not {max_norm:g}")
        if precision_name is not None and precision(precision_name) is not self.precision:
            differing.append(f"precision is {self.precision}, not {precision_name}")
        if model is not None and self.model not in (None, model):
            differing.append(f"its vectors are of model {self.model!r}, not {model!r}")
        if differing:
            cure = "; to change the scheme in place, call change(scheme=...)" if other else ""
            raise ConfigMismatchError(f"the collection exists with other settings: {'; '.join(differing)}{cure}")
        return self if oversample is None else replace(self, oversample=check_oversample(oversample))

    def has_scheme(self, spec: Any) -> bool:
        """Say whether the collection has this scheme. A bare name means it with any parameters. Raises SchemeError."""
        wanted = scheme(spec)
        return wanted.name == self.scheme.name and (isinstance(spec, str) or self.scheme.accepts(wanted))

    def to_json(self) -> bytes:
        """Serialise, to be sealed."""
        fields = None if self.policies is None else {name: policy.value for name, policy in self.policies.items()}
        document = {
            **self.extra,
            "format": FORMAT,
            "needs": list(self.needs),
            "precision": str(self.precision),
            "dim": self.dim,
            "metric": self.metric.name,
            "scheme": {"name": self.scheme.name, **self.scheme.parameters()},
            "fields": fields,
            "max_norm": self.max_norm,
            "oversample": self.oversample,
            "revision": self.revision,
            "rewritten": self.rewritten,
            "rewritten_key": self.rewritten_key,
            "calibration": self.calibration,
            "fitted": self.fitted,
            **({"encrypted": self.encrypted} if self.encrypted else {}),
            **({} if self.model is None else {"model": self.model}),
        }
        return json.dumps(document, sort_keys=True).encode()

    @classmethod
    def from_json(cls, document: bytes, incarnation: bytes) -> CollectionConfig:
        """Read back what `to_json` wrote. Raises AuthenticationError for what this version cannot read."""
        fields = json.loads(document)
        needs = tuple(fields.pop("needs", ()))
        number = fields.pop("format")
        if number != FORMAT or not KNOWN.issuperset(needs):
            what = f"format {number}" if number != FORMAT else ", ".join(sorted(set(needs) - KNOWN))
            raise AuthenticationError(f"the collection's settings need a newer version of encvec_store: {what}")
        return cls(
            dim=fields.pop("dim"),
            metric=metric(fields.pop("metric")),
            scheme=scheme(fields.pop("scheme")),
            policies=parse_policies(fields.pop("fields")),
            max_norm=fields.pop("max_norm"),
            oversample=fields.pop("oversample"),
            precision=precision(fields.pop("precision")),
            incarnation=incarnation,
            revision=fields.pop("revision"),
            rewritten=fields.pop("rewritten"),
            rewritten_key=fields.pop("rewritten_key", 1),
            calibration=fields.pop("calibration"),
            fitted=fields.pop("fitted"),
            encrypted=fields.pop("encrypted", {}),
            model=fields.pop("model", None),
            needs=needs,
            extra=fields,
        )


def check_dim(dim: Any) -> int:
    """Return the number of coordinates. Raises ShapeError."""
    checked = integer(dim)
    if checked is None or not 0 < checked <= MAX_DIM:
        raise ShapeError(f"dim must be an integer from 1 to {MAX_DIM}, got {dim!r}")
    return checked


def check_k(k: Any) -> int:
    """Return the number of hits to find. Raises InputError."""
    checked = integer(k)
    if checked is None or checked < 1:
        raise InputError(f"k must be an integer >= 1, got {k!r}")
    return min(checked, MOST_K)


def check_oversample(oversample: int | None) -> int:
    """Return the number of candidates per hit. Raises InputError."""
    if oversample is None:
        return DEFAULT_OVERSAMPLE
    checked = integer(oversample)
    if checked is None or not 1 <= checked <= 10_000:
        raise InputError(f"oversample must be an integer from 1 to 10000, got {oversample!r}")
    return checked


def check_max_norm(max_norm: float | None, measure: Metric) -> float | None:
    """Return the longest allowed length of a vector. Raises InputError."""
    if max_norm is None:
        return None
    if not measure.bounded:
        raise InputError("max_norm has no meaning under cosine: vectors are scaled to unit length")
    checked = number(max_norm)
    if checked is None or not 0 < checked < 1e30:
        raise InputError(f"max_norm must be a number > 0 and < 1e30, got {max_norm!r}")
    return checked


def _describe(value: Scheme) -> str:
    shown = {name: item for name, item in value.parameters().items() if item is not None and name != "profile"}
    return f"{value.name}({', '.join(f'{name}={item:g}' for name, item in shown.items())})"
