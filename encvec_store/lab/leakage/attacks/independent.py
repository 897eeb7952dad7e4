"""Align independent components, which full whitening does not hide.

Whitening leaves no second moments to align, but embeddings are far from Gaussian: their independent components are
sparse, meaningful, and the same in any two samples of one kind, even across models (Yamagiwa, Oyama and Shimodaira,
"Discovering Universal Geometry in Embeddings with ICA", EMNLP 2023). A secret rotation does not change them. Noise
from a ball is nearly Gaussian and only shrinks their cumulants. So the attack runs FastICA on both sides (Hyvarinen,
"Fast and robust fixed-point algorithms for independent component analysis", IEEE TNN 10(3), 1999), matches components
by their distributions and joint moments, and then iterates closest points, beginning with the surest components.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ....data import Matrix
from ..algebra import Indices, centred, float32, haar, sample
from ..views import Case, View, whitening
from .icp import grow, polish

__all__ = ["components", "fastica", "match"]

MOST = 15_000
ITERATIONS = 60
_TOLERANCE = 1e-5
_QUANTILES = 128
_CLIP = 25.0
_ROUNDS = 30


def components(view: View, case: Case) -> Matrix:
    """Align independent components. Breaks full whitening on the sphere, with noise, given a disjoint corpus."""
    cipher = _white(sample(view.cipher, MOST, case.rng))
    noisy = _white(view.noisy(sample(case.corpus, MOST, case.rng)))
    theirs, mine = fastica(cipher, case.rng), fastica(noisy, case.rng)
    order, signs_a, signs_b, sure = match(cipher @ theirs, noisy @ mine)
    first = np.argsort(-sure)
    a = (theirs * signs_a)[:, first]
    b = (mine * signs_b)[:, order[first]]
    targets = view.frame(case.corpus)
    # a rotation preserves the directions, not the whitened coordinates
    turn = grow(view.cipher @ a, targets @ b, case.rng)
    return view.cipher @ polish(view.cipher, targets, turn, case.rng, (a, b))


def fastica(white: Matrix, rng: np.random.Generator, iterations: int = ITERATIONS) -> Matrix:
    """Return the orthogonal (k, k) matrix whose columns are the independent directions of white (n, k) points.

    It uses the contrast log cosh and symmetric decorrelation, so it finds all directions at once.
    """
    n, k = white.shape
    turn = haar(k, rng)
    for _ in range(iterations):
        squashed = np.tanh(white @ turn)
        slope = 1 - np.square(squashed).mean(axis=0)
        u, _, vt = np.linalg.svd(white.T @ squashed / n - turn * slope)
        before, turn = turn, (u @ vt).astype(np.float32)
        if np.median(np.abs(np.abs(np.einsum("ij,ij->j", before, turn)) - 1)) < _TOLERANCE:
            break
    return turn


def match(a: Matrix, b: Matrix) -> tuple[Indices, Matrix, Matrix, Matrix]:
    """Pair the columns of two sources (n, k) and (m, k).

    Returns the partner of each column of a, the signs of a and of b, and how sure each pair is, all (k,). The first
    pairing compares the quantiles of the columns, with signs that make the longer tail positive. Each further round
    compares the joint moments (E s_i^2 s_j^2 and E s_i s_j^2) under the pairing so far: a relaxed graph matching.
    """
    signs_a, signs_b = _signs(a), _signs(b)
    a, b = a * signs_a, b * signs_b
    levels = np.linspace(0, 1, _QUANTILES + 2)[1:-1]
    tails_a, tails_b = (np.quantile(side, levels, axis=0).T for side in (a, b))
    apart = np.square(tails_a[:, None] - tails_b[None]).mean(axis=2)
    order = linear_sum_assignment(apart)[1]
    prior = 0.3 * apart / np.median(apart)
    (even_a, odd_a), (even_b, odd_b) = _joint(a), _joint(b)
    rows_a = np.concatenate([even_a, odd_a, odd_a.T], axis=1)
    rows_a /= np.linalg.norm(rows_a, axis=1, keepdims=True)
    alike = np.zeros_like(apart)
    for _ in range(_ROUNDS):
        rows_b = np.concatenate([even_b[:, order], odd_b[:, order], odd_b.T[:, order]], axis=1)
        rows_b /= np.linalg.norm(rows_b, axis=1, keepdims=True)
        alike = rows_a @ rows_b.T
        before, order = order, linear_sum_assignment(prior - alike)[1]
        if (before == order).all():
            break
    return order, signs_a, signs_b, alike[np.arange(len(order)), order].astype(np.float32)


def _signs(sources: Matrix) -> Matrix:
    return np.where((sources**3).mean(axis=0) < 0, -1, 1).astype(np.float32)


def _joint(sources: Matrix) -> tuple[Matrix, Matrix]:
    squares = np.minimum(np.square(sources), np.float32(_CLIP))
    mean = squares.mean(axis=0)
    even = squares.T @ squares / len(sources) - np.outer(mean, mean)
    odd = sources.T @ squares / len(sources)
    np.fill_diagonal(even, 0)
    np.fill_diagonal(odd, 0)
    return float32(even), float32(odd)


def _white(points: Matrix) -> Matrix:
    return centred(points) @ whitening(points)
