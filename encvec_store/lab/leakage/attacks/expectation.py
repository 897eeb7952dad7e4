"""Align by expectation-maximisation: guess what each ciphertext may be, then turn the clouds onto each other, again.

The expectation says, softly, which of the adversary's own points each ciphertext is near. The maximisation is the best
rotation onto these expectations (Procrustes). So other texts of the kind do for a corpus; labels or a few pairs give
the first rotation. The method is that of Dempster, Laird and Rubin, "Maximum likelihood from incomplete data via the
EM algorithm", J. Royal Statistical Society B 39(1), 1977.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ....data import Matrix
from ..algebra import Indices, blocks, procrustes

__all__ = ["by_labels", "by_pairs"]

Labels = npt.NDArray[np.integer]
_SHARP = np.float32(20.0)
"""How fast a guess falls with the inner product. Twice or half of it takes more rounds to the same end."""
_ANCHORED = np.float32(3.0)


def by_labels(cipher: Matrix, labels: Labels, corpus: Matrix, theirs: Labels, rounds: int = 10) -> Matrix:
    """Turn ciphertexts into the adversary's coordinates by labels, whose class means average the noise away.

    Args:
        cipher: (n, q) ciphertexts of a view, at unit length.
        labels: (n,) what the store shows of each: a `plain` field, or the tokens of a `blind` one once they are named.
        corpus: (m, q) the adversary's own points in the frame of the view.
        theirs: (m,) their labels.
        rounds: of expectation and maximisation.

    Returns:
        (n, q), the ciphertexts in the frame.
    """
    groups = [(np.flatnonzero(labels == one), np.flatnonzero(theirs == one)) for one in np.unique(labels)]
    groups = [(mine, own) for mine, own in groups if len(own)]
    means = [np.stack([side[rows].mean(axis=0) for rows in parts]) for side, parts in _sides(cipher, corpus, groups)]
    turn = procrustes(means[0], means[1], rank=max(1, len(groups) - 1))
    return _turned(cipher, corpus, turn, groups, rounds)


def by_pairs(cipher: Matrix, pairs: Indices, places: Matrix, corpus: Matrix, rounds: int = 10) -> Matrix:
    """Do the same from known pairs.

    Args:
        cipher: (n, q) ciphertexts of a view, at unit length.
        pairs: (p,) rows of ciphertexts whose vectors are known.
        places: (p, q) these vectors in the frame of the view.
        corpus: (m, q) other points of the kind in the frame.
        rounds: of expectation and maximisation.
    """
    turn = procrustes(cipher[pairs], places, rank=max(1, len(pairs) - 1))
    everything = [(np.arange(len(cipher)), np.arange(len(corpus)))]
    return _turned(cipher, corpus, turn, everything, rounds, (pairs, places))


Group = tuple[Indices, Indices]


def _sides(cipher: Matrix, corpus: Matrix, groups: Sequence[Group]) -> list[tuple[Matrix, list[Indices]]]:
    return [(cipher, [mine for mine, _ in groups]), (corpus, [own for _, own in groups])]


def _turned(
    cipher: Matrix,
    corpus: Matrix,
    turn: Matrix,
    groups: Sequence[Group],
    rounds: int,
    anchors: tuple[Indices, Matrix] | None = None,
) -> Matrix:
    for _ in range(rounds):
        located = cipher @ turn
        expected = np.zeros_like(located)
        for mine, own in groups:
            for part in blocks(len(mine)):
                rows = mine[part]
                expected[rows] = _expected(located[rows], corpus[own])
        if anchors is not None:
            expected[anchors[0]] = _ANCHORED * anchors[1]
        turn = procrustes(cipher, expected)
    return cipher @ turn


def _expected(located: Matrix, corpus: Matrix) -> Matrix:
    """Return for each point the mean of the corpus, weighted by how near each of its points is."""
    weights: Matrix = _SHARP * (located @ corpus.T)
    weights -= weights.max(axis=1, keepdims=True)
    np.exp(weights, out=weights)
    mean: Matrix = weights @ corpus / weights.sum(axis=1, keepdims=True)
    return mean
