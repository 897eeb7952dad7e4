"""Match the nodes of two graphs that have several kinds of edges, and what the nodes themselves look like.

FAQ: Vogelstein et al., "Fast approximate quadratic programming for graph matching", PLOS ONE 10(4), 2015. It walks
through doubly stochastic matrices (Frank-Wolfe) to a permutation. SciPy's takes one kind of edge and no nodes; joint
moments of independent components are several kinds, and their own moments say most at the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from ..algebra import Indices

__all__ = ["Graph", "matchings", "stochastic"]

Graph = npt.NDArray[np.floating]
_ITERATIONS = 60
_SWEEPS = 20
_STILL = 1e-6


def matchings(
    edges: Sequence[tuple[Graph, Graph]], alike: Graph, rng: np.random.Generator, starts: int
) -> list[tuple[float, Indices]]:
    """Return matchings of two graphs, the best first, each with its fit.

    Args:
        edges: weights of the edges, (n, n) in the one and (m, m) in the other graph, for each kind; edges of one kind
            count by the product of their weights.
        alike: (n, m), what it counts that a node is matched with another, >= 0.
        rng: draws the starts, all but the first, which is flat.
        starts: how many.

    Returns:
        For each different matching the fit, and for each node of the one graph that of the other, (n,); -1 for none.
    """
    n, m = alike.shape
    size = max(n, m)
    layers = [(_padded(a, size), _padded(b, size)) for a, b in edges]
    nodes = np.zeros((size, size))
    nodes[:n, :m] = alike
    flat = np.full((size, size), 1 / size)
    found: dict[bytes, tuple[float, Indices]] = {}
    for start in range(starts):
        at = flat if start == 0 else (flat + stochastic(rng.random((size, size)))) / 2
        fit, order = _walk(layers, nodes, at)
        order = np.where(order < m, order, -1)[:n]
        found[order.tobytes()] = fit, order
    return sorted(found.values(), key=lambda one: -one[0])


def stochastic(matrix: Graph, sweeps: int = _SWEEPS) -> Graph:
    """Scale rows and columns of a positive matrix to sums of 1 (Sinkhorn, 1964)."""
    for _ in range(sweeps):
        matrix = matrix / matrix.sum(axis=0)
        matrix = matrix / matrix.sum(axis=1, keepdims=True)
    return matrix


def _walk(layers: Sequence[tuple[Graph, Graph]], nodes: Graph, at: Graph) -> tuple[float, Indices]:
    """Climb from a doubly stochastic matrix; return the fit of the permutation it ends at, and the permutation."""
    for _ in range(_ITERATIONS):
        slope = nodes + sum(a @ at @ b.T + a.T @ at @ b for a, b in layers)
        step = _permutation(linear_sum_assignment(-slope)[1]) - at
        linear = float((slope * step).sum())
        if linear < _STILL * abs(float((slope * at).sum())):
            break
        square = sum(float((a @ step @ b.T * step).sum()) for a, b in layers)
        at = at + step * (1.0 if square >= 0 else min(1.0, -linear / (2 * square)))
    order = linear_sum_assignment(-at)[1]
    rows = np.arange(len(order))
    fit = float(nodes[rows, order].sum() + sum((a * b[np.ix_(order, order)]).sum() for a, b in layers))
    return fit, order


def _permutation(order: Indices) -> Graph:
    matrix = np.zeros((len(order), len(order)))
    matrix[np.arange(len(order)), order] = 1
    return matrix


def _padded(graph: Graph, size: int) -> Graph:
    wide = np.zeros((size, size))
    wide[: len(graph), : len(graph)] = graph
    return wide
