"""Noise on rotated points of records and queries.

The nonce of a record's noise is a PRF of its token and of the exact vector as it is kept. The same write twice gives
the same ciphertext, so there is nothing to average. The nonce of a query's noise is a PRF of the query's point.
"""

from __future__ import annotations

import numpy as np

from ..crypto.labels import Purpose, derive
from ..crypto.prf import Keystream, Pmac
from ..data.arrays import Bytes, Kept, Matrix
from .base import Context, Nonces
from .device import device_of
from .perturb import add_ball_noise, ball_noise

__all__ = ["Noise", "canonical", "lengths"]

_MINUS_ZERO = 0x8000
"""The bits of -0.0 as a float16."""
CENTRE = 1e-6
"""Points nearer to the centre have no reliable direction."""


class Noise:
    """Keys and radii of one rotation's noise.

    Args:
        root: root key.
        context: tenant, collection, scheme, and parameters of stored vectors.
        asked: parameters that only queries have. They may change without encrypting records again.
        radius: radius of the noise on records.
        query_radius: radius of the noise on queries.
        sphere: True if points are put on the unit sphere, before and after the noise.
    """

    def __init__(
        self, root: bytes, context: Context, asked: Context, radius: float, query_radius: float, *, sphere: bool
    ) -> None:
        query_context = (*context, *asked)
        self._radius, self._query_radius, self._sphere = radius, query_radius, sphere
        self.nonces = Pmac(derive(root, Purpose.NOISE_NONCE, *context))
        self.stream = Keystream(derive(root, Purpose.NOISE, *context))
        self._query_nonces = Pmac(derive(root, Purpose.QUERY_NOISE_NONCE, *query_context))
        self._query_noise = Keystream(derive(root, Purpose.QUERY_NOISE, *query_context))

    def on_records(self, out: Matrix, tokens: Nonces, kept: Kept) -> Nonces:
        """Add noise to (n, k) rotated points of records in place; `kept` are their vectors. Returns their nonces."""
        nonces = self.nonces.tags(tokens, canonical(kept))
        self._perturb(out, self.stream, nonces, self._radius)
        return nonces

    def on_queries(self, out: Matrix, points: Matrix) -> None:
        """Add noise to (q, k) rotated queries in place."""
        if self._query_radius or (self._sphere and len(out) and lengths(out).min() < CENTRE):
            self._perturb(out, self._query_noise, self._query_nonces.tags(canonical(points)), self._query_radius)
        elif self._sphere:
            out /= lengths(out)[:, None]

    def off(self, out: Matrix, nonces: Nonces) -> None:
        """Subtract the noise of records in place, if they were not put on the sphere."""
        if self._radius:
            add_ball_noise(self.stream, nonces, self._radius, out, sign=-1)

    def _perturb(self, out: Matrix, stream: Keystream, nonces: Nonces, radius: float) -> None:
        if self._sphere:
            _to_sphere(out, stream, nonces)
        if radius:
            add_ball_noise(stream, nonces, radius, out)
            if self._sphere:
                _to_sphere(out, stream, nonces)


def lengths(points: Matrix) -> Matrix:
    """Return the lengths of (n, k) points, (n,)."""
    found: Matrix = np.sqrt(np.einsum("ij,ij->i", points, points))
    return found


def canonical(vectors: Kept) -> Bytes:
    """Return the bytes of (n, dim) float32 or float16 vectors, little-endian, with -0.0 made 0.0."""
    if vectors.dtype.itemsize == 2:  # on the bits, because NumPy adds float16 slowly
        bits = np.array(vectors, "<f2", order="C").view("<u2")
        bits[bits == _MINUS_ZERO] = 0
        return bits.view(np.uint8)
    return np.ascontiguousarray(vectors + np.float32(0), "<f4").view(np.uint8)


def _to_sphere(out: Matrix, stream: Keystream, nonces: Nonces) -> None:
    """Put (n, k) points on the unit sphere in place. A point at the centre gets a direction from its nonce."""
    long = lengths(out)
    at = device_of(out)
    centre = at.get(np.flatnonzero(long < CENTRE))
    if len(centre):
        away = ball_noise(stream, nonces[centre], 1.0, out.shape[1])
        out[centre] = at.put(away)
        long[centre] = at.put(np.linalg.norm(away, axis=1))
    out /= long[:, None]
