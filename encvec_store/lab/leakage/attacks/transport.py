"""Align whole clouds of points by optimal transport."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

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
    rows, columns = np.zeros((n, 1), np.float32), np.zeros((1, m), np.float32)
    for _ in range(_SWEEPS):
        rows = -logsumexp(scores + columns, axis=1, keepdims=True) - np.log(n)
        columns = -logsumexp(scores + rows, axis=0, keepdims=True) - np.log(m)
    result: Matrix = np.exp(scores + rows + columns).astype(np.float32)
    return result
