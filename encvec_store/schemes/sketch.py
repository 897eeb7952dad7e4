"""`sketch`: whitened principal components on a sphere, rotated and perturbed.

    x -> w = diag(lambda)^(-1/2) U' (x - mean)      centre, project on the k leading eigenvectors, whiten fully
      -> z = Q' w / |w|                             put on the unit sphere, rotate by a secret Haar matrix
      -> c = (z + noise) / |z + noise|              noise uniform in the ball of radius beta / 4, back on the sphere

In c the data has no mean, no scale and equal variance in all directions. Attacks that find a rotation by statistics
need these. A rotation keeps lengths, so U, lambda and Q are one (dim, k) matrix.

Queries are encrypted differently: coordinate i of U' (q - mean) is scaled by lambda_i^gamma. -1/2 whitens the query
like the data; 0 leaves it as it is, which loses far less recall. Index vectors are the same for every gamma. The noise
is that of `sap`. docs/schemes.md has the mathematics.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import InitVar, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..crypto.labels import Purpose, derive
from ..data.arrays import Kept, Matrix
from ..data.metrics import Centre
from ..data.values import integer, number
from ..errors import ProfileError, SchemeError
from . import growth
from . import profile as profiles
from .base import Context, KeyedScheme, Nonces, OneCell
from .cells import KeyedCells, check_cells
from .device import CPU, Device
from .exact import Exact, grid
from .noise import Noise
from .profile import Profile
from .rotation import rotation
from .sealed import KeyedSealed
from .simulation import Sample, Trial, sketch_trial
from .strategy import Choice, Fit, Standing, Task
from .threads import one_thread

__all__ = ["FLOOR", "NARROW_FLOOR", "THREATS", "Sketch", "SketchField", "floor"]

MAX_BETA = 16.0
THREATS: dict[str, dict[str, float]] = {
    "stolen-data": {"gamma": 0.0, "query_beta": 0.0},
    "watching-server": {"gamma": -0.5, "query_beta": 1.8},
}
"""Presets: the adversary has stolen what is stored, or also watches queries."""
FLOOR = 5.0
"""Least beta that the measurements in docs/threat-model.md cover, with at least `profile.LEAST_KEPT` dimensions."""
SHARES = (0.6, 0.8, 0.9, 0.95)
"""A calibration tries as many dimensions as hold these shares of the variance."""
GAMMAS = (-0.25, 0.0, 0.25)
WHITE = -0.5
NARROW_FLOOR = 3.6
"""The same for narrow spectra, such as faces have. Noise costs them more recall, and they help an attacker less."""


Turn = Callable[[Matrix], Matrix]


def floor(broad: bool) -> float:
    """Return the least beta for a broad or a narrow spectrum (`Profile.broad`)."""
    return FLOOR if broad else NARROW_FLOOR


@dataclass(frozen=True)
class Sketch:
    """Whitened sketch of k dimensions. Until a profile is fitted, there are no index vectors.

    Args:
        k: dimensions kept. None lets the fit choose them, for about 90% of the variance.
        beta: noise on index vectors, uniform in a ball of radius beta / 4 around points of the unit sphere. None
            lets the fit choose the floor.
        gamma: exponent of the eigenvalues on queries, -1/2 to 1/2.
        query_beta: noise on queries, derived from the query so that repeats cannot be averaged.
        profile: digest of the profile; set when one is fitted.
        cells: number of random parts of the collection, each with its own rotation. None begins with one, and takes
            more when a rotation has more records than our attacks had.
        threat: a preset of gamma and query_beta: "stolen-data" (default) or "watching-server".
    """

    k: int | None = None
    beta: float | None = None
    gamma: float | None = None
    query_beta: float | None = None
    profile: str | None = None
    cells: int | None = None
    threat: InitVar[str | None] = None

    name: ClassVar[str] = "sketch"
    number: ClassVar[int] = 3
    needs_profile: ClassVar[bool] = True
    noisy: ClassVar[bool] = True
    leakage: ClassVar[str] = (
        "Until a profile is fitted: the number and padded sizes of records. Then approximate neighbourhoods: which "
        "records are near each other, without scale or mean. That does not stop an informed thief: the very same "
        "vectors, labels, several dumps, or some tens of known pairs tell nearly all records of some corpora apart "
        "(docs/threat-model.md). Nearly equal vectors under several ids have independent noise, which averages out. A "
        "server that logs queries learns the axes of the data from them, unless threat is 'watching-server'."
    )

    def __post_init__(self, threat: str | None) -> None:
        if threat is not None and threat not in THREATS:
            raise SchemeError(f"sketch: threat must be one of {', '.join(THREATS)}, got {threat!r}")
        for name, value in THREATS[threat or "stolen-data"].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name, low, high in (("beta", 0.0, MAX_BETA), ("query_beta", 0.0, MAX_BETA), ("gamma", -0.5, 0.5)):
            value = getattr(self, name)
            if value is None:
                continue
            checked = number(value)
            if checked is None or not low <= checked <= high:
                raise SchemeError(f"sketch: {name} must be a number from {low:g} to {high:g}, got {value!r}")
            object.__setattr__(self, name, checked + 0.0)  # 2 and 2.0, 0.0 and -0.0 must derive the same keys
        if self.k is not None:
            k = integer(self.k)
            if k is None or k < 2:
                raise SchemeError(f"sketch: k must be an integer >= 2, got {self.k!r}")
            object.__setattr__(self, "k", k)
        if self.cells is not None:
            object.__setattr__(self, "cells", check_cells(self.name, self.cells))
        if self.profile is not None and (self.k is None or self.beta is None):
            raise SchemeError("sketch: profile must not be given: the collection fits it")

    def parameters(self) -> Mapping[str, Any]:
        """Return k, beta, gamma, query_beta, the profile's digest, and cells if they are chosen."""
        names = ("k", "beta", "gamma", "query_beta", "profile", *(() if self.cells is None else ("cells",)))
        return {name: getattr(self, name) for name in names}

    def accepts(self, wanted: Sketch) -> bool:
        """Say whether all parameters that are asked for are the same; None asks for nothing."""
        asked = wanted.parameters().items()
        return all(value is None or value == getattr(self, name) for name, value in asked)

    def fitted(self, profile: Profile) -> Sketch:
        """Return the scheme under a profile."""
        beta = floor(profile.broad) if self.beta is None else self.beta
        return replace(self, k=profile.k, beta=beta, profile=profile.digest, threat=None)

    def unfitted(self) -> Sketch:
        """Return the scheme without its profile, with the same parameters."""
        return replace(self, profile=None, threat=None)

    def index_dim(self, point_dim: int) -> int:
        """Return the dimensions kept; 0 without a profile."""
        return 0 if self.profile is None or self.k is None else self.k

    def keyed(
        self,
        root: bytes,
        context: Context,
        point_dim: int,
        profile: Profile | None = None,
        device: Device = CPU,
    ) -> KeyedScheme:
        """Derive rotation and noise keys for one collection and profile. Raises ProfileError for a wrong profile."""
        if self.profile is None:
            return KeyedSealed()
        if profile is None or profile.digest != self.profile or (profile.dim, profile.k) != (point_dim, self.k):
            raise ProfileError("the collection's profile is not the one that its settings name")
        named = (f"k={profile.k}", f"beta={self.beta or 0.0!r}", f"profile={profile.digest}")
        parameters: Context = (self.name, *named, profile.dim)
        if self.cells is None or self.cells == 1:
            return _KeyedSketch(self, profile, root, (*context, *parameters), device)
        return _keyed_cells(self, profile, root, context, parameters, self.cells, device)

    @property
    def noise(self) -> float:
        """Beta; 0 if it is not chosen yet."""
        return self.beta or 0.0

    @property
    def budget(self) -> int:
        """How many records under one rotation our attacks had."""
        return growth.BUDGET

    @property
    def least_records(self) -> int:
        """The least number of records for a profile."""
        return profiles.least_records(self.k)

    @property
    def least_sample(self) -> int:
        """The least number of vectors for a profile whose dimensions are not chosen yet."""
        return profiles.least_records(None)

    def check_new(self, point_dim: int) -> None:
        """Refuse a profile, and more dimensions than a point has."""
        if self.profile is not None:
            raise SchemeError("sketch: profile must not be given: the collection fits it")
        if self.k is not None and self.k > point_dim:
            raise SchemeError(f"sketch: k must be at most {point_dim} here, got {self.k}")

    def after_write(self, standing: Standing) -> list[Task]:
        """Fit first, refit when the data drifts, spread when cells are full, take more candidates for more records."""
        return growth.after_write(self, standing)

    def spreads(self, chosen: Collection[str]) -> bool:
        """Say yes, unless the number of cells was given."""
        return growth.spreads(self, chosen)

    def renewed(self, chosen: Collection[str]) -> Sketch:
        """Return the scheme without its profile, with `chosen` parameters to be chosen again."""
        return replace(self.unfitted(), threat=None, **dict.fromkeys(chosen))

    def fit(self, points: Matrix, records: int, centre: Centre | None = None) -> Fit:
        """Fit the profile. Choose k, beta and cells if they are not given."""
        return growth.fit(self, points, records, centre)

    def watched(self, profile: Profile | None) -> float | None:
        """Return the radius of the noise; None without a profile."""
        return None if profile is None or self.profile is None else _radii(self)[0]

    def state(self, standing: Standing) -> dict[str, Any]:
        """Describe the state: "sealed", or "sketch" with its fit, drift and advice."""
        return dict(growth.state(self, standing))

    def field(self, sample: Sample) -> SketchField:
        """A calibration changes dimensions, gamma and beta. Raises ProfileError if the sample varies too little."""
        return SketchField(self, sample)

    def tuned(self, choice: Choice, chosen: Collection[str] = ()) -> Sketch:
        """Return the scheme with the chosen dimensions, gamma and beta. A chosen number of cells is chosen again."""
        parameters: dict[str, Any] = {"k": choice.dimensions, "beta": choice.beta, "gamma": choice.gamma}
        return replace(self.renewed([name for name in chosen if name not in parameters]), threat=None, **parameters)

    def trial(self, sample: Sample, profile: Profile | None) -> Trial:
        """Simulate searches under the profile."""
        if profile is None:
            raise ProfileError("the collection has no profile yet: call refit() first")
        return sketch_trial(sample, profile, self.gamma or 0.0, self.query_beta or 0.0)


