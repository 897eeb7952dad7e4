"""Profiles: the statistics that `sketch` whitens with, fitted on a collection's own points.

A profile is the mean of the points and the k leading eigenvectors and eigenvalues of their covariance. The points
lie on the unit sphere, so no single point has much influence (the idea of spherical principal components: Locantore
et al., TEST 8(1), 1999). Fitting is deterministic: it sums in double precision, in blocks, on one thread, and chooses
the sign of an eigenvector so that its largest coordinate is positive.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..data.arrays import Matrix
from ..data.metrics import Centre
from ..errors import ProfileError
from .threads import one_thread

__all__ = ["LEAST_RECORDS", "Profile", "Spectrum", "fit", "least_records"]

Wide = npt.NDArray[np.float64]

FORMAT, CENTRED = 1, 2
LEAST_RECORDS = 5_000
PER_DIMENSION = 20
"""Points that a profile needs for each dimension it keeps. With fewer, the eigenvalues are too inaccurate."""
LEAST_DIMENSIONS = 16
"""Fewer dimensions hide too little, so such a collection stays sealed."""
BROAD = 100
"""A spectrum is broad if 99% of its variance needs at least so many dimensions. Texts are broad, faces are not."""
LEAST_KEPT = 250
"""Least number of dimensions kept, if there are so many. A profile of LEAST_RECORDS points supports this many."""
SHARE = 0.9
"""Share of the variance that is kept by default."""
_FLOOR = 1e-3
"""Least eigenvalue, as a share of the mean. Whitening must not blow up a direction that hardly varies."""
_NOTHING = 1e-9
"""A direction with a smaller share of the variance is rounding error, not data."""

_BLOCK = 4096
_HEAD = struct.Struct(">BIIIQ")


def least_records(k: int | None) -> int:
    """Return the least number of records for a profile of k dimensions; None for a k that is not chosen yet."""
    return max(LEAST_RECORDS, PER_DIMENSION * (k or 0))


@dataclass(frozen=True, eq=False)
class Profile:
    """What `sketch` whitens with. It is secret, and stored sealed."""

    mean: Matrix
    """(dim,)."""
    basis: Matrix
    """(dim, k): orthonormal columns, the leading eigenvectors."""
    eigenvalues: Matrix
    """(k,), descending, floored."""
    records: int
    """How many records it was fitted on."""
    spread: int
    """How many dimensions hold 99% of the variance."""
    centre: Centre | None = None
    """What points were lifted from; None under cosine."""

    @property
    def dim(self) -> int:
        """Number of coordinates of a point."""
        return len(self.mean)

    @property
    def k(self) -> int:
        """Number of dimensions kept."""
        return len(self.eigenvalues)

    @property
    def broad(self) -> bool:
        """Whether the variance is spread over many dimensions."""
        return self.spread >= BROAD

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the canonical form: see docs/formats.md."""
        number, parts = FORMAT, [self.mean, self.eigenvalues, self.basis]
        if self.centre is not None:
            number, parts = CENTRED, [*parts, self.centre.point]
        head = _HEAD.pack(number, self.dim, self.k, self.spread, self.records)
        tail = b"" if self.centre is None else struct.pack("<d", self.centre.radius)
        return head + b"".join(np.ascontiguousarray(part, "<f4").tobytes() for part in parts) + tail

    @classmethod
    def from_bytes(cls, data: bytes) -> Profile:
        """Read what `to_bytes` wrote. Raises ProfileError for another format."""
        if len(data) < _HEAD.size or data[0] not in (FORMAT, CENTRED):
            raise ProfileError("the collection's profile has a format that this version of encvec_store cannot read")
        _, dim, k, spread, records = _HEAD.unpack_from(data)
        size, rest, centre = dim + k + dim * k, len(data) - _HEAD.size, None
        more = rest - 4 * size
        if more % 4 or more < 0 or (more <= 8 if data[0] == CENTRED else more):
            raise ProfileError("the collection's profile has a wrong length")
        if more:
            point = np.frombuffer(data[-more:-8], "<f4").astype(np.float32)
            centre = Centre(point, struct.unpack("<d", data[-8:])[0])
        floats = np.frombuffer(data, "<f4", size, _HEAD.size).astype(np.float32)
        mean, eigenvalues, basis = np.split(floats, [dim, dim + k])
        return cls(mean, basis.reshape(dim, k), eigenvalues, records, spread, centre)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """All directions of a sample, those with most variance first. A profile of any k is cut from it."""

    mean: Wide
    """(dim,)."""
    directions: Wide
    """(dim, dim): eigenvectors in columns."""
    variances: Wide
    """(dim,), descending."""
    records: int

    def dimensions(self, share: float) -> int:
        """Return how many leading directions hold a share of the variance."""
        held = np.cumsum(self.variances)
        return min(len(held), 1 + int(np.searchsorted(held, share * held[-1])))

    @property
    def rank(self) -> int:
        """Number of directions in which the sample varies."""
        return int((self.variances > _NOTHING * self.variances.sum()).sum())

    @property
    def most(self) -> int:
        """The largest k that the sample supports."""
        return min(self.rank, self.records // PER_DIMENSION)

    @property
    def broad(self) -> bool:
        """Whether the variance is spread over many dimensions."""
        return self.dimensions(0.99) >= BROAD

    @property
    def least(self) -> int:
        """The smallest k that the measurements in docs/threat-model.md cover."""
        return min(LEAST_KEPT, self.rank)

    def choose(self) -> int:
        """Return the default k: enough for 90% of the variance, but at least `least` and at most `most`."""
        return min(max(self.dimensions(SHARE), self.least), self.most)

    def profile(self, k: int | None = None) -> Profile:
        """Make a profile of the k leading directions, by default as many as `choose` says.

        Raises:
            ProfileError: the sample has fewer directions, or too few points for so many.
        """
        chosen = self.choose() if k is None else k
        if chosen > self.rank or chosen < min(LEAST_DIMENSIONS, k or LEAST_DIMENSIONS):
            raise ProfileError(
                f"the vectors must vary in at least {max(chosen, LEAST_DIMENSIONS)} directions, and they vary in"
                f" {self.rank}: they repeat, or differ in few coordinates"
            )
        if self.records < PER_DIMENSION * chosen:
            raise ProfileError(
                f"a profile of {chosen} dimensions needs at least {PER_DIMENSION * chosen} vectors, got {self.records}"
            )
        return self.cut(chosen)

    def cut(self, k: int) -> Profile:
        """Return the k leading directions, whether or not the sample is large enough for them."""
        kept = self.variances[:k]
        floored = np.maximum(kept, _FLOOR * kept.mean())
        return Profile(
            self.mean.astype(np.float32),
            np.ascontiguousarray(self.directions[:, :k], np.float32),
            floored.astype(np.float32),
            self.records,
            self.dimensions(0.99),
        )


def fit(points: Matrix) -> Spectrum:
    """Find the directions of (n, dim) points of the unit sphere.

    Raises:
        ProfileError: the points are all the same, or not finite.
    """
    n, dim = points.shape
    if n < 2:
        raise ProfileError(f"a profile needs at least 2 vectors, got {n}")
    blocks = [points[start : start + _BLOCK] for start in range(0, n, _BLOCK)]
    with one_thread():
        mean = np.sum([block.sum(axis=0, dtype=np.float64) for block in blocks], axis=0) / n
        covariance = np.zeros((dim, dim))
        for block in blocks:
            centred = block - mean
            covariance += centred.T @ centred
        covariance /= n
        if not np.isfinite(covariance).all():
            raise ProfileError("the sample holds NaN or infinity")
        if np.trace(covariance) <= _NOTHING:
            raise ProfileError("the vectors of the sample are all the same")
        variances, directions = np.linalg.eigh(covariance)
    variances, directions = np.maximum(variances[::-1], 0), directions[:, ::-1]
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(dim)]
    return Spectrum(mean, directions * np.where(largest < 0, -1.0, 1.0), variances, n)
