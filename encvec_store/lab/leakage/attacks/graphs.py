"""Match the nodes of two graphs that have several kinds of edges, and what the nodes themselves look like.

FAQ: Vogelstein et al., "Fast approximate quadratic programming for graph matching", PLOS ONE 10(4), 2015. It walks
through doubly stochastic matrices (Frank-Wolfe) to a permutation. SciPy's takes one kind of edge and no nodes; joint
moments of independent components are several kinds, and their own moments say most at the beginning.

Random starts end at many matchings that are each right in other places. So further walks begin between two of the best,
where these agree (Merz and Freisleben, "Fitness landscape analysis and memetic algorithms for the quadratic assignment
problem", IEEE Trans. Evolutionary Computation 4(4), 2000).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from ..algebra import Indices

__all__ = ["Graph", "matching", "stochastic"]

Graph = npt.NDArray[np.floating]
_STARTS, _CROSSED, _PATIENCE = 20, 150, 40
"""Walks from random starts, at most so many from between two of the best, and after how many without gain it ends."""
_FLAT = 0.6
"""How flat a start between two is: their agreement must show, and no more."""
_ITERATIONS = 60
_SWEEPS = 20
_STILL = 1e-6


def matching(edges: Sequence[tuple[Graph, Graph]], alike: Graph, rng: np.random.Generator) -> Indices:
    """Return the best matching of two graphs that was found.

    Args:
        edges: weights of the edges, (n, n) in the one and (m, m) in the other graph, for each kind; edges of one kind
            count by the product of their weights.
        alike: (n, m), what it counts that a node is matched with another, >= 0.
        rng: draws the starts, all but the first, which is flat, and whom to cross.

    Returns:
        For each node of the one graph that of the other, (n,); -1 for none.
    """
    n, m = alike.shape
    size = max(n, m)
    layers = _layers([(_padded(a, size), _padded(b, size)) for a, b in edges])
    nodes = np.zeros((size, size))
    nodes[:n, :m] = alike
    flat = np.full((size, size), 1 / size)
    starts = [flat, *((flat + stochastic(rng.random((size, size)))) / 2 for _ in range(_STARTS - 1))]
    best = sorted((_walk(layers, nodes, at) for at in starts), key=_fit)
    still = 0
    for _ in range(_CROSSED):
        (_, one), (_, other) = (best[each] for each in rng.choice(len(best), 2, replace=False))
        between = (_permutation(one) + _permutation(other)) / 2
        found = _walk(layers, nodes, _FLAT * flat + (1 - _FLAT) * between)
        # what is matched with nothing may stand in any order, at the same fit
        new = not np.isclose(found[0], [fit for fit, _ in best], rtol=_STILL).any()
        still = 0 if new and found[0] > best[-1][0] else still + 1
        if still == _PATIENCE:
            break
        if new:
            best = sorted([*best, found], key=_fit)[1:]
    order = best[-1][1]
    return np.where(order < m, order, -1)[:n]


def stochastic(matrix: Graph, sweeps: int = _SWEEPS) -> Graph:
    """Scale rows and columns of a positive matrix to sums of 1 (Sinkhorn, 1964)."""
    for _ in range(sweeps):
        matrix = matrix / matrix.sum(axis=0)
        matrix = matrix / matrix.sum(axis=1, keepdims=True)
    return matrix


def _layers(edges: Sequence[tuple[Graph, Graph]]) -> tuple[Graph, Graph]:
    """Return (l, n) and (l, n) weights, all kinds of edges one below the other: two products then take all of them.

    Edges count in both directions; those that are the same in both stand there once, twice as heavy.
    """
    left, right = [], []
    for a, b in edges:
        if np.array_equal(a, a.T) and np.array_equal(b, b.T):
            left.append(2 * a)
            right.append(b)
        else:
            left += [a, a.T]
            right += [b.T, b]
    return np.concatenate(left), np.concatenate(right)


def _walk(layers: tuple[Graph, Graph], nodes: Graph, at: Graph) -> tuple[float, Indices]:
    """Climb from a doubly stochastic matrix; return the fit of the permutation it ends at, and the permutation."""
    pull = _pull(layers, at)
    for _ in range(_ITERATIONS):
        slope = nodes + pull
        step = _permutation(linear_sum_assignment(-slope)[1]) - at
        linear = float((slope * step).sum())
        if linear < _STILL * abs(float((slope * at).sum())):
            break
        along = _pull(layers, step)
        square = float((along * step).sum()) / 2
        length = 1.0 if square >= 0 else min(1.0, -linear / (2 * square))
        at, pull = at + step * length, pull + along * length
    order = linear_sum_assignment(-at)[1]
    end = _permutation(order)
    return float(((nodes + _pull(layers, end) / 2) * end).sum()), order


def _pull(layers: tuple[Graph, Graph], at: Graph) -> Graph:
    """Return the slope of what edges count, at a matrix (n, n); it is linear in the matrix."""
    left, right = layers
    each = (left @ at).reshape(-1, *at.shape)
    pull: Graph = each.transpose(1, 0, 2).reshape(len(at), -1) @ right
    return pull


def _fit(found: tuple[float, Indices]) -> float:
    return found[0]


def _permutation(order: Indices) -> Graph:
    matrix = np.zeros((len(order), len(order)))
    matrix[np.arange(len(order)), order] = 1
    return matrix


def _padded(graph: Graph, size: int) -> Graph:
    wide = np.zeros((size, size))
    wide[: len(graph), : len(graph)] = graph
    return wide
