"""The protocols of a scheme, without and with keys.

A scheme turns points of the unit sphere into the index vectors that an index sees. Index vectors only suggest
candidates; answers come from the sealed exact vectors. A scheme also says what a growing collection needs: when to
fit a profile, when to fit it again, what a calibration may change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ..data.arrays import Kept, Matrix
from ..data.metrics import Centre
from ..errors import CalibrationError
from .device import CPU, Device
from .profile import Profile
from .simulation import Sample, Trial
from .strategy import Choice, Fit, Standing, Task

__all__ = ["Cells", "Context", "Field", "Fixed", "KeyedScheme", "Nonces", "OneCell", "Scheme"]

Nonces = npt.NDArray[np.uint8]
Cells = npt.NDArray[np.int64]
Context = tuple[str | bytes | int, ...]
"""What a subkey is derived for. Every context of a collection begins with tenant, name and incarnation."""


class Field(Protocol):
    """What a calibration may change: dimensions, gamma, and always beta."""

    usual: int
    """The dimensions tried with every gamma."""
    others: list[int]
    """Dimensions tried with the best gamma."""
    gammas: list[float | None]
    floor: float
    """Our own attacks succeed below this beta; 0 if they succeed at every beta."""
    least: int
    """Our own attacks succeed below so many dimensions."""
    query_beta: float

    def trial(self, dimensions: int, gamma: float | None) -> Trial:
        """Return a simulation of searches, for any beta."""
        ...


class Scheme(Protocol):
    """A scheme with its parameters, without a key."""

    name: ClassVar[str]
    number: ClassVar[int]
    """The number of the scheme in record headers; never reused."""
    leakage: ClassVar[str]
    """What a thief of index vectors learns, in plain words."""
    needs_profile: ClassVar[bool]
    """True if it is fitted on the collection's own vectors. A fit may change the index dimension."""
    noisy: ClassVar[bool]
    """True if there is noise to calibrate."""

    def parameters(self) -> Mapping[str, Any]:
        """Return the parameters as JSON values. They are sealed in the settings and bound into every key."""
        ...

    @property
    def profile(self) -> str | None:
        """The digest of its profile; None without one."""
        ...

    @property
    def noise(self) -> float:
        """Beta, the noise on index vectors; 0 if there is none or it is not chosen yet."""
        ...

    @property
    def cells(self) -> int | None:
        """The number of cells, each with its own rotation; None if it is not chosen yet."""
        ...

    @property
    def budget(self) -> int | None:
        """How many records under one rotation our attacks had; None if that was not measured."""
        ...

    @property
    def least_records(self) -> int:
        """The least number of records that `fit` needs; 0 if there is nothing to fit."""
        ...

    @property
    def least_sample(self) -> int:
        """The least number of vectors that a calibration needs."""
        ...

    def check_new(self, point_dim: int) -> None:
        """Raise SchemeError if a new collection of such points cannot have these parameters."""
        ...

    def index_dim(self, point_dim: int) -> int:
        """Return the number of coordinates of an index vector; 0 if there are no index vectors."""
        ...

    def accepts(self, wanted: Any) -> bool:
        """Say whether a collection under this scheme fits the scheme that a later opening asks for."""
        ...

    def keyed(
        self,
        root: bytes,
        context: Context,
        point_dim: int,
        profile: Profile | None = None,
        device: Device = CPU,
    ) -> KeyedScheme:
        """Derive the scheme's keys for one collection.

        Args:
            root: root key.
            context: tenant, name and incarnation of the collection.
            point_dim: number of coordinates of a point.
            profile: the profile that the settings name, if the scheme uses one.
            device: where records are encrypted. Queries are few and always encrypted on the CPU.
        """
        ...

    def after_write(self, standing: Standing) -> list[Task]:
        """List the tasks that are due for the collection, and those that will be."""
        ...

    def spreads(self, chosen: Collection[str]) -> bool:
        """Say whether the number of cells grows with the collection.

        Args:
            chosen: the parameters that the last fit chose.
        """
        ...

    def renewed(self, chosen: Collection[str]) -> Scheme:
        """Return the scheme to fit: without its profile, and with `chosen` parameters to be chosen again."""
        ...

    def fit(self, points: Matrix, records: int, centre: Centre | None = None) -> Fit:
        """Fit the scheme.

        Args:
            points: (n, point_dim), drawn from the collection.
            records: how many records the collection has.
            centre: what the points were lifted from.

        Raises:
            ProfileError: too few points, or they vary in too few directions.
            CalibrationError: there is nothing to fit.
        """
        ...

    def watched(self, profile: Profile | None) -> float | None:
        """Return the radius of the noise, which a check for drift needs; None if drift is not checked."""
        ...

    def state(self, standing: Standing) -> dict[str, Any] | None:
        """Describe the state of the profile as JSON values; None if the scheme has none."""
        ...

    def field(self, sample: Sample) -> Field:
        """Return what a calibration may change. Raises CalibrationError if there is no noise."""
        ...

    def tuned(self, choice: Choice, chosen: Collection[str] = ()) -> Scheme:
        """Return the scheme that a calibration chose, to be fitted; the rest of `chosen` will be chosen again."""
        ...

    def trial(self, sample: Sample, profile: Profile | None) -> Trial:
        """Return a simulation of searches under the scheme as it is. Raises ProfileError, CalibrationError."""
        ...


