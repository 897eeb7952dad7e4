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

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ...errors import ProfileError, SchemeError
from ..labels import Purpose, derive
from ..perturb import add_ball_noise, ball_noise
from ..prf import Bytes, Keystream, Pmac
from ..profile import Profile
from ..rotation import rotation
from .base import KeyedScheme, Matrix, Nonces
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
_ZERO = 1e-6


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
        threat: a preset of gamma and query_beta: "stolen-data" (default) or "watching-server".
    """

    k: int | None = None
    beta: float | None = None
    gamma: float | None = None
    query_beta: float | None = None
    profile: str | None = None
    threat: InitVar[str | None] = None

    name: ClassVar[str] = "sketch"
    number: ClassVar[int] = 3
    leakage: ClassVar[str] = (
        "Until a profile is fitted: number and sizes of records. Then approximate neighbourhoods: which records lie "
        "near which, without scale or mean. Our attacks with thousands of similar vectors stay at chance or near it "
        "at the floor (docs/threat-model.md); whoever holds the very same vectors tells which record is which below "
        "beta 5, and fifty known pairs under one key do it too. Nearly equal vectors under several ids have "
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
        if self.profile is not None and (self.k is None or self.beta is None):
            raise SchemeError("sketch: a profile is fitted by the collection, not given")

    def parameters(self) -> Mapping[str, Any]:
        """Return k, beta, gamma, query_beta and the profile's digest."""
        names = ("k", "beta", "gamma", "query_beta", "profile")
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
        self, root: bytes, tenant: str, collection: str, point_dim: int, profile: Profile | None = None
    ) -> KeyedScheme:
        """Derive rotation and noise keys for one collection and profile. Raises ProfileError where it is another."""
        if self.profile is None:
            return Sealed().keyed(root, tenant, collection, point_dim)
        if profile is None or profile.digest != self.profile or (profile.dim, profile.k) != (point_dim, self.k):
            raise ProfileError("the collection's profile is not the one that its settings name")
        return _KeyedSketch(self, profile, root, tenant, collection)


class _KeyedSketch:
    def __init__(self, scheme: Sketch, profile: Profile, root: bytes, tenant: str, collection: str) -> None:
        beta, gamma, query_beta = scheme.beta or 0.0, scheme.gamma or 0.0, scheme.query_beta or 0.0
        parameters = (f"k={profile.k}", f"beta={beta!r}", f"profile={profile.digest}")
        context: tuple[str | int, ...] = (tenant, collection, scheme.name, *parameters, profile.dim)
        # what is done to queries is no part of what is stored
        query_context = (*context, f"gamma={gamma!r}", f"query_beta={query_beta!r}")
        turn = rotation(derive(root, Purpose.ROTATION, *context), profile.k)
        scales = profile.eigenvalues.astype(np.float64)
        self._stored, self._start = _map(profile, scales**-0.5, turn.apply)
        self._asked, self._query_start = _map(profile, scales**gamma, turn.apply)
        self._radius, self._query_radius = beta / 4, query_beta / 4
        self._nonces = Pmac(derive(root, Purpose.NOISE_NONCE, *context))
        self._noise = Keystream(derive(root, Purpose.NOISE, *context))
        self._query_nonces = Pmac(derive(root, Purpose.QUERY_NOISE_NONCE, *query_context))
        self._query_noise = Keystream(derive(root, Purpose.QUERY_NOISE, *query_context))

    def encrypt(self, points: Matrix, tokens: Nonces) -> tuple[Matrix, Nonces]:
        nonces = self._nonces.tags(tokens, _bytes(points))
        out = points @ self._stored
        out -= self._start
        _to_sphere(out, self._noise, nonces)
        if self._radius:
            add_ball_noise(self._noise, nonces, self._radius, out)
            _to_sphere(out, self._noise, nonces)
        return out, nonces

    def encrypt_query(self, points: Matrix) -> Matrix:
        nonces = self._query_nonces.tags(_bytes(points))
        out = points @ self._asked
        out -= self._query_start
        _to_sphere(out, self._query_noise, nonces)
        if self._query_radius:
            add_ball_noise(self._query_noise, nonces, self._query_radius, out)
            _to_sphere(out, self._query_noise, nonces)
        return out

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        raise SchemeError("a sketch cannot be turned back: the exact vector is in the sealed record")


def _map(profile: Profile, scales: Any, turn: Any) -> tuple[Matrix, Matrix]:
    """Return the (dim, k) matrix that projects, scales and rotates, and where the mean goes, (k,)."""
    matrix = turn(np.ascontiguousarray(profile.basis * scales, np.float32))
    start = profile.mean.astype(np.float64) @ matrix.astype(np.float64)
    return np.ascontiguousarray(matrix), start.astype(np.float32)


def _bytes(points: Matrix) -> Bytes:
    return np.ascontiguousarray(points).view(np.uint8)


def _to_sphere(out: Matrix, stream: Keystream, nonces: Nonces) -> None:
    """Put (n, k) points on the unit sphere in place; one at the very centre in a direction of its nonce's."""
    lengths = np.sqrt(np.einsum("ij,ij->i", out, out))
    centre = np.flatnonzero(lengths < _ZERO)
    if len(centre):
        out[centre] = ball_noise(stream, nonces[centre], 1.0, out.shape[1])
        lengths[centre] = np.linalg.norm(out[centre], axis=1)
    out /= lengths[:, None]
