"""Keyed noise, uniform in a ball, that the key holder can draw again; imports crypto.prf.

A Gaussian vector over its length is uniform on the sphere (Muller, CACM 2(4), 1959); times U^(1/dim)
its end point is uniform in the ball. All of it comes from AES-CTR under the noise key and a nonce, so
who holds key and nonce can subtract it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .prf import Bytes, Keystream

__all__ = ["add_ball_noise", "ball_noise"]

Matrix = npt.NDArray[np.float32]
_CHUNK_BYTES = 1 << 18  # work that stays in the second-level cache
_TURN = np.float32(2 * np.pi * 2.0**-24)
_STEP = np.float32(2.0**-24)


def add_ball_noise(stream: Keystream, nonces: Bytes, radius: float, points: Matrix, *, sign: int = 1) -> None:
    """Add (or with sign -1 subtract) to each row of (n, dim) `points` its noise, uniform in the ball of `radius`."""
    n, dim = points.shape
    half = -(-dim // 2)
    step = max(1, _CHUNK_BYTES // (4 * dim))
    gauss = np.empty((min(n, step), 2 * half), np.float32)
    for start in range(0, n, step):
        part = points[start : start + step]
        words = stream.words(nonces[start : start + step], 2 * half + 2)
        g = gauss[: len(part)]
        _box_muller(words[:, : 2 * half], half, g)
        g = g[:, :dim]
        uniform = _unit_interval(words[:, 2 * half :])
        lengths = np.sqrt(np.einsum("ij,ij->i", g, g))
        g *= (sign * radius * uniform ** (1 / dim) / lengths).astype(np.float32)[:, None]
        part += g


def ball_noise(stream: Keystream, nonces: Bytes, radius: float, dim: int) -> Matrix:
    """Draw the noise of each nonce: (n, 16) uint8 -> (n, dim) float32, uniform in the ball of `radius`."""
    noise = np.zeros((len(nonces), dim), np.float32)
    add_ball_noise(stream, nonces, radius, noise)
    return noise


def _box_muller(words: npt.NDArray[np.uint32], half: int, out: Matrix) -> None:
    """Turn (n, 2 half) words into standard normals by Box and Muller (1958), 24 bits a uniform."""
    bits = words >> np.uint32(8)
    radius = bits[:, :half].astype(np.float32)
    radius += np.float32(0.5)
    radius *= _STEP
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle = bits[:, half:].astype(np.float32)
    angle *= _TURN
    np.multiply(radius, np.cos(angle), out=out[:, :half])
    np.multiply(radius, np.sin(angle, out=angle), out=out[:, half:])


def _unit_interval(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.float64]:
    """Turn (n, 2) words into (n,) uniforms in (0, 1) of 53 bits."""
    wide = words.astype(np.uint64)
    return (((wide[:, 0] << np.uint64(21)) ^ (wide[:, 1] >> np.uint64(11))) + 0.5) * 2.0**-53
