"""Match a graph of records with a graph of one's own texts: which record is which text?

The texts are the very same, and both graphs say roughly who is near whom. Known rows, or nodes that look alike, give
the first matches. Each round then compares records and texts by how near they are to what is matched already, and
keeps the surest (Narayanan and Shmatikov, "De-anonymizing social networks", IEEE S&P 2009; Lyzinski, Fishkind and
Priebe, "Seeded graph matching for correlated Erdos-Renyi graphs", JMLR 15, 2014). Nodes look alike if their
surroundings do (Henderson et al., "It's who you know: graph mining using recursive structural features", KDD 2011).
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import eigsh

from ...data import Matrix
from .algebra import Indices, float32, mutual, nearest, unit

__all__ = ["embedded", "matched"]

_FIRST, _LEAST, _STEPS = 200, 20, 3
_WALKS, _STAYS = 4, 0.5
_ROUNDS, _SEEDS = 7, 500
_GROWN = 2.0
_DENSE = 0.05


def embedded(graph: csr_array, dims: int) -> Matrix:
    """Return the leading eigenvectors (n, dims) of a graph with its degrees divided out, at unit length."""
    return unit(_leading(_even(graph), dims)[1])


def matched(
    graph: csr_array, own: csr_array, rng: np.random.Generator, known: tuple[Indices, Indices] | None = None
) -> Indices:
    """Name the text of each record.

    Args:
        graph: (n, n) of records, weights >= 0.
        own: (m, m) of texts.
        rng: draws among the surest.
        known: rows (p,) of records, and of their texts; None if nothing is known.

    Returns:
        (n,) rows of texts.
    """
    a, b = _even(graph), _even(own)
    sure = (np.zeros(0, np.intp), np.zeros(0, np.intp)) if known is None else known
    rows, texts = _by_shape(graph, own) if known is None else known
    kept = max(_LEAST, len(rows))
    named = np.zeros(graph.shape[0], np.intp)
    for done in range(_ROUNDS):
        some = rng.permutation(len(rows))[:_SEEDS]
        left, right = _profiles(a, rows[some]), _profiles(b, texts[some])
        here, there, alike = mutual(left, right)
        kept = int(kept * _GROWN)
        # what is known stays
        fresh = np.argsort(-np.where(np.isin(here, sure[0]) | np.isin(there, sure[1]), -np.inf, alike))[:kept]
        rows, texts = np.concatenate([sure[0], here[fresh]]), np.concatenate([sure[1], there[fresh]])
        if done + 1 == _ROUNDS:
            named = nearest(left, right)
            named[here] = there
    named[sure[0]] = sure[1]
    return named


# --------------------------------------------------------------------------------------------- inside


def _even(graph: csr_array) -> csr_array:
    """Divide weights by the root of both degrees."""
    degrees = diags_array(1 / np.sqrt(np.maximum(graph.sum(axis=1), 1e-12)))
    return csr_array(degrees @ graph @ degrees)


def _leading(graph: csr_array, dims: int) -> tuple[Matrix, Matrix]:
    start = np.random.default_rng(0).standard_normal(graph.shape[0])
    values, vectors = eigsh(graph.astype(np.float64), min(dims, graph.shape[0] - 2), which="LA", v0=start, tol=1e-4)
    return float32(values[::-1]), float32(vectors[:, ::-1])


def _profiles(graph: csr_array, seeds: Indices) -> Matrix:
    """Return how near each node is to each seed (n, s), by short random walks that begin there, at unit length."""
    walked = np.zeros((graph.shape[0], len(seeds)), np.float32)
    walked[seeds, np.arange(len(seeds))] = 1
    total = walked.copy()
    for _ in range(_WALKS):
        walked = np.float32(_STAYS) * (graph @ walked)
        total += walked
    return unit(total)


def _by_shape(graph: csr_array, own: csr_array) -> tuple[Indices, Indices]:
    """Return the surest matches by how the graph looks around each node: no names are needed for that."""
    mine, theirs = _shapes(graph), _shapes(own)
    middle, spread = theirs.mean(axis=0), theirs.std(axis=0) + np.float32(1e-9)
    here, there, alike = mutual(unit((mine - middle) / spread), unit((theirs - middle) / spread))
    surest = np.argsort(-alike)[:_FIRST]
    return here[surest], there[surest]


def _shapes(graph: csr_array) -> Matrix:
    """Describe each node by degree, weights and triangles, and by the means and deviations of these around it."""
    weights = graph / max(1e-12, float(graph.data.mean()))
    degrees = np.diff(graph.indptr)
    found = np.stack([degrees, weights.sum(axis=1), weights.power(2).sum(axis=1), _triangles(weights)], axis=1)
    found = np.log1p(found)
    walk = diags_array(1 / np.maximum(graph.sum(axis=1), 1e-12)) @ graph
    for _ in range(_STEPS):
        mean = walk @ found
        around = np.sqrt(np.maximum(walk @ np.square(found) - np.square(mean), 0))
        found = np.concatenate([found, mean, around], axis=1)
    return float32(found)


def _triangles(weights: csr_array) -> Matrix:
    """Return the weight of all triangles at each node (n,). Where most nodes are linked, dense matrices are faster."""
    if weights.nnz < _DENSE * weights.shape[0] ** 2:
        return float32((weights @ weights).multiply(weights).sum(axis=1)).ravel()
    whole = weights.toarray()
    return float32(np.einsum("ij,ij->i", whole @ whole, whole))
