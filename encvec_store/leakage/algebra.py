"""Linear algebra that attacks share: blocks instead of loops over vectors, single precision; imports NumPy only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = [
    "Indices",
    "Matrix",
    "blocks",
    "centred",
    "eigen",
    "float32",
    "mutual",
    "nearest",
    "procrustes",
    "sample",
    "unit",
]

Matrix = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

_BLOCK = 2048
_CSLS = 10


def float32(values: npt.ArrayLike) -> Matrix:
    """Return a contiguous array in single precision."""
    return np.ascontiguousarray(values, dtype=np.float32)


def unit(points: npt.NDArray[np.floating]) -> Matrix:
    """Put (n, d) points on the unit sphere; a zero stays where it is."""
    length = np.linalg.norm(points, axis=1, keepdims=True)
    result: Matrix = points / np.maximum(length, np.float32(1e-12))
    return result


def centred(points: Matrix) -> Matrix:
    """Take the mean of (n, d) points away."""
    result: Matrix = points - points.mean(axis=0)
    return result


def sample(points: Matrix, most: int, rng: np.random.Generator) -> Matrix:
    """Draw at most `most` of the points, without replacement."""
    return points if len(points) <= most else points[rng.choice(len(points), most, replace=False)]


def blocks(count: int, size: int = _BLOCK) -> Iterator[slice]:
    """Cut `count` rows into slices, so that a (n, n) matrix never stands in memory."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def eigen(symmetric: npt.NDArray[np.floating]) -> tuple[Matrix, Matrix]:
    """Eigenvalues, largest first, and the eigenvectors in columns, in double precision inside."""
    values, vectors = np.linalg.eigh(symmetric.astype(np.float64))
    return float32(values[::-1]), float32(vectors[:, ::-1])


def nearest(points: Matrix, candidates: Matrix) -> Indices:
    """Index of each point's candidate with the largest inner product."""
    found = np.empty(len(points), np.intp)
    for rows in blocks(len(points)):
        found[rows] = (points[rows] @ candidates.T).argmax(axis=1)
    return found


def mutual(a: Matrix, b: Matrix, neighbours: int = _CSLS) -> tuple[Indices, Indices, Matrix]:
    """Pairs of unit vectors (n, d), (m, d) that are each other's nearest under CSLS, and the cosines of those pairs.

    CSLS takes half the mean similarity to the nearest of the other side off every similarity, so that hubs do not
    attract everything (Conneau et al., "Word translation without parallel data", ICLR 2018).
    """
    similar = a @ b.T
    k = min(neighbours, len(a) - 1, len(b) - 1)
    near_a = np.partition(similar, -k, axis=1)[:, -k:].mean(axis=1)
    near_b = np.partition(similar, -k, axis=0)[-k:].mean(axis=0)
    adjusted = similar - (near_a / 2)[:, None]
    adjusted -= near_b / 2
    forward, backward = adjusted.argmax(axis=1), adjusted.argmax(axis=0)
    rows = np.flatnonzero(backward[forward] == np.arange(len(a)))
    return rows, forward[rows], similar[rows, forward[rows]]


def procrustes(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating], rank: int | None = None) -> Matrix:
    """Return the orthogonal matrix R that brings a @ R closest to b (Schonemann, Psychometrika 31, 1966).

    With a rank, only that many leading directions are mapped and the rest goes to zero: all that a few pairs tell.
    """
    u, _, vt = np.linalg.svd(a.T.astype(np.float64) @ b.astype(np.float64))
    return float32(u[:, :rank] @ vt[:rank])
