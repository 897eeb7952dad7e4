"""Iterated closest points, which every alignment uses, and PCA as its simplest start.

Besl and McKay, "A method for registration of 3-D shapes", TPAMI 14(2), 1992. Here "closest" means mutual nearest
neighbours under CSLS, and each step is an orthogonal Procrustes fit. It fails from a random start in many dimensions,
which proves nothing: it must start in the few dimensions that carry most of the variance, and then add the others.
"""

from __future__ import annotations

import numpy as np

from ....data import Matrix
from ..algebra import centred, eigen, float32, mutual, procrustes, sample, unit
from ..views import Case, View

__all__ = ["grow", "polish", "principal", "signed_components"]

SIZES = (10, 20, 40, 80, 160, 320, 640)
ROUNDS = 6
DRAWN = 2000
_POLISH = 3000


def principal(view: View, case: Case) -> Matrix:
    """Align principal components, the first ten to begin with, signs by third moments. Breaks any isometry."""
    targets = view.frame(case.corpus)
    a, b = signed_components(view.cipher), signed_components(targets)
    turn = polish(view.cipher, targets, grow(view.cipher @ a, targets @ b, case.rng), case.rng, (a, b))
    return view.cipher @ turn


def signed_components(points: Matrix) -> Matrix:
    """Return the eigenvectors of the covariance (q, q), in columns, with signs that make third moments positive."""
    away = centred(points)
    _, basis = eigen(away.T @ away / len(away))
    third = np.einsum("ij->j", (away @ basis) ** 3)
    return basis * np.where(third < 0, -1, 1).astype(np.float32)


def grow(
    a: Matrix, b: Matrix, rng: np.random.Generator, sizes: tuple[int, ...] = SIZES, anchors: Matrix | None = None
) -> Matrix:
    """Find the orthogonal map (q, q) of a's coordinates to b's; coordinate i of both should roughly agree.

    It begins with the leading coordinates, so the surest ones must come first. `anchors` (q, q) is the weighted
    cross-covariance of known pairs; it is added to that of the matches.
    """
    dim = a.shape[1]
    turn = np.zeros((0, 0), np.float32)
    for size in (*(size for size in sizes if size < dim), dim):
        wider = np.eye(size, dtype=np.float32)
        wider[: len(turn), : len(turn)] = turn
        turn = wider
        for _ in range(ROUNDS):
            left, right = unit(sample(a, DRAWN, rng)[:, :size]), unit(sample(b, DRAWN, rng)[:, :size])
            turn = _step(left, right, turn, None if anchors is None else anchors[:size, :size])
    return turn


def polish(
    a: Matrix,
    b: Matrix,
    turn: Matrix,
    rng: np.random.Generator,
    bases: tuple[Matrix, Matrix] | None = None,
    *,
    rounds: int = 10,
    anchors: Matrix | None = None,
) -> Matrix:
    """Refine a map in all dimensions on larger samples. With `bases`, `turn` maps coordinates in these bases."""
    if bases is not None:
        turn = float32(bases[0] @ turn @ bases[1].T)
    for _ in range(rounds):
        turn = _step(unit(sample(a, _POLISH, rng)), unit(sample(b, _POLISH, rng)), turn, anchors)
    return turn


def _step(left: Matrix, right: Matrix, turn: Matrix, anchors: Matrix | None) -> Matrix:
    rows, columns, _ = mutual(left @ turn, right)
    if anchors is None:
        return procrustes(left[rows], right[columns])
    cross = left[rows].T @ right[columns]
    # of p pairs beside m matches, each pair counts as much as sqrt(m / p) matches
    u, _, vt = np.linalg.svd(cross + anchors * np.float32(np.sqrt(max(1, len(rows)))))
    result: Matrix = (u @ vt).astype(np.float32)
    return result
