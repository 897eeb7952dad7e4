"""Recognise records by their similarities to all others, when the adversary holds the very same texts."""

from __future__ import annotations

import numpy as np

from ....data import Matrix
from ..algebra import Indices, mutual, procrustes, sample, unit
from ..views import Case, View
from .icp import polish

__all__ = ["anchored_by_seeds", "profiles", "spectral"]

_LEVELS = 200
_MOST = 4_000
_SEEDS = 20
_GRAPH = 1_500


def profiles(view: View, case: Case) -> Matrix:
    """Seed with records whose sorted similarities to all others agree, and refine. Breaks what keeps distances."""
    cipher, targets = sample(view.cipher, _MOST, case.rng), sample(view.frame(case.corpus), _MOST, case.rng)
    rows, columns, _ = mutual(_profile(cipher), _profile(targets))
    return anchored_by_seeds(view, case, cipher[rows], targets[columns])


def _profile(points: Matrix) -> Matrix:
    """Return quantiles of each point's similarities, normalised so that noise shifts all points alike."""
    points = points - points.mean(axis=0)
    similar = points @ points.T
    np.fill_diagonal(similar, 0)
    ranked = np.sort(similar, axis=1)[:, ::-1]
    # the nearest tell most: take the first 50, then quantiles of all
    levels = np.linspace(0, 1, _LEVELS)
    chosen = np.concatenate([ranked[:, :50], np.quantile(ranked, levels, axis=1).T], axis=1)
    chosen /= chosen.std()
    return unit(((chosen - chosen.mean(axis=0)) / (chosen.std(axis=0) + 1e-9)).astype(np.float32))


def spectral(view: View, case: Case) -> Matrix:
    """Match the two similarity graphs by their spectra, keep mutual best matches as seeds, refine.

    GRAMPA: Fan, Mao, Wu and Xu, "Spectral graph matching and regularized quadratic relaxations", FoCM 23, 2023.
    """
    cipher, targets = sample(view.cipher, _GRAPH, case.rng), sample(view.frame(case.corpus), _GRAPH, case.rng)
    graphs = []
    for points in (cipher, targets):
        similar = unit(points) @ unit(points).T
        np.fill_diagonal(similar, 0)
        values, vectors = np.linalg.eigh(similar / np.sqrt(np.square(similar).sum() / len(similar)))
        graphs.append((values, vectors))
    (a, u), (b, v) = graphs
    kernel = 1 / (np.square(a[:, None] - b[None]) + 0.04)
    scores = (u * u.sum(axis=0)) @ kernel @ (v * v.sum(axis=0)).T
    forward, backward = scores.argmax(axis=1), scores.argmax(axis=0)
    rows = np.flatnonzero(backward[forward] == np.arange(len(scores)))
    return anchored_by_seeds(view, case, cipher[rows], targets[forward[rows]])


def anchored_by_seeds(view: View, case: Case, a: Matrix, b: Matrix) -> Matrix:
    """Fit a rotation to uncertain pairs, keep the better half three times, then iterate closest points."""
    if len(a) < _SEEDS:
        return view.cipher
    a, b = unit(a), unit(b)
    keep: Indices = np.arange(len(a))
    turn = procrustes(a, b)
    for _ in range(3):
        fit = np.einsum("ij,ij->i", a @ turn, b)
        keep = np.argsort(-fit)[: max(_SEEDS, len(a) // 2)]
        turn = procrustes(a[keep], b[keep])
    targets = view.frame(case.corpus)
    turn = polish(view.cipher, targets, turn, case.rng)
    return view.cipher @ turn
