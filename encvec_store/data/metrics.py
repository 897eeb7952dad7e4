"""Metrics: exact scores, and the lift that puts every vector on the unit sphere.

Schemes see only points of the unit sphere, and inner products of points rank as the metric does. So
a ciphertext does not show the length of its vector, and one long vector cannot outweigh the noise.

    cosine   m / |m|                                               query: q / |q|
    ip       (a, sqrt(1 - |a|^2)),              a = m / max_norm   query: (q, 0), normalised
    l2       (a, t, sqrt(2 - t - t^2)) / sqrt 2, t = |a|^2         query: (2 q / max_norm, -1, 0), normalised

The second is the reduction of Neyshabur and Srebro (ICML 2015); the third applies it to
2 <a, q> - |a|^2 = |q|^2 - |a - q|^2, which orders by Euclidean distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, MetricError, NonFiniteError, NormError, ShapeError, ZeroVectorError
from .arrays import Matrix
from .columns import as_numbers

__all__ = ["METRICS", "Centre", "Metric", "as_array", "as_vectors", "metric", "norms"]

Wide = npt.NDArray[np.float64]

_TINY = 1e-30
_UNIT_ROUNDOFF = np.float32(2.0**-24)
_LEAST = np.float32(1e-36)
"""Added to error bounds, for products that underflow."""
_MANY = 64
"""With fewer vectors, all of them are scored exactly."""

_MARGIN = 1.25
"""Room for vectors that come later, beyond the largest of a sample."""
_ROUNDING = 1 + 1e-5  # a vector normalised in float32 may be slightly longer than 1, and must pass a max_norm of 1


def as_array(values: Any, name: str) -> npt.NDArray[Any]:
    """Turn what the caller gave into an array. Raises ShapeError, which shows no value."""
    try:
        array = _unmasked(as_numbers(values, name), name)
        if array.dtype == object and array.ndim == 1:  # a column of vectors, such as a pandas Series of arrays
            array = _unmasked(array.tolist(), name)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise ShapeError(f"{name} must have rows of equal length") from None
    if array.dtype == object and array.ndim == 0:
        raise ShapeError(f"{name} must be an array or a list, got {type(values).__name__}: give a list")
    return array


def _unmasked(values: Any, name: str) -> npt.NDArray[Any]:
    """Make an array. Raises ShapeError if values are masked: numpy would take what is under the mask."""
    rows = values if isinstance(values, list | tuple) else (values,)
    if any(issubclass(kind, np.ma.MaskedArray) for kind in set(map(type, rows))) and any(map(np.ma.is_masked, rows)):
        raise ShapeError(f"{name} must not have masked values: fill them, or leave their rows out")
    return np.asarray(values)


def as_vectors(vectors: Any, dim: int, *, name: str = "vectors") -> Matrix:
    """Return `vectors` as a C-contiguous float32 (n, dim) array. Raises ShapeError or NonFiniteError."""
    array = as_array(vectors, name)
    if array.dtype.kind not in "fiu":
        raise ShapeError(f"{name}: expected numbers, got dtype {array.dtype}")
    if array.shape == (0,):
        array = array.reshape(0, dim)
    if array.ndim != 2 or array.shape[1] != dim:
        raise ShapeError(f"{name}: expected shape (n, {dim}), got {array.shape}")
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, dtype=np.float32)
    if len(array) == 1 and math.isfinite(np.vdot(array, array)):
        return array  # the common case of a search, in a tenth of the time
    # one pass if all is well: a NaN or an infinity makes the sum of its row NaN or infinite
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = ~np.isfinite(np.einsum("ij->i", array))
    if suspect.any():
        finite = np.isfinite(array[suspect]).all(axis=1)
        if not finite.all():
            row = int(np.flatnonzero(suspect)[np.flatnonzero(~finite)[0]])
            raise NonFiniteError(f"{name}[{row}] holds NaN or infinity (or overflows float32)")
    return array


def norms(vectors: Matrix) -> npt.NDArray[np.float64]:
    """Euclidean lengths, (n,). Right even if the squares overflow or underflow float32."""
    if len(vectors) == 1 and _TINY < (square := float(np.vdot(vectors, vectors))) < 1 / _TINY:
        return np.array([math.sqrt(square)])
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors).astype(np.float64)
    odd = ~((squares > _TINY) & (squares < 1 / _TINY))
    if odd.any():
        squares[odd] = np.square(vectors[odd].astype(np.float64)).sum(axis=1)
    lengths: npt.NDArray[np.float64] = np.sqrt(squares)
    return lengths


def _unit(vectors: Matrix, name: str) -> Matrix:
    """Scale (n, dim) vectors to length 1. A vector gives the same bits in every batch."""
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
        points: Matrix = vectors * (1 / np.sqrt(squares))[:, None]  # right for nearly all vectors; see below
    odd = ~((squares > _TINY) & (squares < 1 / _TINY))
    if odd.any():
        lengths = norms(vectors[odd])
        if (lengths == 0).any():
            row = int(np.flatnonzero(odd)[np.flatnonzero(lengths == 0)[0]])
            raise ZeroVectorError(f"{name}[{row}] is the zero vector: it has no cosine")
        # in double precision, because 1 / length may overflow float32
        points[odd] = vectors[odd] / lengths[:, None]
    return _unsigned(points)


def _unsigned(points: npt.NDArray[Any]) -> Matrix:
    """Turn -0.0 into 0.0, in place: the sign of a zero must not change the ciphertext."""
    points += 0.0
    return points.astype(np.float32, copy=False)


def _given(max_norm: float | None) -> float:
    if max_norm is None:
        raise NormError("this metric needs max_norm, the largest length of a vector")
    return max_norm


@dataclass(frozen=True, eq=False)
class Centre:
    """Where the vectors of a collection lie: the lift counts from there, so that noise is small beside their spread."""

    point: Matrix
    """(dim,)."""
    radius: float
    """Vectors farther from the point are lifted too, but rank less well."""


def _scaled(vectors: Wide, max_norm: float | None, centre: Centre | None) -> Wide:
    """Scale (n, dim) vectors to lengths of about 1 or less."""
    return vectors / _given(max_norm) if centre is None else (vectors - centre.point) / centre.radius


@dataclass(frozen=True)
class Metric:
    """A metric: its lift and its exact scores."""

    name: str
    extra: int
    """How many coordinates the lift adds."""
    descending: bool
    """True if a larger score is nearer."""

    @property
    def bounded(self) -> bool:
        """True if vectors must not be longer than the collection's max_norm."""
        return self.extra > 0

    def check(self, vectors: Matrix, max_norm: float | None, name: str = "vectors") -> npt.NDArray[np.float64]:
        """Return the lengths, (n,). Raises ZeroVectorError or NormError if a vector cannot be lifted."""
        lengths = norms(vectors)
        if not self.bounded:
            if len(lengths) and lengths.min() == 0:
                raise ZeroVectorError(f"{name}[{int(lengths.argmin())}] is the zero vector: it has no cosine")
        elif max_norm is not None and len(lengths) and lengths.max() > max_norm * _ROUNDING:
            row = int(lengths.argmax())
            raise NormError(
                f"{name}[{row}] has norm {lengths[row]:.6g}, above the collection's max_norm {max_norm:.6g}. "
                "Scale the vectors, or create the collection with a larger max_norm"
            )
        return lengths

    def centre_of(self, vectors: Matrix) -> Centre | None:
        """Find where (n, dim) vectors lie; None for metrics other than l2, whose scores depend on where 0 is."""
        if self.name != "l2":
            return None
        point = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        radius = float(norms(vectors - point).max())
        return Centre(point, _MARGIN * radius if radius > 0 else 1.0)

    def lift(self, vectors: Matrix, max_norm: float | None = None, centre: Centre | None = None) -> Matrix:
        """Map (n, dim) vectors to (n, dim + extra) points of the unit sphere. Call `check` first.

        A vector gives the same bits alone and in any batch. The signs of its zeros do not matter.
        """
        if not self.bounded:
            return _unit(vectors, "vectors")
        scaled = _scaled(vectors.astype(np.float64), max_norm, centre)
        squared = np.minimum(np.einsum("ij,ij->i", scaled, scaled), 1.0)[:, None]
        if self.name == "ip":
            parts = [scaled, np.sqrt(1 - squared)]
        else:
            parts = [scaled, squared, np.sqrt(np.maximum(2 - squared - squared**2, 0))]
        points = np.concatenate(parts, axis=1)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        return _unsigned(points)

    def lift_query(self, queries: Matrix, max_norm: float | None = None, centre: Centre | None = None) -> Matrix:
        """Map (q, dim) queries to (q, dim + extra) points of the unit sphere."""
        if not self.bounded:
            return _unit(queries, "queries")
        zeros = np.zeros((len(queries), 1))
        wide = queries.astype(np.float64)
        parts = [wide, zeros] if self.name == "ip" else [2 * _scaled(wide, max_norm, centre), zeros - 1, zeros]
        points = np.concatenate(parts, axis=1)
        lengths = np.linalg.norm(points, axis=1, keepdims=True)
        points /= np.where(lengths == 0, 1, lengths)  # ip: a zero query scores 0 with everything
        return _unsigned(points)

    def scores(self, query: Matrix, vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the exact scores of (n, dim) vectors for a (dim,) query: (n,), in double precision."""
        wide, q = vectors.astype(np.float64), query.astype(np.float64)
        scores: npt.NDArray[np.float64]
        if self.name == "l2":
            wide -= q
            scores = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        else:
            scores = wide @ q
            if self.name == "cosine":
                scores /= np.sqrt(np.einsum("ij,ij->i", wide, wide) * (q @ q))
                np.minimum(scores, 1, out=scores)
                np.maximum(scores, -1, out=scores)
        return scores

    def contenders(self, query: Matrix, vectors: Matrix, k: int) -> npt.NDArray[np.intp]:
        """Return the places, ascending, of those of (n, dim) vectors that may be among the k nearest.

        Only these need an exact score. They are found by scores in single precision and a bound on their error that
        holds for any order of summation: gamma |a| |q| for an inner product, with gamma = n u / (1 - n u) (Higham,
        Accuracy and Stability of Numerical Algorithms, 2002, 3.1).
        """
        n, dim = vectors.shape
        if n < _MANY or n <= 4 * k:
            return np.arange(n)
        gamma = 2 * (dim + 4) * _UNIT_ROUNDOFF  # twice: for the quotient of cosine, the difference of l2, and slack
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            if self.name == "l2":
                apart = vectors - query
                far = np.einsum("ij,ij->i", apart, apart)
                margin = gamma * far + _LEAST
                if not np.isfinite(far).all():
                    return np.arange(n)
                return np.flatnonzero(far - margin <= np.partition(far + margin, k - 1)[k - 1])
            squares = np.einsum("ij,ij->i", vectors, vectors)
            longest, length = squares.max(), query @ query
            if not (squares.min() > _TINY and longest < 1 / _TINY and _TINY < length < 1 / _TINY):
                return np.arange(n)  # products may leave float32's range
            near = vectors @ query
            if self.name == "cosine":
                near /= np.sqrt(squares)
                longest = np.float32(1)
        margin = gamma * np.sqrt(longest) * np.sqrt(length) + _LEAST
        return np.flatnonzero(near >= np.partition(near, n - k)[n - k] - 2 * margin)

    def order(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return scores for which smaller is nearer."""
        return -scores if self.descending else scores


METRICS = {
    "cosine": Metric("cosine", extra=0, descending=True),
    "l2": Metric("l2", extra=2, descending=False),
    "ip": Metric("ip", extra=1, descending=True),
}


def metric(name: str) -> Metric:
    """Look a metric up by name. Raises MetricError."""
    try:
        return METRICS[name]
    except (KeyError, TypeError):
        raise MetricError(f"metric must be one of {', '.join(METRICS)}, got {name!r}") from None
