"""Undo a shuffle of coordinates. They keep their statistics, so moments and then correlations match them."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ....data import Matrix
from ..algebra import Indices, centred, float32
from ..views import Case, View

__all__ = ["coordinates", "permuted"]

_ROUNDS = 30


def coordinates(view: View, case: Case) -> Matrix:
    """Match coordinates by mean, deviation and third moment, then by correlations with those matched so far.

    The assignment uses SciPy's Hungarian method (Kuhn, 1955). It starts twice: from moments, and from sorted rows of
    the precision matrix, which stay similar across domains. The better fit is returned.
    """
    plain = case.corpus
    starts = [_apart(_moments(view.cipher), _moments(plain)), _apart(_signature(view.cipher), _signature(plain))]
    left, right = _correlations(view.cipher), _correlations(plain)
    best, found = -np.inf, np.arange(plain.shape[1])
    for start in starts:
        order = linear_sum_assignment(start)[1]
        gain = 0.0
        for _ in range(_ROUNDS):
            alike = left @ right[:, order].T
            before, order = order, linear_sum_assignment(0.01 * start - alike)[1]
            gain = float((left * right[np.ix_(order, order)]).sum())
            if (before == order).all():
                break
        if gain > best:
            best, found = gain, order
    return permuted(view, case, found)


def permuted(view: View, case: Case, order: Indices) -> Matrix:
    """Move ciphertext coordinate i to place order[i], and subtract the mean."""
    located = np.empty_like(view.cipher)
    located[:, order] = centred(view.cipher)
    return located


def _correlations(points: Matrix) -> Matrix:
    away = centred(points)
    away /= np.linalg.norm(away, axis=0) + 1e-9  # a coordinate may be constant
    result: Matrix = away.T @ away
    return result


def _moments(points: Matrix) -> Matrix:
    away = centred(points)
    scale = away.std()
    deviation = away.std(axis=0)
    third = np.cbrt((away**3).mean(axis=0))
    return float32(np.stack([points.mean(axis=0), deviation, third], axis=1) / scale)


def _signature(points: Matrix) -> Matrix:
    """Return the sorted rows of the normalised precision matrix."""
    covariance = np.cov(points, rowvar=False)
    covariance += 1e-3 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    precision = np.linalg.inv(covariance)
    scale = np.sqrt(np.diagonal(precision))
    result: Matrix = np.sort(precision / np.outer(scale, scale), axis=1).astype(np.float32)
    return result


def _apart(a: Matrix, b: Matrix) -> Matrix:
    a, b = ((side - side.mean(axis=0)) / (side.std(axis=0) + 1e-9) for side in (a, b))
    result: Matrix = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    return result
