"""`sketch`: whitened principal components on a sphere, rotated and perturbed.

    x -> w = diag(lambda)^(-1/2) U' (x - mean)      centre, project on the k leading eigenvectors, whiten fully
      -> z = Q' w / |w|                             put on the unit sphere, rotate by a secret Haar matrix
      -> c = (z + noise) / |z + noise|              noise uniform in the ball of radius beta / 4, back on the sphere

What is left of the data in c has no mean, no scale and equal variance in all directions, which is what attacks that
align a rotation by statistics feed on. A rotation keeps lengths, so U, lambda and Q are one (dim, k) matrix.

Queries are encrypted asymmetrically: coordinate i of U' (q - mean) is scaled by lambda_i^gamma instead. -1/2 whitens
the query like the data, 0 leaves it as it is, which loses far less recall. What is stored is the same for every gamma.
The noise is that of `sap`: see there. docs/schemes.md has the mathematics.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import InitVar, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..crypto.labels import Purpose, derive
from ..data.arrays import Kept, Matrix
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
"""Presets: the adversary has what is stored, or also watches queries."""
FLOOR = 5.0
"""Least beta that the measurements of docs/threat-model.md stand for, with `profile.LEAST_KEPT` dimensions or more."""
SHARES = (0.6, 0.8, 0.9, 0.95)
"""Of the variance: a calibration tries the dimensions that hold them."""
GAMMAS = (-0.25, 0.0, 0.25)
WHITE = -0.5
NARROW_FLOOR = 3.6
"""The same, of narrow spectra, such as faces have: noise costs them more recall, and they give an attacker less."""


Turn = Callable[[Matrix], Matrix]


def floor(broad: bool) -> float:
    """Return the least beta for a broad or a narrow spectrum (`Profile.broad`)."""
    return FLOOR if broad else NARROW_FLOOR


@dataclass(frozen=True)
class Sketch:
    """Whitened sketch of k dimensions. Without a profile, vectors are sealed and nothing is indexed.

    Args:
        k: dimensions kept. None: chosen when the profile is fitted, about 90% of the variance.
        beta: noise on what is stored: uniform in a ball of radius beta / 4 around points of the unit sphere. None:
            when the profile is fitted, the floor.
        gamma: exponent of the eigenvalues on queries, -1/2 to 1/2.
        query_beta: noise on queries, derived from the query so that repeats cannot be averaged.
        profile: digest of the profile; set when one is fitted.
        cells: random parts of the collection, each under a rotation of its own. None: one, and more as it outgrows the
            records budget of its key.
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
        "Until a profile is fitted: number and sizes of records. Then approximate neighbourhoods: which records lie "
        "near which, without scale or mean. Our attacks with thousands of similar vectors stay at chance or near it "
        "at the floor (docs/threat-model.md); whoever holds the very same vectors tells which record is which below "
        "beta 5, and some hundred known pairs under one key do it too. Nearly equal vectors under several ids have "
        "independent noise, which averages out. A server that logs queries learns the axes of the data from them, "
        "unless threat is 'watching-server'."
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
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise SchemeError(f"sketch: {name} must be a number from {low:g} to {high:g}, got {value!r}")
            object.__setattr__(self, name, float(value) + 0.0)  # 2 and 2.0, 0.0 and -0.0 must derive the same keys
        if self.k is not None and (isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 2):
            raise SchemeError(f"sketch: k must be an integer >= 2, got {self.k!r}")
        if self.cells is not None:
            check_cells(self.name, self.cells)
        if self.profile is not None and (self.k is None or self.beta is None):
            raise SchemeError("sketch: a profile is fitted by the collection, not given")

    def parameters(self) -> Mapping[str, Any]:
        """Return k, beta, gamma, query_beta, the profile's digest, and cells where they are chosen."""
        names = ("k", "beta", "gamma", "query_beta", "profile", *(() if self.cells is None else ("cells",)))
        return {name: getattr(self, name) for name in names}

    def accepts(self, wanted: Sketch) -> bool:
        """Say whether a collection of this scheme is what was asked for: what is None was left to us."""
        asked = wanted.parameters().items()
        return all(value is None or value == getattr(self, name) for name, value in asked)

    def fitted(self, profile: Profile) -> Sketch:
        """Return the scheme under a profile."""
        beta = floor(profile.broad) if self.beta is None else self.beta
        return replace(self, k=profile.k, beta=beta, profile=profile.digest, threat=None)

    def unfitted(self) -> Sketch:
        """Return the scheme without its profile: the same parameters for the next one."""
        return replace(self, profile=None, threat=None)

    def index_dim(self, point_dim: int) -> int:
        """As many as are kept; 0 without a profile."""
        return 0 if self.profile is None or self.k is None else self.k

    def keyed(
        self,
        root: bytes,
        context: Context,
        point_dim: int,
        profile: Profile | None = None,
        device: Device = CPU,
    ) -> KeyedScheme:
        """Derive rotation and noise keys for one collection and profile. Raises ProfileError where it is another."""
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
        """Beta, if it is chosen."""
        return self.beta or 0.0

    @property
    def budget(self) -> int:
        """Records under one rotation that our attacks had."""
        return growth.BUDGET

    @property
    def least_records(self) -> int:
        """Records that a profile takes."""
        return profiles.least_records(self.k)

    @property
    def least_sample(self) -> int:
        """As many as a profile whose dimensions are yet to choose."""
        return profiles.least_records(None)

    def check_new(self, point_dim: int) -> None:
        """Refuse a profile, and more dimensions than a point has."""
        if self.profile is not None:
            raise SchemeError("sketch: a profile is fitted by the collection, so it must not be given")
        if self.k is not None and self.k > point_dim:
            raise SchemeError(f"sketch: k must be at most {point_dim} here, got {self.k}")

    def after_write(self, standing: Standing) -> list[Task]:
        """Fit at first, refit where data drifts, spread as cells fill, widen as records outgrow the candidates."""
        return growth.after_write(self, standing)

    def spreads(self, chosen: Collection[str]) -> bool:
        """So it does, unless a number was asked for."""
        return growth.spreads(self, chosen)

    def renewed(self, chosen: Collection[str]) -> Sketch:
        """Return it without profile, what was left to us open again."""
        return replace(self.unfitted(), threat=None, **dict.fromkeys(chosen))

    def fit(self, points: Matrix, records: int) -> Fit:
        """Fit the profile; choose k, beta and cells where they are open."""
        return growth.fit(self, points, records)

    def watched(self, profile: Profile | None) -> float | None:
        """Return the radius of the noise, once there is a profile."""
        return None if profile is None or self.profile is None else _radii(self)[0]

    def state(self, standing: Standing) -> dict[str, Any]:
        """Sealed, or a sketch with its fit, drift and advice."""
        return dict(growth.state(self, standing))

    def field(self, sample: Sample) -> SketchField:
        """Dimensions, gamma and beta. Raises ProfileError where the sample varies in too few directions."""
        return SketchField(self, sample)

    def tuned(self, choice: Choice, chosen: Collection[str] = ()) -> Sketch:
        """Take dimensions, gamma and noise; the number of cells is open again if it was chosen."""
        parameters: dict[str, Any] = {"k": choice.dimensions, "beta": choice.beta, "gamma": choice.gamma}
        return replace(self.renewed([name for name in chosen if name not in parameters]), threat=None, **parameters)

    def trial(self, sample: Sample, profile: Profile | None) -> Trial:
        """Simulate under the profile."""
        if profile is None:
            raise ProfileError("there is no profile: fit one first")
        return sketch_trial(sample, profile, self.gamma or 0.0, self.query_beta or 0.0)


