"""Align whole clouds of points, by optimal transport or by graphs of their centroids."""

from __future__ import annotations

import numpy as np
from scipy.optimize import quadratic_assignment
from scipy.special import logsumexp

from ....data import Matrix
from ..algebra import centroids, procrustes, sample, unit
from ..views import Case, View
from .icp import polish, signed_components

__all__ = ["clusters", "transport"]

_CLOUD = 600
_TEMPERATURES = np.geomspace(0.3, 0.02, 12)
_SWEEPS = 20
_CENTROIDS = 60
_STARTS = 6


def transport(view: View, case: Case) -> Matrix:
    """Align by Wasserstein-Procrustes with a falling temperature.

    Sinkhorn iterations (Cuturi, NIPS 2013) give the transport plan, Procrustes the rotation for that plan (Grave,
    Joulin and Berthet, "Unsupervised alignment of embeddings with Wasserstein Procrustes", AISTATS 2019).
    """
    targets = view.frame(case.corpus)
    a, b = unit(sample(view.cipher, _CLOUD, case.rng)), unit(sample(targets, _CLOUD, case.rng))
    turn = signed_components(a) @ signed_components(b).T
    for temperature in _TEMPERATURES:
        for _ in range(3):
            plan = _sinkhorn((a @ turn) @ b.T / temperature)
            u, _, vt = np.linalg.svd(a.T @ plan @ b)
            turn = (u @ vt).astype(np.float32)
    return view.cipher @ polish(view.cipher, targets, turn, case.rng)


def _sinkhorn(scores: Matrix) -> Matrix:
    n, m = scores.shape
    rows, columns = np.zeros((n, 1), np.float32), np.zeros((1, m), np.float32)
    for _ in range(_SWEEPS):
        rows = -logsumexp(scores + columns, axis=1, keepdims=True) - np.log(n)
        columns = -logsumexp(scores + rows, axis=0, keepdims=True) - np.log(m)
    result: Matrix = np.exp(scores + rows + columns).astype(np.float32)
    return result


def clusters(view: View, case: Case) -> Matrix:
    """Use centroids as anchors: k-means on both sides, match the centroids' similarities by FAQ, fit, refine.

    FAQ is SciPy's: Vogelstein et al., "Fast approximate quadratic programming for graph matching", PLOS ONE 10(4),
    2015. The idea of centroids as anchors is from Dar, "mini-vec2vec", 2025, after Jha et al., "Harnessing the
    universal geometry of embeddings", 2025.
    """
    targets = view.frame(case.corpus)
    best, turn = -np.inf, np.eye(targets.shape[1], dtype=np.float32)
    for _ in range(_STARTS):
        a, b = (centroids(unit(side), _CENTROIDS, case.rng) for side in (view.cipher, targets))
        (left, right) = (side @ side.T for side in (a, b))
        seed = int(case.rng.integers(2**31))
        found = quadratic_assignment(
            left,
            right,
            method="faq",
            options={"maximize": True, "P0": "randomized", "rng": np.random.default_rng(seed)},
        )
        if found.fun / np.linalg.norm(left) / np.linalg.norm(right) > best:
            best = found.fun / np.linalg.norm(left) / np.linalg.norm(right)
            turn = procrustes(a, b[found.col_ind])
    return view.cipher @ polish(view.cipher, targets, turn, case.rng)
