"""Align by weighted covariances, in closed form: FOBI (fourth moments) and density weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ....data import Matrix
from ..algebra import blocks, centred, closeness, eigen, float32, raised, sample, unit
from ..views import Case, View
from .icp import grow, polish

__all__ = ["density", "fobi"]

_POWERS = (3, 4, 6, 8)
_CLIP = 4.0
_MOST = 15_000
_REFERENCE = 8_000
_SURE = 0.03


def fobi(view: View, case: Case) -> Matrix:
    """Align the eigenvectors of the norm-weighted covariance. Breaks full whitening that keeps norms.

    Cardoso, "Source separation using higher order moments", ICASSP 1989.
    """
    return _aligned(view, case, _norms)


def density(view: View, case: Case) -> Matrix:
    """Align the eigenvectors of the covariance weighted by each record's kernel density. Works on the sphere too."""
    tried = [_aligned(view, case, partial(_crowded, power=power, rng=case.rng)) for power in _POWERS]
    targets = sample(view.frame(case.corpus), _REFERENCE, case.rng)
    # the adversary cannot see which records he identified, but he can see how close his map brings the two clouds
    close = [closeness(sample(found, 2000, case.rng), targets) for found in tried]
    return tried[int(np.argmax(close))]


def _aligned(view: View, case: Case, weigh: Callable[[Matrix], Matrix]) -> Matrix:
    targets = view.frame(case.corpus)
    a = _directions(sample(view.cipher, _MOST, case.rng), weigh)
    b = _directions(view.noisy(sample(case.corpus, _MOST, case.rng)), weigh)
    turn = polish(view.cipher, targets, grow(view.cipher @ a, targets @ b, case.rng), case.rng, (a, b))
    return view.cipher @ turn


def _directions(points: Matrix, weigh: Callable[[Matrix], Matrix]) -> Matrix:
    """Return the signed eigenvectors of the weighted second moment, from both ends of the spectrum inwards."""
    away = centred(points)
    weights = weigh(away)
    _, basis = eigen((away * weights[:, None]).T @ away / len(away))
    count = basis.shape[1]
    # eigenvalues are well separated at both ends of the spectrum, not in its middle: 0, n-1, 1, n-2, ...
    order = np.arange(count)
    order[0::2], order[1::2] = np.arange((count + 1) // 2), count - 1 - np.arange(count // 2)
    scores = away @ basis
    pull = (scores * weights[:, None]).mean(axis=0) / scores.std(axis=0)
    third = raised(scores, 3).mean(axis=0)
    signs = np.where(np.where(np.abs(pull) > _SURE, pull, third) < 0, -1, 1)
    return np.ascontiguousarray((basis * signs.astype(np.float32))[:, order])


def _norms(points: Matrix) -> Matrix:
    squares = np.square(points).sum(axis=1)
    result: Matrix = squares / squares.mean()
    return result


def _crowded(points: Matrix, *, power: int, rng: np.random.Generator) -> Matrix:
    """Return the standardised kernel density of each point: its mean of cos^power over the others."""
    points = unit(points)
    others = sample(points, _REFERENCE, rng)
    found = np.empty(len(points), np.float32)
    for rows in blocks(len(points)):
        cosines = points[rows] @ others.T
        cosines[cosines > 1 - 1e-5] = 0  # itself
        found[rows] = raised(cosines, power).mean(axis=1)
    found = (found - found.mean()) / found.std()
    return float32(np.clip(found, -_CLIP, _CLIP))
