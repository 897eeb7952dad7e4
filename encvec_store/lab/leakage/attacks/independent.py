"""Align independent components, which full whitening does not hide.

Whitening leaves no second moments to align, but embeddings are far from Gaussian: their independent components are
sparse, meaningful, and the same in any two samples of one kind, even across models (Yamagiwa, Oyama and Shimodaira,
"Discovering Universal Geometry in Embeddings with ICA", EMNLP 2023). A secret rotation does not change them. Noise
from a ball is nearly Gaussian and only shrinks their cumulants. So the attack runs FastICA on both sides (Hyvarinen,
"Fast and robust fixed-point algorithms for independent component analysis", IEEE TNN 10(3), 1999), on the adversary's
with simulated noise of the same size, several draws of it: then both sides compare as they are.

Four things decide. Only components that come again from another start are compared; the others are noise. What two
components share is taken from their tails, how often and how far both are large: there the few records lie that make
a component, and the noise hardly reaches. Both are matched as graphs with several kinds of edges. And some tens of
matched components are enough for a rotation that expectation-maximisation makes exact.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ....data import Matrix
from ..algebra import Indices, centred, closeness, float32, haar, sample, unit
from ..views import Case, View, whitening
from .expectation import by_prior
from .graphs import Graph, matchings

__all__ = ["components", "fastica", "match"]

MOST = 15_000
ITERATIONS = 60
_TOLERANCE = 1e-5
_DRAWS, _DRAWN = 4, 32_000
_AGAIN = 0.9
_LEAST = 40
_SURE = 40
_STARTS = 60
_TRIED, _GLANCE = 3, 2_000
_LEVELS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
_APART = 20.0
_NODES = 3.0
"""How much the components' own distributions count beside what they share."""


def components(view: View, case: Case) -> Matrix:
    """Align independent components. Breaks full whitening on the sphere, with noise, given a disjoint corpus."""
    some, known = sample(view.cipher, MOST, case.rng), sample(case.corpus, MOST, case.rng)
    draws = max(1, min(_DRAWS, _DRAWN // len(known))) if case.noise else 1
    theirs, a = _stable(some, case.rng)
    mine, b = _stable(np.concatenate([view.noisy(known) for _ in range(draws)]), case.rng)
    cipher, corpus = unit(view.cipher), unit(view.frame(case.corpus))
    best, found = -np.inf, view.cipher
    for left, right in match(a, b, case.rng)[:_TRIED]:
        prior = theirs[:, left[:_SURE]] @ mine[:, right[:_SURE]].T
        located = by_prior(cipher, prior, corpus, rng=case.rng)
        # the adversary cannot see which records he identified, but he can see how close his map brings the two clouds
        close = closeness(sample(located, _GLANCE, case.rng), corpus)
        if close > best:
            best, found = close, located
    return found


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


def match(a: Matrix, b: Matrix, rng: np.random.Generator, starts: int = _STARTS) -> list[tuple[Indices, Indices]]:
    """Pair the columns of two sources (n, k) and (m, l), whose longer tails are positive.

    Returns pairings, the best first: the columns of a that have a partner, the surest first, and their partners in b.
    """
    shared_a, shared_b = _shared(a), _shared(b)
    found = []
    for _, order in matchings(list(zip(shared_a, shared_b, strict=True)), _alike(a, b), rng, starts):
        mine = np.flatnonzero(order >= 0)
        sure = np.zeros(len(mine))
        for left, right in zip(shared_a, shared_b, strict=True):
            rows, partners = left[np.ix_(mine, mine)], right[np.ix_(order[mine], order[mine])]
            for axis in (0, 1):
                sure += (rows * partners).sum(axis=axis) / np.sqrt(
                    (rows**2).sum(axis=axis) * (partners**2).sum(axis=axis) + 1e-12
                )
        mine = mine[np.argsort(-sure)]
        found.append((mine, order[mine]))
    return found


def _stable(points: Matrix, rng: np.random.Generator) -> tuple[Matrix, Matrix]:
    """Return the directions (q, c) of components that come again from another start, and their sources (n, c)."""
    away, white = centred(points), whitening(points)
    points = away @ white
    turn, again = fastica(points, rng), fastica(points, rng)
    alike = np.abs(turn.T @ again).max(axis=1)
    count = max(min(_LEAST, len(alike)), int((alike > _AGAIN).sum()))
    turn = turn[:, np.argsort(-alike)[:count]]
    turn = turn * np.where(((points @ turn) ** 3).mean(axis=0) < 0, -1, 1).astype(np.float32)
    return unit((white @ turn).T).T, float32(points @ turn)


def _above(level: float) -> Callable[[Matrix], Matrix]:
    return lambda sources: np.maximum(sources - np.float32(level), 0)


_SEEN: tuple[tuple[Callable[[Matrix], Matrix], Callable[[Matrix], Matrix]], ...] = (
    (_above(1), _above(1)),
    (_above(2), _above(2)),
    (_above(3), _above(3)),
    (np.asarray, _above(1)),
    (np.asarray, _above(2)),
    (np.asarray, np.square),
)
"""Of what two components the covariance tells what they share."""


def _shared(sources: Matrix) -> list[Graph]:
    """Return what each two of the (n, c) sources share, (c, c), one matrix for each of _SEEN, all of one size."""
    found = []
    for one, other in _SEEN:
        graph = centred(one(sources)).T @ centred(other(sources)) / len(sources)
        np.fill_diagonal(graph, 0)
        graph = np.sign(graph) * np.sqrt(np.abs(graph))
        found.append(graph / (np.sqrt(np.square(graph).mean()) + 1e-12))
    return found


def _alike(a: Matrix, b: Matrix) -> Graph:
    """Return how alike the distributions of two sources' columns are, (k, l)."""
    left, right = (np.quantile(side, _LEVELS, axis=0).T for side in (a, b))
    apart = np.square((left[:, None] - right) / left.std(axis=0)).mean(axis=2)
    alike: Graph = _NODES * np.maximum(0, _APART - apart / (np.median(apart.min(axis=1)) + 1e-12))
    return alike