class SketchField:
    """What there is to choose under `sketch`: dimensions, the exponent on queries, beta."""

    def __init__(self, scheme: Sketch, sample: Sample) -> None:
        self._sample, self._spectrum = sample, profiles.fit(sample.points)
        spectrum, most = self._spectrum, self._spectrum.most
        self.query_beta = scheme.query_beta or 0.0
        self.floor, self.least = floor(spectrum.broad), min(spectrum.least, most)
        self.usual = spectrum.choose()
        held = (max(spectrum.dimensions(share), profiles.LEAST_DIMENSIONS) for share in SHARES)
        tried = {min(count, most) for count in (*held, self.least, 4 * self.least // 3)}
        self.others = sorted(tried - {self.usual})
        # an exponent of -1/2 was asked for against a server that watches: any other would tell it the axes
        chosen = scheme.gamma or 0.0
        self.gammas: list[float | None] = [chosen] if chosen == WHITE else [*sorted({*GAMMAS, chosen})]

    def trial(self, dimensions: int, gamma: float | None) -> Trial:
        return sketch_trial(self._sample, self._spectrum.profile(dimensions), gamma or 0.0, self.query_beta)


class _KeyedSketch(OneCell):
    def __init__(self, scheme: Sketch, profile: Profile, root: bytes, context: Context, device: Device) -> None:
        turn = rotation(derive(root, Purpose.ROTATION, *context), profile.k)
        self._device = device
        self._stored, self._asked = _maps(scheme, profile, turn.apply, device)
        self._noise = Noise(root, context, _asked(scheme), *_radii(scheme), sphere=True)

    def encrypt(self, points: Matrix, tokens: Nonces, kept: Kept) -> tuple[Matrix, Nonces]:
        out = self._stored(points)
        nonces = self._noise.on_records(out, tokens, kept)
        return self._device.get(out), nonces

    def encrypt_queries(self, points: Matrix) -> Matrix:
        return self.encrypt_query(points)[None]

    def encrypt_query(self, points: Matrix) -> Matrix:
        out = self._asked(points)
        self._noise.on_queries(out, points)
        return out

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        raise SchemeError("a sketch cannot be turned back: the exact vector is in the sealed record")


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
    """What is done to queries is no part of what is stored."""
    return (f"gamma={scheme.gamma or 0.0!r}", f"query_beta={scheme.query_beta or 0.0!r}")


def _radii(scheme: Sketch) -> tuple[float, float]:
    return (scheme.beta or 0.0) / 4, (scheme.query_beta or 0.0) / 4


def _maps(scheme: Sketch, profile: Profile, turn: Turn, device: Device) -> tuple[Turn, Turn]:
    """Return what projects, scales and rotates records, and what does so with queries."""
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
    """Return the (dim, k) matrix that projects, scales and rotates, and what it makes of the mean.

    On one thread of BLAS: the matrix must be the same to the bit each time it is made.
    """
    with one_thread():
        matrix = np.ascontiguousarray(turn(np.ascontiguousarray(profile.basis * scales, np.float32)))
        start = (profile.mean.astype(np.float64) @ matrix.astype(np.float64)).astype(np.float32)
    return matrix, start
