"""Align by expectation-maximisation: guess what each ciphertext may be, then turn the clouds onto each other, again.

The expectation says, softly, which of the adversary's own points each ciphertext is near. The maximisation is the best
rotation onto these expectations (Procrustes). So other texts of the kind do for a corpus; a few pairs, or anything
that puts records into groups, give the first rotation. The method is that of Dempster, Laird and Rubin, "Maximum
likelihood from incomplete data via the EM algorithm", J. Royal Statistical Society B 39(1), 1977.

Two things decide. A guess is shared out among the ciphertexts that claim the same point (one step of Sinkhorn's
iterations), or a few hubs attract everything. And directions in which the clouds hardly agree yet are shrunk, not
turned at full length: at first almost all of them are noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ....data import Matrix
from ..algebra import Indices, float32, sample, unit
from ..views import Case, View

__all__ = ["by_labels", "by_pairs", "by_prior", "grouped", "informed"]

Labels = npt.NDArray[np.integer]
Group = tuple[Indices, Indices]
"""Rows of ciphertexts, and rows of the adversary's points, that belong together."""
_SHARP = np.float32(20.0)
"""How fast a guess falls with the inner product. Twice or half of it takes more rounds to the same end."""
_SHRUNK = 0.2
"""At first a direction keeps the share s / (s + 0.2 t) of its length, where s is its singular value, t the largest."""
_MOST = 4_000
_WORTH = 0.01
"""What a known pair may count to the end, of what all guesses together do."""
_HELD, _ENOUGH = 4, 8
"""One of so many pairs is held out to see whether pairs should count to the end, if there are so many."""


def grouped(view: View, case: Case, *, by: str) -> Matrix:
    """Align by groups that both sides know: classes, sizes of payloads, or what was written together."""
    mine, theirs = case.groups[by]
    return by_labels(unit(view.cipher), mine, unit(view.frame(case.corpus)), theirs)


def informed(view: View, case: Case) -> Matrix:
    """Align by a few known pairs and a corpus. Some twenty pairs break a sketch at its floor."""
    corpus, places = unit(view.frame(case.corpus)), unit(view.frame(case.pair_vectors))
    return by_pairs(unit(view.cipher), case.pairs, places, corpus, rng=case.rng)


def by_labels(
    cipher: Matrix,
    labels: Labels,
    corpus: Matrix,
    theirs: Labels,
    rounds: int = 30,
    prior: Matrix | None = None,
) -> Matrix:
    """Turn ciphertexts into the adversary's coordinates by labels, whose class means average the noise away.

    Args:
        cipher: (n, q) ciphertexts of a view, at unit length.
        labels: (n,) what the store shows of each: a `plain` field, or the tokens of a `blind` one once they are named.
        corpus: (m, q) the adversary's own points in the frame of the view.
        theirs: (m,) their labels.
        rounds: of expectation and maximisation.
        prior: (q, q) a cross-covariance of what else is thought to belong together; counts as much as all means.

    Returns:
        (n, q), the ciphertexts in the frame.
    """
    groups = [(np.flatnonzero(labels == one), np.flatnonzero(theirs == one)) for one in np.unique(labels)]
    groups = [(mine, own) for mine, own in groups if len(own)]
    # a class mean weighs as much as it has records
    cross = np.zeros((cipher.shape[1], corpus.shape[1]), np.float32)
    for mine, own in groups:
        cross += np.outer(cipher[mine].sum(axis=0), corpus[own].mean(axis=0))
    if prior is not None:
        cross = cross / (np.linalg.norm(cross) + 1e-12) + prior / (np.linalg.norm(prior) + 1e-12)
    return cipher @ _turned(cross, rounds, partial(_within, cipher, corpus, groups))


