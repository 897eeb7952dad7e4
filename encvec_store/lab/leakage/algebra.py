"""Linear algebra that attacks share: blocks instead of loops over vectors, single precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...data import Matrix

__all__ = [
    "Cells",
    "Indices",
    "Statistics",
    "ball",
    "blocks",
    "centred",
    "centroids",
    "eigen",
    "float32",
    "haar",
    "mutual",
    "nearest",
    "procrustes",
    "sample",
    "unit",
]

Indices = npt.NDArray[np.intp]
Cells = npt.NDArray[np.int64]
"""Which cell each record is in, from 0."""

_BLOCK = 2048
_CSLS = 10
_CLUSTERED, _LLOYD = 5000, 15
_FLOOR = 1e-3
"""Eigenvalues below this share of the largest count as that share: directions without data must not be blown up."""


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
    cross = a.T.astype(np.float64) @ b.astype(np.float64)
    try:
        u, _, vt = np.linalg.svd(cross)
    except np.linalg.LinAlgError:  # LAPACK gives up on some exactly degenerate matrices, and not on those beside them
        cross += 1e-9 * np.linalg.norm(cross) * np.random.default_rng(0).standard_normal(cross.shape)
        u, _, vt = np.linalg.svd(cross)
    return float32(u[:, :rank] @ vt[:rank])


def haar(dim: int, rng: np.random.Generator) -> Matrix:
    """Haar-random orthogonal matrix (Mezzadri, Notices of the AMS 54(5), 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    return float32(q * np.where(np.diagonal(r) < 0, -1.0, 1.0))


def ball(count: int, dim: int, rng: np.random.Generator) -> Matrix:
    """Points uniform in the unit ball."""
    noise = rng.standard_normal((count, dim), dtype=np.float32)
    noise *= (rng.random(count) ** (1 / dim) / np.linalg.norm(noise, axis=1)).astype(np.float32)[:, None]
    return noise


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of some vectors, reduced to the leading eigenvectors."""

    mean: Matrix
    basis: Matrix
    """(d, k), the leading eigenvectors."""
    spread: Matrix
    """(k,), standard deviations along them, floored."""

    @classmethod
    def fit(cls, vectors: Matrix, dims: int | None = None) -> Statistics:
        """From (n, d) vectors; `dims` at most d are kept."""
        away = centred(vectors)
        values, basis = eigen(away.T @ away / np.float32(len(away)))
        values = np.maximum(values[:dims], _FLOOR * values[0])
        return cls(vectors.mean(axis=0), float32(basis[:, :dims]), np.sqrt(values))

    def whitened(self, vectors: Matrix, power: float = 1.0) -> Matrix:
        """Project (n, d) on the eigenvectors and divide coordinate i by its deviation to this power."""
        result: Matrix = (vectors - self.mean) @ (self.basis / self.spread**power)
        return result


def centroids(points: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    """Spherical k-means of (n, d) unit vectors (Dhillon and Modha, 2001) from a random start: `count` centres."""
    points = sample(points, _CLUSTERED, rng)
    count = min(count, len(points))
    centres = points[rng.choice(len(points), count, replace=False)]
    for _ in range(_LLOYD):
        sums = np.zeros_like(centres)
        for rows in blocks(len(points)):
            own = (points[rows] @ centres.T).argmax(axis=1)
            np.add.at(sums, own, points[rows])
        centres = unit(np.where(np.abs(sums).sum(axis=1, keepdims=True) > 0, sums, centres))
    return centres
