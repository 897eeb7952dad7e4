"""Attacks of the literature, as published, beside which ours must stand: without pairs, by clusters or components.

Those that an attack of the lab already is have no second one here: the table names their source.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment, quadratic_assignment

from ....data import Matrix
from ..algebra import blocks, centred, centroids, closeness, float32, procrustes, sample, unit
from ..views import Case, View, whitening
from .independent import MOST, fastica

__all__ = ["known_sample", "mini_vec2vec"]

_TRIES, _RUNS, _STARTS, _ANCHORS = 4, 15, 30, 20
_POINTS, _NEAR = 4_000, 50
_ROUNDS, _KEPT, _CLUSTERS = 20, 0.5, 500
_DENSITY = 40


def mini_vec2vec(view: View, case: Case) -> Matrix:
    """Align by anchors: centroids, matched by their similarities, to which every point is then compared.

    Dar, "mini-vec2vec: Scaling universal geometry alignment with linear transformations", arXiv 2510.02348, 2025.
    Several k-means clusterings of both sides, each matched by FAQ; points are described by their cosines to all
    matched centroids; each is paired with the mean of its nearest on the other side; Procrustes. Then the same in the
    coordinates themselves, on other draws, averaged over rounds; at last with centroids in the place of points. Much
    hangs on the first clusterings, so it is tried several times, and the map that brings the clouds closest is kept.
    """
    left, right = unit(centred(view.cipher)), unit(view.frame(case.corpus))
    tried = [_turned(left, right, case.rng) for _ in range(_TRIES)]
    some = sample(left, _POINTS, case.rng)
    return view.cipher @ max(tried, key=lambda turn: closeness(some @ turn, right))


def _turned(left: Matrix, right: Matrix, rng: np.random.Generator) -> Matrix:
    anchors = [_anchors(left, right, rng) for _ in range(_RUNS)]
    ours, theirs = (np.concatenate(side) for side in zip(*anchors, strict=True))
    a, b = sample(left, _POINTS, rng), sample(right, _POINTS, rng)
    turn = procrustes(a, _partners(unit(centred(a @ ours.T)), unit(centred(b @ theirs.T)), b, _NEAR))
    for _ in range(_ROUNDS):
        a, b = sample(left, _POINTS, rng), sample(right, _POINTS, rng)
        turn = float32(_KEPT * turn + (1 - _KEPT) * procrustes(a, _partners(unit(a @ turn), b, b, _NEAR)))
    means = centroids(left, min(_CLUSTERS, len(left) // 4), rng)
    near = _partners(unit(means @ turn), right, right, max(1, len(right) // len(means)))
    return procrustes(means, near)


def _anchors(left: Matrix, right: Matrix, rng: np.random.Generator) -> tuple[Matrix, Matrix]:
    """Return centroids of both sides (c, q), each with its partner at the same place."""
    count = min(_ANCHORS, len(left) // 2, len(right) // 2)
    a, b = (centroids(side, count, rng) for side in (left, right))
    options = {"maximize": True, "P0": "randomized"}
    tried = [
        quadratic_assignment(a @ a.T, b @ b.T, method="faq", options={**options, "rng": rng}) for _ in range(_STARTS)
    ]
    return a, b[max(tried, key=lambda one: one.fun).col_ind]


def _partners(described: Matrix, candidates: Matrix, places: Matrix, count: int) -> Matrix:
    """Return the mean place, at unit length (n, q), of the `count` candidates nearest to each of (n, c) points."""
    found = np.empty((len(described), places.shape[1]), np.float32)
    count = min(count, len(candidates))
    for rows in blocks(len(described)):
        similar = described[rows] @ candidates.T
        least = np.partition(similar, -count, axis=1)[:, -count, None]
        found[rows] = float32(similar >= least) @ places  # a product is faster than gathering so many rows
    return unit(found)


def known_sample(view: View, case: Case) -> Matrix:
    """Match independent components by their densities alone, and put the adversary's mixing in place of the other.

    AK-ICA: Guo and Wu, "Deriving private information from arbitrarily projected data", PAKDD 2007.
    """
    cipher, known = sample(view.cipher, MOST, case.rng), view.noisy(sample(case.corpus, MOST, case.rng))
    (unmix, ours), (mixed, theirs) = (_unmixing(side, case.rng) for side in (cipher, known))
    reach = float(max(np.abs(ours).max(), np.abs(theirs).max()))
    densities = [[_densities(sign * side, reach) for sign in (1, -1)] for side in (ours, theirs)]
    apart = [np.abs(densities[0][0][:, None] - other).sum(axis=2) for other in densities[1]]
    rows, columns = linear_sum_assignment(np.minimum(*apart))
    signs = np.where(apart[0] <= apart[1], 1, -1)[rows, columns].astype(np.float32)
    mixing = np.linalg.pinv(mixed)
    return float32((view.cipher - view.cipher.mean(axis=0)) @ unmix[:, rows] * signs @ mixing[columns])


def _unmixing(points: Matrix, rng: np.random.Generator) -> tuple[Matrix, Matrix]:
    """Return the map to independent components (q, q), and these of the points (n, q)."""
    white = whitening(points)
    unmix = white @ fastica(centred(points) @ white, rng)
    return float32(unmix), float32(centred(points) @ unmix)


def _densities(sources: Matrix, reach: float) -> Matrix:
    """Return the histograms of (n, q) sources, (q, bins), on one scale; bins are narrow where most values lie."""
    edges = reach * np.linspace(-1, 1, _DENSITY + 1) ** 3
    return float32(np.stack([np.histogram(column, edges)[0] for column in sources.T]) / len(sources))