class SketchField:
    """What a calibration of `sketch` may change: dimensions, gamma, beta."""

    def __init__(self, scheme: Sketch, sample: Sample) -> None:
        self._sample, self._spectrum = sample, profiles.fit(sample.points)
        spectrum, most = self._spectrum, self._spectrum.most
        self.query_beta = scheme.query_beta or 0.0
        self.floor, self.least = floor(spectrum.broad), min(spectrum.least, most)
        self.usual = spectrum.choose()
        held = (max(spectrum.dimensions(share), profiles.LEAST_DIMENSIONS) for share in SHARES)
        tried = {min(count, most) for count in (*held, self.least, 4 * self.least // 3)}
        self.others = sorted(tried - {self.usual})
        # a gamma of -1/2 was asked for because the server may watch: any other would show it the axes of the data
        chosen = scheme.gamma or 0.0
        self.gammas: list[float | None] = [chosen] if chosen == WHITE else [*sorted({*GAMMAS, chosen})]

    def trial(self, dimensions: int, gamma: float | None) -> Trial:
        return sketch_trial(self._sample, self._spectrum.profile(dimensions), gamma or 0.0, self.query_beta)


class _KeyedSketch(OneCell):
    def __init__(self, scheme: Sketch, profile: Profile, root: bytes, context: Context, device: Device) -> None:
        turn = rotation(derive(root, Purpose.ROTATION, *context), profile.k)
        self._device = device
        self._stored, self._asked = _maps(scheme, profile, turn.apply, device)
        self.noise = Noise(root, context, _asked(scheme), *_radii(scheme), sphere=True)

    def encrypt(self, points: Matrix, tokens: Nonces, kept: Kept) -> tuple[Matrix, Nonces]:
        out = self._stored(points)
        nonces = self.noise.on_records(out, tokens, kept)
        return self._device.get(out), nonces

    def encrypt_queries(self, points: Matrix) -> Matrix:
        return self.encrypt_query(points)[None]

    def encrypt_query(self, points: Matrix) -> Matrix:
        out = self._asked(points)
        self.noise.on_queries(out, points)
        return out

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        raise SchemeError("a sketch cannot be decrypted: the exact vector is in the sealed record")


def _keyed_cells(
    scheme: Sketch, profile: Profile, root: bytes, owner: Context, parameters: Context, cells: int, device: Device
) -> KeyedCells:
    stored, queried = _maps(scheme, profile, lambda matrix: matrix, device)
    radius, query_radius = _radii(scheme)
    return KeyedCells(
        root,
        owner,
        (*parameters, f"cells={cells}"),
        _asked(scheme),
        cells,
        profile.k,
        stored=stored,
        queried=queried,
        radius=radius,
        query_radius=query_radius,
        sphere=True,
        device=device,
    )


def _asked(scheme: Sketch) -> Context:
    """Return the parameters that only queries have."""
    return (f"gamma={scheme.gamma or 0.0!r}", f"query_beta={scheme.query_beta or 0.0!r}")


def _radii(scheme: Sketch) -> tuple[float, float]:
    return (scheme.beta or 0.0) / 4, (scheme.query_beta or 0.0) / 4


def _maps(scheme: Sketch, profile: Profile, turn: Turn, device: Device) -> tuple[Turn, Turn]:
    """Return two functions that project, scale and rotate: for records and for queries."""
    scales = profile.eigenvalues.astype(np.float64)
    matrix, start = _map(profile, scales**-0.5, turn)
    exact, there = Exact(grid(matrix), device), device.put(start)
    asked, shift = _map(profile, scales ** (scheme.gamma or 0.0), turn)

    def stored(points: Matrix) -> Matrix:
        out: Matrix = exact(points)
        out -= there
        return out

    def queried(points: Matrix) -> Matrix:
        out: Matrix = points @ asked
        out -= shift
        return out

    return stored, queried


def _map(profile: Profile, scales: Any, turn: Turn) -> tuple[Matrix, Matrix]:
    """Return the (dim, k) matrix that projects, scales and rotates, and its product with the mean.

    This uses one thread of BLAS, because the matrix must have the same bits each time it is made.
    """
    with one_thread():
        matrix = np.ascontiguousarray(turn(np.ascontiguousarray(profile.basis * scales, np.float32)))
        start = (profile.mean.astype(np.float64) @ matrix.astype(np.float64)).astype(np.float32)
    return matrix, start
