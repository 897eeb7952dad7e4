"""`sketch`: whitened principal components on a sphere, rotated and perturbed; imports crypto.

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

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..crypto.labels import Purpose, derive
from ..errors import ProfileError, SchemeError
from .base import KeyedScheme, Matrix, Nonces, OneCell
from .cells import KeyedCells, check_cells
from .device import CPU, Device
from .noise import Context, Noise
from .profile import Profile
from .rotation import rotation
from .sealed import Sealed

__all__ = ["FLOOR", "NARROW_FLOOR", "THREATS", "Sketch", "floor"]

MAX_BETA = 16.0
THREATS: dict[str, dict[str, float]] = {
    "stolen-data": {"gamma": 0.0, "query_beta": 0.0},
    "watching-server": {"gamma": -0.5, "query_beta": 1.8},
}
"""Presets: the adversary has what is stored, or also watches queries."""
FLOOR = 5.0
"""Least beta that the measurements of docs/threat-model.md stand for, with `profile.LEAST_KEPT` dimensions or more."""
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
            raise SchemeError(f"sketch: threat is one of {', '.join(THREATS)}, not {threat!r}")
        for name, value in THREATS[threat or "stolen-data"].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name, low, high in (("beta", 0.0, MAX_BETA), ("query_beta", 0.0, MAX_BETA), ("gamma", -0.5, 0.5)):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise SchemeError(f"sketch: {name} is a number from {low:g} to {high:g}, not {value!r}")
            object.__setattr__(self, name, float(value) + 0.0)  # 2 and 2.0, 0.0 and -0.0 must derive the same keys
        if self.k is not None and (isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 2):
            raise SchemeError(f"sketch: k is a whole number from 2, not {self.k!r}")
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
        tenant: str,
        collection: str,
        point_dim: int,
        profile: Profile | None = None,
        device: Device = CPU,
    ) -> KeyedScheme:
        """Derive rotation and noise keys for one collection and profile. Raises ProfileError where it is another."""
        if self.profile is None:
            return Sealed().keyed(root, tenant, collection, point_dim)
        if profile is None or profile.digest != self.profile or (profile.dim, profile.k) != (point_dim, self.k):
            raise ProfileError("the collection's profile is not the one that its settings name")
        parameters = (f"k={profile.k}", f"beta={self.beta or 0.0!r}", f"profile={profile.digest}")
        context: Context = (tenant, collection, self.name, *parameters, profile.dim)
        if self.cells is None or self.cells == 1:
            return _KeyedSketch(self, profile, root, context, device)
        return _keyed_cells(self, profile, root, context, self.cells, device)


class _KeyedSketch(OneCell):
    def __init__(self, scheme: Sketch, profile: Profile, root: bytes, context: Context, device: Device) -> None:
        turn = rotation(derive(root, Purpose.ROTATION, *context), profile.k)
        self._device = device
        self._stored, self._asked = _maps(scheme, profile, turn.apply, device)
        self._noise = Noise(root, context, _asked(scheme), *_radii(scheme), sphere=True)

    def encrypt(self, points: Matrix, tokens: Nonces) -> tuple[Matrix, Nonces]:
        out = self._stored(points)
        nonces = self._noise.on_records(out, points, tokens)
        return self._device.get(out), nonces

    def encrypt_query(self, points: Matrix) -> Matrix:
        out = self._asked(points)
        self._noise.on_queries(out, points)
        return out

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        raise SchemeError("a sketch cannot be turned back: the exact vector is in the sealed record")


def _keyed_cells(
    scheme: Sketch, profile: Profile, root: bytes, context: Context, cells: int, device: Device
) -> KeyedCells:
    stored, queried = _maps(scheme, profile, lambda matrix: matrix, device)
    radius, query_radius = _radii(scheme)
    return KeyedCells(
        root,
        (*context, f"cells={cells}"),
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
    return _map(profile, scales**-0.5, turn, device), _map(profile, scales ** (scheme.gamma or 0.0), turn, CPU)


def _map(profile: Profile, scales: Any, turn: Turn, device: Device) -> Turn:
    """Return what centres, projects, scales and rotates (n, dim) points on a device: one product."""
    matrix = np.ascontiguousarray(turn(np.ascontiguousarray(profile.basis * scales, np.float32)))
    start = (profile.mean.astype(np.float64) @ matrix.astype(np.float64)).astype(np.float32)

    there, shift = device.put(matrix), device.put(start)

    def apply(points: Matrix) -> Matrix:
        out: Matrix = device.put(points) @ there
        out -= shift
        return out

    return apply
