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

Where both sides know a class of each record, components are also told by how they spread within each class: then two
classes are enough, whose means alone would be a single direction.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ....data import Matrix
from ..algebra import Indices, centred, closeness, float32, haar, sample, unit
from ..views import Case, Groups, View, whitening
from .expectation import by_labels, by_prior
from .graphs import Graph, matching

__all__ = ["components", "fastica", "match", "sorted_components"]

MOST = 15_000
ITERATIONS = 60
_TOLERANCE = 1e-5
_DRAWS, _DRAWN = 4, 32_000
_AGAIN = 0.9
_LEAST = 40
_SURE = 40
_SEARCHES, _GLANCE = 3, 2_000
_LIKE = 0.9
"""A map that brings the clouds so close, of what a right one would, is right: wrong ones reach some .8 of it."""
_LEVELS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
_APART = 20.0
_NODES = 3.0
"""How much the components' own distributions count beside what they share."""
_SORTED = ((_NODES, _APART), (100.0, 5.0))
"""The same where distributions are known by class, and how far apart they count: with few records edges say little."""


def components(view: View, case: Case) -> Matrix:
    """Align independent components. Breaks full whitening on the sphere, with noise, given a disjoint corpus."""
    return _aligned(view, case, None)


def sorted_components(view: View, case: Case) -> Matrix:
    """Do the same where a class of each record is known."""
    return _aligned(view, case, case.groups["classes"])


def _aligned(view: View, case: Case, classes: Groups | None) -> Matrix:
    cipher, corpus = unit(view.cipher), unit(view.frame(case.corpus))
    some, known = (_some(len(side), case.rng) for side in (cipher, corpus))
    draws = max(1, min(_DRAWS, _DRAWN // len(known))) if case.noise else 1
    theirs, a = _stable(view.cipher[some], case.rng)
    mine, b = _stable(np.concatenate([view.noisy(case.corpus[known]) for _ in range(draws)]), case.rng)
    drawn = None if classes is None else (classes[0][some], np.tile(classes[1][known], draws))
    own = _close_to_others(view, sample(case.corpus, 2 * _GLANCE, case.rng))
    best, found = -np.inf, view.cipher
    for nodes, far in _SEARCHES * (_SORTED[:1] if classes is None else _SORTED):
        left, right = match(a, b, case.rng, drawn, nodes, far)
        prior = theirs[:, left[:_SURE]] @ mine[:, right[:_SURE]].T
        if classes is None:
            located = by_prior(cipher, prior, corpus, rng=case.rng)
        else:
            located = by_labels(cipher, classes[0], corpus, classes[1], prior=prior)
        # the adversary cannot see which records he identified, but he can see how close his map brings the two clouds
        close = closeness(sample(located, _GLANCE, case.rng), corpus)
        if close > best:
            best, found = close, located
        if best > _LIKE * own:
            break
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


def match(
    a: Matrix,
    b: Matrix,
    rng: np.random.Generator,
    classes: Groups | None = None,
    nodes: float = _NODES,
    far: float = _APART,
) -> tuple[Indices, Indices]:
    """Pair the columns of two sources (n, k) and (m, l), whose longer tails are positive.

    Args:
        a: (n, k).
        b: (m, l).
        rng: draws where matchings start.
        classes: of the rows of both, (n,) and (m,), if they are known.
        nodes: how much the columns' own distributions count beside what they share.
        far: how many times as far apart as the nearest distributions are those that count nothing.

    Returns:
        The columns of a that have a partner, the surest first, and their partners in b.
    """
    shared = list(zip(_shared(a), _shared(b), strict=True))
    order = matching(shared, nodes * np.maximum(0, far - _apart(a, b, classes)), rng)
    mine = np.flatnonzero(order >= 0)
    sure = np.zeros(len(mine))
    for left, right in shared:
        rows, partners = left[np.ix_(mine, mine)], right[np.ix_(order[mine], order[mine])]
        for axis in (0, 1):
            products = (rows * partners).sum(axis=axis)
            sure += products / np.sqrt((rows**2).sum(axis=axis) * (partners**2).sum(axis=axis) + 1e-12)
    mine = mine[np.argsort(-sure)]
    return mine, order[mine]


def _close_to_others(view: View, known: Matrix) -> float:
    """Return how close half of the adversary's own points, with noise, come to the others: so does a right map."""
    half = len(known) // 2
    return closeness(view.noisy(known[:half]), view.frame(known[half:]))


def _some(count: int, rng: np.random.Generator) -> Indices:
    return np.arange(count) if count <= MOST else rng.choice(count, MOST, replace=False)


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


def _apart(a: Matrix, b: Matrix, classes: Groups | None) -> Graph:
    """Return how far apart the distributions of two sources' columns are, (k, l); about 1 for the nearest ones.

    Distributions within classes count by how many records the other side has of them.
    """
    mine, theirs = (np.zeros(len(a), np.intp), np.zeros(len(b), np.intp)) if classes is None else classes
    apart: Graph = np.zeros((a.shape[1], b.shape[1]))
    for one in np.intersect1d(mine, theirs):
        own = theirs == one
        left, right = (np.quantile(side, _LEVELS, axis=0).T for side in (a[mine == one], b[own]))
        spread = left.std(axis=0) + np.float32(1e-9)
        apart += own.mean() * np.square((left[:, None] - right) / spread).mean(axis=2)
    apart /= np.median(apart.min(axis=1)) + 1e-12
    return apart
