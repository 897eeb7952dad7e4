"""Attacks with known pairs: the adversary knows the vectors of some records."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ....data import Matrix
from ..algebra import centred, float32, procrustes, unit
from ..views import Case, View
from .coordinates import permuted
from .icp import grow, polish, signed_components

__all__ = ["anchored", "permutation", "rotation", "straight"]


def permutation(view: View, case: Case) -> Matrix:
    """Undo a shuffle: match the coordinates that correlate most over the pairs, by the Hungarian method."""
    known = centred(view.cipher[case.pairs])
    truth = centred(case.pair_vectors)
    known, truth = (side / (np.linalg.norm(side, axis=0) + 1e-9) for side in (known, truth))
    return permuted(view, case, linear_sum_assignment(-(known.T @ truth))[1])


def rotation(view: View, case: Case) -> Matrix:
    """Fit a rotation in the directions that the pairs span (Procrustes).

    With all pairs in one cell this is the targeted attacker of Kurilenko, "SHARD: cell-keyed residual splitting for
    alignment-resistant private dense retrieval", arXiv 2606.27976, 2026.
    """
    known, truth = view.cipher[case.pairs], view.frame(case.pair_vectors)
    return view.cipher @ procrustes(known, truth, min(len(known), known.shape[1]))


def straight(view: View, case: Case) -> Matrix:
    """Fit a ridge regression from index vector to plaintext. Assumes only that the map is linear.

    The alignment of ALGEN: Chen, Xu and Bjerva, "ALGEN: Few-shot inversion attacks on textual embeddings using
    alignment and generation", ACL 2025 (arXiv 2502.11308). There it is the least squares of a pseudo-inverse; the
    ridge is for fewer pairs than dimensions.
    """
    known, truth = view.cipher[case.pairs], view.frame(case.pair_vectors)
    gram = known @ known.T
    gram += np.float32(0.1 * np.trace(gram) / len(gram)) * np.eye(len(gram), dtype=np.float32)
    result: Matrix = view.cipher @ (known.T @ np.linalg.solve(gram, truth))
    return result


def anchored(view: View, case: Case) -> Matrix:
    """Iterate closest points with the pairs as anchors: each pair counts as sqrt(matches / pairs) matches."""
    known, truth = unit(view.cipher[case.pairs]), unit(view.frame(case.pair_vectors))
    anchors = known.T @ truth / np.float32(np.sqrt(max(1, len(known))))
    targets = view.frame(case.corpus)
    start = procrustes(known, truth)
    turn = polish(view.cipher, targets, start, case.rng, anchors=anchors)
    if view.name == "centred":
        a, b = signed_components(view.cipher), signed_components(targets)
        grown = a @ grow(view.cipher @ a, targets @ b, case.rng, anchors=a.T @ anchors @ b) @ b.T
        if _fit(known @ float32(grown), truth) > _fit(known @ turn, truth):
            turn = float32(grown)
    return view.cipher @ turn


def _fit(a: Matrix, b: Matrix) -> float:
    return float(np.einsum("ij,ij->", a, b))
