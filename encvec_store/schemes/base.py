"""What an index-vector scheme is.

A scheme turns points of the unit sphere into the vectors that an index sees. It never decides an
answer: those are re-ranked on the sealed exact vectors. It also says what a collection under it needs as it grows:
whether to fit a profile, when to do it again, what a calibration may vary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ..data.arrays import Kept, Matrix
from ..errors import CalibrationError
from .device import CPU, Device
from .profile import Profile
from .simulation import Sample, Trial
from .strategy import Choice, Fit, Standing, Task

__all__ = ["Cells", "Context", "Field", "Fixed", "KeyedScheme", "Nonces", "OneCell", "Scheme"]

Nonces = npt.NDArray[np.uint8]
Cells = npt.NDArray[np.int64]
Context = tuple[str | bytes | int, ...]
"""What a subkey is for. Of a collection: its tenant, its name, its incarnation."""


class Field(Protocol):
    """What a calibration may vary: dimensions, the exponent on queries, and always beta."""

    usual: int
    """The dimensions tried with every gamma."""
    others: list[int]
    """Dimensions tried with the best gamma."""
    gammas: list[float | None]
    floor: float
    """Noise below which our own attacks succeed; 0 where they do at any."""
    least: int
    """Dimensions below which they succeed."""
    query_beta: float

    def trial(self, dimensions: int, gamma: float | None) -> Trial:
        """Simulate searches, for any beta."""
        ...


class Scheme(Protocol):
    """A scheme with its parameters, without a key."""

    name: ClassVar[str]
    number: ClassVar[int]
    """Identifies the scheme in record headers; never reused."""
    leakage: ClassVar[str]
    """What a thief of index vectors learns, in plain words."""
    needs_profile: ClassVar[bool]
    """Whether it is fitted on the collection's own vectors, so that its index dimension may change."""
    noisy: ClassVar[bool]
    """Whether there is noise to calibrate."""

    def parameters(self) -> Mapping[str, Any]:
        """Parameters as JSON values: stored, authenticated, and bound into every key."""
        ...

    @property
    def profile(self) -> str | None:
        """Digest of the profile it was fitted with; None without one."""
        ...

    @property
    def noise(self) -> float:
        """Beta: the noise on what is stored; 0 where it is none, or not chosen yet."""
        ...

    @property
    def cells(self) -> int | None:
        """Parts of the collection, each under a rotation of its own, once there are index vectors. None: not chosen."""
        ...

    @property
    def budget(self) -> int | None:
        """Records under one rotation up to which it was attacked; None where that is not known."""
        ...

    @property
    def least_records(self) -> int:
        """Records that `fit` needs, at least; 0 where there is nothing to fit."""
        ...

    @property
    def least_sample(self) -> int:
        """Vectors that a calibration needs, at least."""
        ...

    def check_new(self, point_dim: int) -> None:
        """Raise SchemeError where a new collection of such points cannot have these parameters."""
        ...

    def index_dim(self, point_dim: int) -> int:
        """Coordinates of an index vector; 0 where there is none."""
        ...

    def accepts(self, wanted: Any) -> bool:
        """Say whether a collection under this scheme is what a later opening, naming a scheme like it, asked for."""
        ...

    def keyed(
        self,
        root: bytes,
        context: Context,
        point_dim: int,
        profile: Profile | None = None,
        device: Device = CPU,
    ) -> KeyedScheme:
        """Derive the scheme's keys for one collection, under its profile if the scheme has use for one.

        Records are encrypted on the device, queries always on the CPU: one is no work.

        Args:
            root: root key.
            context: of all keys of the collection: tenant, name, incarnation.
            point_dim: coordinates of a point.
            profile: what the settings name by its digest.
            device: for records.
        """
        ...

    def after_write(self, standing: Standing) -> list[Task]:
        """List what is due for the collection, and what will be."""
        ...

    def spreads(self, chosen: Collection[str]) -> bool:
        """Say whether the number of cells grows with the collection, given what the last fit chose."""
        ...

    def renewed(self, chosen: Collection[str]) -> Scheme:
        """Return the scheme to fit: without profile, and open again what the last fit chose."""
        ...

    def fit(self, points: Matrix, records: int) -> Fit:
        """Fit the scheme on (n, point_dim) points drawn from so many records.

        Raises:
            ProfileError: too few points, or they vary in too few directions.
            CalibrationError: there is nothing to fit.
        """
        ...

    def watched(self, profile: Profile | None) -> float | None:
        """Return the radius of the noise under which drift of index vectors shows; None where it is not watched."""
        ...

    def state(self, standing: Standing) -> dict[str, Any] | None:
        """Describe how far the collection has come, as JSON values; None where it does not change by itself."""
        ...

    def field(self, sample: Sample) -> Field:
        """Return what a calibration may vary on a sample. Raises CalibrationError where there is no noise."""
        ...

    def tuned(self, choice: Choice, chosen: Collection[str] = ()) -> Scheme:
        """Return the scheme as a calibration chose it, yet to be fitted; the rest of `chosen` is open again."""
        ...

    def trial(self, sample: Sample, profile: Profile | None) -> Trial:
        """Simulate searches as the scheme stands. Raises ProfileError, CalibrationError."""
        ...


