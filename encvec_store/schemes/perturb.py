"""Keyed noise, uniform in a ball. Whoever holds the key can draw it again.

A point uniform on the sphere of dim + 2 dimensions has first dim coordinates uniform in the ball (Harman
and Lacko, J. Multivariate Analysis 101, 2010), and a Gaussian vector over its length is uniform on the
sphere (Muller, CACM 2(4), 1959). The Gaussians come in pairs, by Box and Muller (1958):
sqrt(-2 log u) (cos a, sin a). So squared lengths are sums of -2 log u, and the factor 2 cancels.

All of it comes from AES-CTR under the noise key and a nonce. Whoever holds both can subtract it.
"""

from __future__ import annotations

import numpy as np

from ..crypto.prf import Keystream, batches
from ..data.arrays import Bytes, Matrix
from .device import device_of

__all__ = ["add_ball_noise", "ball_noise"]

# 32-bit signed integers i become uniforms i * _STEP + 1/2 in [2^-24, 1 - 2^-24], whose logarithm is finite
# and never 0, and angles i * _TURN in [-pi, pi]. Both keep the 24 bits of a float32.
_STEP = np.float32((0.5 - 2.0**-24) * 2.0**-31)
_TURN = np.float32(np.pi * 2.0**-31)


def add_ball_noise(stream: Keystream, nonces: Bytes, radius: float, points: Matrix, *, sign: int = 1) -> None:
    """Add (or with sign -1 subtract) to each row of (n, dim) `points` its noise, uniform in the ball of `radius`."""
    n, dim = points.shape
    at = device_of(points)
    pairs = -(-dim // 2)
    combine = np.add if sign > 0 else np.subtract
    size, _ = batches(n, 4 * dim)  # no smaller than a batch of keystream, whose rows are longer
    angles, squares, sides = (at.empty((size, pairs + more)) for more in (0, 1, 0))
    for rows, words in stream.batches(nonces, 2 * pairs + 1):
        count = rows.stop - rows.start
        angle, square, side = angles[:count], squares[:count], sides[:count]
        integers = at.put(words.view(np.int32))
        np.multiply(integers[:, :pairs], _TURN, out=angle, dtype=np.float32, casting="unsafe")
        # one pair more than dim needs, for the two coordinates that are dropped
        np.multiply(integers[:, pairs:], _STEP, out=square, dtype=np.float32, casting="unsafe")
        square += np.float32(0.5)
        np.log(square, out=square)
        total = np.einsum("ij->i", square)
        if dim % 2:  # the last pair gives one coordinate; the other one must not count in the length
            total -= square[:, pairs - 1] * np.square(np.sin(angle[:, -1]))
        length = square[:, :pairs]
        length *= (np.float32(radius**2) / total)[:, None]
        np.sqrt(length, out=length)
        for half, turn in ((points[rows, :pairs], np.cos), (points[rows, pairs:], np.sin)):
            noise = side[:, : half.shape[1]]
            turn(angle[:, : half.shape[1]], out=noise)
            noise *= length[:, : half.shape[1]]
            combine(half, noise, out=half)


def ball_noise(stream: Keystream, nonces: Bytes, radius: float, dim: int) -> Matrix:
    """Draw the noise of each nonce: (n, 16) uint8 -> (n, dim) float32, uniform in the ball of `radius`."""
    noise = np.zeros((len(nonces), dim), np.float32)
    add_ball_noise(stream, nonces, radius, noise)
    return noise