class KeyedScheme(Protocol):
    """A scheme with the keys of one collection and key version."""

    @property
    def cells(self) -> int:
        """The number of cells, each with its own rotation. Index vectors of two cells do not compare."""
        ...

    def cells_of(self, tokens: Nonces) -> Cells:
        """Return the cell, from 0, of each of (n, 16) tokens: (n,) int64."""
        ...

    def encrypt(self, points: Matrix, tokens: Nonces, kept: Kept) -> tuple[Matrix, Nonces]:
        """Encrypt the points of records: (n, index_dim) index vectors and (n, 16) noise nonces.

        On the CPU, a record gives the same bits in every batch. The sign of a zero does not matter.

        Args:
            points: (n, point_dim), on the unit sphere.
            tokens: (n, 16) record tokens.
            kept: (n, dim) float32 or float16, the exact vectors as they are kept. Nonces are made from them.
        """
        ...

    def encrypt_queries(self, points: Matrix) -> Matrix:
        """Encrypt (q, point_dim) query points for each cell: (cells, q, index_dim).

        An index ranks by inner products with index vectors of the same cell. These compare across cells.
        """
        ...

    def aligned(self, index_vectors: Matrix, tokens: Nonces) -> Matrix:
        """Rotate (n, index_dim) index vectors back, so that those of all cells compare, for statistics."""
        ...

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        """Recover points from index vectors and noise nonces. Raises SchemeError if the scheme cannot."""
        ...


class Fixed:
    """The part that schemes without a profile share: nothing is ever fitted."""

    name: ClassVar[str]
    needs_profile: ClassVar[bool] = False
    profile: ClassVar[None] = None
    budget: ClassVar[None] = None
    least_records: ClassVar[int] = 0
    least_sample: ClassVar[int] = 0

    def check_new(self, point_dim: int) -> None:
        """Accept any dimension."""

    def after_write(self, standing: Standing) -> list[Task]:
        """Nothing is ever due."""
        return []

    def spreads(self, chosen: Collection[str]) -> bool:
        """The number of cells never changes."""
        return False

    def fit(self, points: Matrix, records: int, centre: Centre | None = None) -> Fit:
        """Refuse: there is no profile."""
        raise CalibrationError(f"scheme {self.name!r} has no profile to fit")

    def watched(self, profile: Profile | None) -> float | None:
        """There is no profile, so nothing can drift from it."""
        return None

    def state(self, standing: Standing) -> dict[str, Any] | None:
        """There is no profile to describe."""
        return None


class OneCell:
    """The part that keyed schemes without cells share."""

    cells = 1

    def cells_of(self, tokens: Nonces) -> Cells:
        """Put all records into the first cell."""
        return np.zeros(len(tokens), np.int64)

    def aligned(self, index_vectors: Matrix, tokens: Nonces) -> Matrix:
        """Return them as they are."""
        return index_vectors
