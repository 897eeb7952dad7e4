"""Linear algebra that the attacks share, on blocks of rows, in single precision."""

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
    "closeness",
    "eigen",
    "float32",
    "haar",
    "mutual",
    "nearest",
    "procrustes",
    "raised",
    "sample",
    "unit",
]

Indices = npt.NDArray[np.intp]
Cells = npt.NDArray[np.int64]
"""The cell of each record, counted from 0."""

_BLOCK = 2048
_CSLS = 10
_CLUSTERED, _LLOYD = 5000, 15
_FLOOR = 1e-3
"""Smaller eigenvalues are raised to this share of the largest: whitening must not blow up directions without data."""


def float32(values: npt.ArrayLike) -> Matrix:
    """Return a contiguous array in single precision."""
    return np.ascontiguousarray(values, dtype=np.float32)


def unit(points: npt.NDArray[np.floating]) -> Matrix:
    """Scale (n, d) points to unit length; zero vectors stay zero."""
    length = np.linalg.norm(points, axis=1, keepdims=True)
    result: Matrix = points / np.maximum(length, np.float32(1e-12))
    return result


def centred(points: Matrix) -> Matrix:
    """Subtract the mean from (n, d) points."""
    result: Matrix = points - points.mean(axis=0)
    return result


def sample(points: Matrix, most: int, rng: np.random.Generator) -> Matrix:
    """Draw at most `most` of the points, without replacement."""
    return points if len(points) <= most else points[rng.choice(len(points), most, replace=False)]


def blocks(count: int, size: int = _BLOCK) -> Iterator[slice]:
    """Cut `count` rows into slices, so that an (n, n) matrix is never held in memory."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def raised(values: Matrix, power: int) -> Matrix:
    """Return values**power for a power of 1 or more, by products: NumPy's own takes thirty times as long from 3 on."""
    if power == 1:
        return values
    half = raised(values, power // 2)
    result: Matrix = half * half * values if power % 2 else half * half
    return result


def eigen(symmetric: npt.NDArray[np.floating]) -> tuple[Matrix, Matrix]:
    """Return the eigenvalues, largest first, and the eigenvectors in columns. Computes in double precision."""
    values, vectors = np.linalg.eigh(symmetric.astype(np.float64))
    return float32(values[::-1]), float32(vectors[:, ::-1])


def nearest(points: Matrix, candidates: Matrix) -> Indices:
    """Return for each point the index of the candidate with the largest inner product."""
    found = np.empty(len(points), np.intp)
    for rows in blocks(len(points)):
        found[rows] = (points[rows] @ candidates.T).argmax(axis=1)
    return found


def closeness(points: Matrix, targets: Matrix) -> float:
    """Return the mean cosine of (n, d) points to the nearest of (m, d) targets: what an adversary can see of a map."""
    return float((unit(points) @ unit(targets).T).max(axis=1).mean())


def mutual(a: Matrix, b: Matrix, neighbours: int = _CSLS) -> tuple[Indices, Indices, Matrix]:
    """Return the rows of a (n, d) and b (m, d) that are each other's nearest under CSLS, and their cosines.

    Both hold unit vectors. CSLS subtracts half of each point's mean similarity to its nearest points on the other
    side, so that hubs do not attract everything (Conneau et al., "Word translation without parallel data", ICLR 2018).
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

    With a rank, only that many leading directions are mapped, and all others to zero: a few pairs tell no more.
    """
    cross = a.T.astype(np.float64) @ b.astype(np.float64)
    try:
        u, _, vt = np.linalg.svd(cross)
    except np.linalg.LinAlgError:  # LAPACK fails on some exactly degenerate matrices, not on slightly changed ones
        cross += 1e-9 * np.linalg.norm(cross) * np.random.default_rng(0).standard_normal(cross.shape)
        u, _, vt = np.linalg.svd(cross)
    return float32(u[:, :rank] @ vt[:rank])


def haar(dim: int, rng: np.random.Generator) -> Matrix:
    """Draw a Haar-random orthogonal matrix (Mezzadri, Notices of the AMS 54(5), 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    return float32(q * np.where(np.diagonal(r) < 0, -1.0, 1.0))


def ball(count: int, dim: int, rng: np.random.Generator) -> Matrix:
    """Draw `count` points uniformly from the unit ball."""
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
    """(k,), standard deviations along them; the smallest are raised to a floor."""

    @classmethod
    def fit(cls, vectors: Matrix, dims: int | None = None) -> Statistics:
        """Fit (n, d) vectors, and keep `dims` <= d directions (all by default)."""
        away = centred(vectors)
        values, basis = eigen(away.T @ away / np.float32(len(away)))
        values = np.maximum(values[:dims], _FLOOR * values[0])
        return cls(vectors.mean(axis=0), float32(basis[:, :dims]), np.sqrt(values))

    def whitened(self, vectors: Matrix, power: float = 1.0) -> Matrix:
        """Project (n, d) onto the eigenvectors and divide each coordinate by its deviation raised to `power`."""
        result: Matrix = (vectors - self.mean) @ (self.basis / self.spread**power)
        return result


def centroids(points: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    """Return `count` centres of (n, d) unit vectors by spherical k-means (Dhillon and Modha, 2001)."""
    points = sample(points, _CLUSTERED, rng)
    count = min(count, len(points))
    centres = points[rng.choice(len(points), count, replace=False)]
    numbers = np.arange(count)
    for _ in range(_LLOYD):
        sums = np.zeros_like(centres)
        for rows in blocks(len(points)):
            own = (points[rows] @ centres.T).argmax(axis=1)
            sums += float32(numbers[:, None] == own) @ points[rows]
        centres = unit(np.where(np.abs(sums).sum(axis=1, keepdims=True) > 0, sums, centres))
    return centres