class KeyedScheme(Protocol):
    """A scheme with the keys of one collection and key version."""

    @property
    def cells(self) -> int:
        """How many rotations there are. Index vectors of two cells do not compare."""
        ...

    def cells_of(self, tokens: Nonces) -> Cells:
        """Return the cell, from 0, of each of (n, 16) tokens: (n,) int64."""
        ...

    def encrypt(self, points: Matrix, tokens: Nonces, kept: Kept) -> tuple[Matrix, Nonces]:
        """Encrypt the points of records: (n, index_dim) index vectors and (n, 16) noise nonces.

        A record gets the same bits whatever else is in the batch, on the CPU; a zero's sign does not count.

        Args:
            points: (n, point_dim), of the unit sphere.
            tokens: (n, 16), the names of the records.
            kept: (n, dim) float32 or float16, the exact vectors as they are kept: nonces are made of them.
        """
        ...

    def encrypt_queries(self, points: Matrix) -> Matrix:
        """Encrypt (q, dim) query points for comparison by inner product, for each cell: (cells, q, index_dim).

        Products of different cells compare with each other.
        """
        ...

    def aligned(self, index_vectors: Matrix, tokens: Nonces) -> Matrix:
        """Turn (n, index_dim) index vectors of records so that those of all cells compare: for statistics."""
        ...

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        """Recover (n, dim) points from index vectors and their noise nonces. Raises SchemeError where that is lost."""
        ...


class Fixed:
    """What schemes have in common that are fitted on nothing: they stay as they were made."""

    name: ClassVar[str]
    needs_profile: ClassVar[bool] = False
    profile: ClassVar[None] = None
    budget: ClassVar[None] = None
    least_records: ClassVar[int] = 0
    least_sample: ClassVar[int] = 0

    def check_new(self, point_dim: int) -> None:
        """Any dimension will do."""

    def after_write(self, standing: Standing) -> list[Task]:
        """Never anything."""
        return []

    def spreads(self, chosen: Collection[str]) -> bool:
        """The number of cells stays."""
        return False

    def fit(self, points: Matrix, records: int) -> Fit:
        """Refuse: there is no profile."""
        raise CalibrationError(f"scheme {self.name!r} has no profile to fit")

    def watched(self, profile: Profile | None) -> float | None:
        """Nothing was fitted, so nothing can drift from it."""
        return None

    def state(self, standing: Standing) -> dict[str, Any] | None:
        """It has none."""
        return None


class OneCell:
    """What keyed schemes have in common that know of no cells."""

    cells = 1

    def cells_of(self, tokens: Nonces) -> Cells:
        """All in the first."""
        return np.zeros(len(tokens), np.int64)

    def aligned(self, index_vectors: Matrix, tokens: Nonces) -> Matrix:
        """They compare as they are."""
        return index_vectors