def by_pairs(
    cipher: Matrix,
    pairs: Indices,
    places: Matrix,
    corpus: Matrix,
    rounds: int = 30,
    rng: np.random.Generator | None = None,
) -> Matrix:
    """Do the same from known pairs. Where texts differ much, guesses are poor, and pairs better count to the end.

    Some pairs, held out of a first trial, tell which.

    Args:
        cipher: (n, q) ciphertexts of a view, at unit length.
        pairs: (p,) rows of ciphertexts whose vectors are known.
        places: (p, q) these vectors in the frame of the view.
        corpus: (m, q) other points of the kind in the frame.
        rounds: of expectation and maximisation.
        rng: draws what is looked at of large sets.
    """
    rng = np.random.default_rng(0) if rng is None else rng

    def placed(used: Indices, rounds: int, worth: float) -> Matrix:
        return by_prior(cipher, cipher[pairs[used]].T @ places[used], corpus, rounds, rng, worth * len(used))

    every, worth = np.arange(len(pairs)), 0.0
    if len(pairs) >= _ENOUGH:
        out, used = every[::_HELD], np.delete(every, np.s_[::_HELD])
        fit = [(unit(placed(used, rounds // 2, each)[pairs[out]]) * places[out]).sum() for each in (0.0, _WORTH)]
        worth = _WORTH if fit[1] > fit[0] else 0.0
    return placed(every, rounds, worth)


def by_prior(
    cipher: Matrix,
    prior: Matrix,
    corpus: Matrix,
    rounds: int = 30,
    rng: np.random.Generator | None = None,
    worth: float = 0.0,
) -> Matrix:
    """Do the same from a guess.

    Args:
        cipher: (n, q) ciphertexts of a view, at unit length.
        prior: (q, q) a cross-covariance of what is thought to belong together, of any length.
        corpus: (m, q) other points of the kind in the frame of the view.
        rounds: of expectation and maximisation.
        rng: draws what is looked at of large sets.
        worth: what the prior counts to the end, of what the expectations do.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    some, others = sample(cipher, _MOST, rng), sample(corpus, _MOST, rng)
    everything = [(np.arange(len(some)), np.arange(len(others)))]
    return cipher @ _turned(prior, rounds, partial(_within, some, others, everything), worth)


def _turned(prior: Matrix, rounds: int, matched: Callable[[Matrix], Matrix], worth: float = 0.0) -> Matrix:
    """Return the map that prior and matches come to. What is known beforehand counts less each round, down to `worth`.

    At first it counts as much as all matches do.
    """
    prior = prior / (np.linalg.norm(prior) + 1e-12)
    turn = _shrunk(prior, _SHRUNK)
    for done in range(rounds):
        cross = matched(turn)
        cross /= np.linalg.norm(cross) + 1e-12
        left = 1 - (done + 1) / rounds
        turn = _shrunk(cross + max(left, worth) * prior, left * _SHRUNK)
    return turn


def _shrunk(cross: Matrix, by: float) -> Matrix:
    u, s, vt = np.linalg.svd(cross)
    return float32((u * (s / (s + by * s[0] + 1e-12))) @ vt)


def _within(cipher: Matrix, corpus: Matrix, groups: Sequence[Group], turn: Matrix) -> Matrix:
    """Return the cross-covariance of ciphertexts with what they may be, each within its own group."""
    located = cipher @ turn
    located *= np.float32(_SHARP / (np.linalg.norm(located, axis=1).mean() + 1e-12))
    cross = np.zeros_like(turn)
    for mine, own in groups:
        cross += cipher[mine].T @ (_shared(float32(located[mine] @ corpus[own].T)) @ corpus[own])
    return cross


def _shared(scores: Matrix) -> Matrix:
    """Turn scores (n, m) into weights, rows of sum 1, of points that are claimed about equally often."""
    scores -= scores.max(axis=1, keepdims=True)
    weights: Matrix = np.exp(scores, out=scores)
    weights /= weights.sum(axis=1, keepdims=True)
    weights /= weights.sum(axis=0) + np.float32(1e-9)
    weights /= weights.sum(axis=1, keepdims=True) + np.float32(1e-30)
    return weights
