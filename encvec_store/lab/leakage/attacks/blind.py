"""Find out which class is which, when the store shows only that records share a token, and go on as with names.

Inner products of class means survive a rotation, and means average the noise away: they are a graph on each side, whose
nodes belong together. FAQ matches the graphs (Vogelstein et al., "Fast approximate quadratic programming for graph
matching", PLOS ONE 10(4), 2015), from how large the classes are, from the nodes' sorted edges, and from random starts.
Then naming and turning improve each other by turns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment, quadratic_assignment

from ....data import Matrix
from ..algebra import Indices, float32, procrustes, unit
from ..views import Case, View
from .expectation import Labels, by_labels

__all__ = ["tokens"]

_STARTS = 8
_TURNS = 20
_SWEEPS = 200
_ROUNDS = (3, 3, 30)
"""Rounds of expectation and maximisation between which classes are named anew."""


def tokens(view: View, case: Case) -> Matrix:
    """Align by classes without names, such as the tokens of a blind field."""
    mine, theirs = case.groups["tokens"]
    cipher, corpus = unit(view.cipher), unit(view.frame(case.corpus))
    a, b = _Classes(cipher, mine), _Classes(corpus, theirs)
    if min(len(a.sizes), len(b.sizes)) < 2:
        return view.cipher
    located = cipher @ _first(a, b, case.rng)
    for rounds in _ROUNDS:
        named = _named(a.of(located), b)
        located = by_labels(cipher, named[a.numbers], corpus, b.numbers, rounds)
    return located


class _Classes:
    """Means of classes, and their graph.

    Args:
        points: (n, q).
        labels: (n,).
    """

    def __init__(self, points: Matrix, labels: Labels) -> None:
        self.numbers = np.unique(labels, return_inverse=True)[1]
        self.sizes = np.bincount(self.numbers)
        sums = self._sums(points)
        self.means = float32(sums / self.sizes[:, None])
        self.graph = self.means @ self.means.T
        # a mean's product with itself holds its noise; that of two records does not
        own = np.square(sums).sum(axis=1) - np.bincount(self.numbers, np.square(points).sum(axis=1))
        np.fill_diagonal(self.graph, own / np.maximum(1, self.sizes * (self.sizes - 1)))
        self.graph /= np.linalg.norm(self.graph)

    def _sums(self, points: Matrix) -> Matrix:
        sums = np.zeros((len(self.sizes), points.shape[1]), np.float32)
        np.add.at(sums, self.numbers, points)
        return sums

    def of(self, points: Matrix) -> Matrix:
        """Return the means (c, q) of the same classes of other (n, q) points."""
        return float32(self._sums(points) / self.sizes[:, None])


def _first(a: _Classes, b: _Classes, rng: np.random.Generator) -> Matrix:
    """Return the rotation that the best matching of the graphs gives."""
    count = max(len(a.sizes), len(b.sizes))
    left, right = (np.pad(side.graph, (0, count - len(side.sizes))) for side in (a, b))
    best, found = -np.inf, np.zeros((0, 0), np.float32)
    for start in _starts(a, b, count, rng):
        options = {"maximize": True, "P0": start, "rng": rng}
        order = quadratic_assignment(left, right, method="faq", options=options).col_ind
        here = np.arange(len(a.sizes))[order[: len(a.sizes)] < len(b.sizes)]
        order = order[here]
        turn = np.zeros((0, 0), np.float32)
        for _ in range(_TURNS):
            weight = np.sqrt(a.sizes[here])[:, None]
            turn = procrustes(a.means[here] * weight, b.means[order] * weight)
            before, (here, order) = (here, order), linear_sum_assignment(-(a.means @ turn) @ b.means.T)
            if np.array_equal(before[0], here) and np.array_equal(before[1], order):
                break
        fit = float((left[np.ix_(here, here)] * right[np.ix_(order, order)]).sum())
        if fit > best:
            best, found = fit, turn
    return found


def _starts(a: _Classes, b: _Classes, count: int, rng: np.random.Generator) -> list[npt.NDArray[np.floating]]:
    """Return doubly stochastic matrices (count, count) to start from."""
    edges = [np.sort(np.pad(side.graph, (0, count - len(side.sizes))), axis=1) for side in (a, b)]
    shares = [np.pad(side.sizes / side.sizes.sum(), (0, count - len(side.sizes)))[:, None] for side in (a, b)]
    found = []
    for one, other in (edges, shares):
        apart = np.square(one[:, None] - other[None]).sum(axis=2)
        alike = np.exp(-apart / (np.median(apart) + 1e-12))
        found.append(_stochastic(alike))
    found.append(_stochastic(found[0] * found[1]))
    flat = np.full((count, count), 1 / count)
    found.append(flat)
    found += [(flat + _stochastic(rng.random((count, count)))) / 2 for _ in range(_STARTS)]
    return found


def _stochastic(matrix: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    matrix = matrix + 0.1 * matrix.max()  # without zeros it converges fast
    for _ in range(_SWEEPS):
        matrix = matrix / matrix.sum(axis=0)
        matrix = matrix / matrix.sum(axis=1, keepdims=True)
    return matrix


def _named(means: Matrix, classes: _Classes) -> Indices:
    """Return the number of the other side's class for each of (c, q) located means; -1 where none is left."""
    named = np.full(len(means), -1, np.intp)
    rows, columns = linear_sum_assignment(-(means @ classes.means.T))
    named[rows] = columns
    return named
