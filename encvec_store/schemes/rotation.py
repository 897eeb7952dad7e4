"""Keyed orthogonal transforms, Haar-distributed.

Up to `DENSE` dimensions the transform is one Haar-random orthogonal matrix: the QR decomposition of a
Gaussian matrix with the signs of R's diagonal moved into Q (Mezzadri, Notices of the AMS 54(5), 2007).
Above that a product costs too much, so the transform is a chain of three rounds. A round is a keyed
permutation and then Haar blocks on the diagonal. The chain is exactly orthogonal, and every output
depends on every input. Records are rotated by `turning`, which gives a record the same bits in every
batch; queries by `apply`, which is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..crypto.prf import Keystream, batches
from ..data.arrays import Matrix
from .device import CPU, Device
from .exact import Exact, grid
from .threads import one_thread

__all__ = ["DENSE", "Rotation", "haar", "rotation", "turning"]

DENSE = 1024
"""Largest dimension that gets one dense matrix; docs/decisions/0003 has the measurement."""
BLOCK = 128
"""Blocks have at most this many rows, and nearly equal sizes."""

ROUNDS = 3


def haar(stream: Keystream, dim: int, index: int) -> npt.NDArray[np.float64]:
    """Draw the `index`-th Haar-random orthogonal (dim, dim) matrix of a keystream."""
    gaussian = stream.gaussians(dim * dim, stream=index).reshape(dim, dim)
    # on a busy machine a QR with many threads waits for them: 4 to 13 s at 1,024, instead of 0.5 s
    with one_thread():
        q, r = np.linalg.qr(gaussian)
    return q * np.where(np.diagonal(r) < 0, -1.0, 1.0)


class Rotation(Protocol):
    """An orthogonal map of row vectors."""

    def apply(self, points: Matrix) -> Matrix:
        """Rotate (n, dim) points."""
        ...

    def invert(self, points: Matrix) -> Matrix:
        """Rotate (n, dim) points back."""
        ...

    def exact(self, *, keep: bool) -> Callable[[Matrix], Matrix]:
        """Return a function like `apply` that gives a row the same bits in every batch.

        Args:
            keep: use more memory to be faster (see `Exact`).
        """
        ...


class _Dense:
    def __init__(self, key: bytes, dim: int) -> None:
        self._matrix = np.ascontiguousarray(grid(haar(Keystream(key), dim, 0)))

    def apply(self, points: Matrix) -> Matrix:
        return points @ self._matrix

    def invert(self, points: Matrix) -> Matrix:
        return points @ self._matrix.T

    def exact(self, *, keep: bool) -> Callable[[Matrix], Matrix]:
        return Exact(self._matrix, keep=keep)


class _Chain:
    def __init__(self, key: bytes, dim: int) -> None:
        stream = Keystream(key)
        count = -(-dim // BLOCK)
        self._spans = [slice(dim * i // count, dim * (i + 1) // count) for i in range(count)]
        self._rounds: list[tuple[npt.NDArray[np.intp], list[Matrix]]] = []
        for number in range(ROUNDS):
            first = number * (count + 1)
            order = stream.permutation(dim, stream=first)
            blocks = [
                np.ascontiguousarray(grid(haar(stream, span.stop - span.start, first + 1 + i)))
                for i, span in enumerate(self._spans)
            ]
            self._rounds.append((order, blocks))

    def apply(self, points: Matrix) -> Matrix:
        return self._walk(points, self._rounds)

    def exact(self, *, keep: bool) -> Callable[[Matrix], Matrix]:
        rounds = [(order, [Exact(block, keep=keep) for block in blocks]) for order, blocks in self._rounds]
        return lambda points: self._walk(points, rounds)

    def _walk(self, points: Matrix, rounds: Any) -> Matrix:
        """Apply rounds of (order, blocks), each block a matrix or an `Exact`."""
        n, dim = points.shape
        out = np.empty((n, dim), np.float32)
        size, parts = batches(n, 4 * dim)
        room = np.empty((size, dim), np.float32)
        for rows in parts:
            part, target, mixed = points[rows], out[rows], room[: rows.stop - rows.start]
            for order, blocks in rounds:
                np.take(part, order, axis=1, out=mixed, mode="clip")  # mode "raise" would make one more copy
                part = target
                for span, block in zip(self._spans, blocks, strict=True):
                    if isinstance(block, Exact):
                        block(mixed[:, span], part[:, span])
                    else:
                        np.matmul(mixed[:, span], block, out=part[:, span])
        return out

    def invert(self, points: Matrix) -> Matrix:
        for order, blocks in reversed(self._rounds):
            mixed = np.empty_like(points)
            for span, block in zip(self._spans, blocks, strict=True):
                mixed[:, span] = points[:, span] @ block.T
            points = np.empty_like(mixed)
            points[:, order] = mixed
        return points


def rotation(key: bytes, dim: int) -> Rotation:
    """Build the orthogonal transform of a key, for `dim` coordinates."""
    return _Dense(key, dim) if dim <= DENSE else _Chain(key, dim)


def turning(turn: Rotation, dim: int, at: Device, *, keep: bool = True) -> Callable[[Matrix], Matrix]:
    """Return a function that rotates (n, dim) points of records on a device and leaves them there.

    Args:
        turn: the rotation.
        dim: its dimension.
        at: the device.
        keep: as for `Rotation.exact`.
    """
    if at is CPU:
        return turn.exact(keep=keep)
    # on a GPU one large product is faster than the chain
    return Exact(grid(turn.apply(np.eye(dim, dtype=np.float32))), at, keep=keep)
