"""Align whole clouds of points by optimal transport."""

from __future__ import annotations

import numpy as np

from ....data import Matrix
from ..algebra import sample, unit
from ..views import Case, View
from .icp import polish, signed_components

__all__ = ["transport"]

_CLOUD = 600
_TEMPERATURES = np.geomspace(0.3, 0.02, 12)
_SWEEPS = 20


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
    # No score is more than 2 / .02 below the largest, and e^-100 is a number in double precision: logarithms, which
    # cost twenty times as much, are not needed.
    kernel = np.exp(scores - scores.max(), dtype=np.float64)
    rows, columns = np.ones(n), np.ones(m)
    for _ in range(_SWEEPS):
        rows = 1 / (n * (kernel @ columns))
        columns = 1 / (m * (rows @ kernel))
    result: Matrix = (rows[:, None] * kernel * columns).astype(np.float32)
    return result
