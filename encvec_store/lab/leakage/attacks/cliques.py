"""Match small groups of records by their mutual similarities, when the adversary holds the very same texts.

A rotation keeps inner products, and noise only blurs them. So a few records that are close to each other can be
matched as a group: quadruples of near neighbours first, then a beam search adds one record at a time by its
similarities to those already placed. Each added record averages out more of the noise. Once some tens of records are
placed, all others follow. This is seeded graph matching (Lyzinski, Fishkind and Priebe, "Seeded graph matching for
correlated Erdos-Renyi graphs", JMLR 15, 2014) that finds its own seeds. It needs a hundred records, not thousands, and
it works when only a few of the adversary's texts are stored.
"""

from __future__ import annotations

import itertools

import numpy as np

from ....data import Matrix
from ..algebra import Indices, procrustes, sample, unit
from ..views import Case, View
from .icp import polish

__all__ = ["cliques"]

_CIPHER, _CORPUS = 1_000, 3_000
_SEEDS = 40
_BEAM = 300
_SIZE = 36
_NEAR = 8
_GROWN = 20
_ROUNDS = 14
_FASTER = 1.25
_FEWEST = 40


def cliques(view: View, case: Case) -> Matrix:
    """Place groups of near neighbours, extend the best of them to all records, align by the result, and refine."""
    cipher = unit(sample(view.cipher, _CIPHER, case.rng))
    targets = unit(sample(view.frame(case.corpus), _CORPUS, case.rng))
    if min(len(cipher), len(targets)) < _FEWEST:
        return view.cipher
    blurred = cipher @ cipher.T * np.float32(1 + case.noise**2)  # noise makes unit vectors look less alike
    sharp = targets @ targets.T
    np.fill_diagonal(blurred, 0)
    np.fill_diagonal(sharp, 0)
    best, found = -np.inf, np.zeros(len(cipher), np.intp)
    for left, right in _groups(blurred, sharp):
        order = _extended(blurred, sharp, left, right)
        placed = sharp[np.ix_(order, order)]
        fit = float(np.einsum("ij,ij->", blurred, placed) / (np.linalg.norm(placed) + 1e-9))
        fit *= len(np.unique(order)) / len(order)  # many records on one text are a bad fit
        if fit > best:
            best, found = fit, order
    turn = procrustes(cipher, targets[found])
    return view.cipher @ polish(view.cipher, view.frame(case.corpus), turn, case.rng, rounds=4)


def _groups(blurred: Matrix, sharp: Matrix) -> list[tuple[Indices, Indices]]:
    """Return groups of _SIZE records with the texts that they may be, best fit first."""
    near = np.argpartition(-sharp, _NEAR, axis=1)[:, :_NEAR]
    one, two, three = np.array(list(itertools.permutations(range(_NEAR), 3))).T
    first = np.repeat(np.arange(len(sharp))[:, None], len(one), axis=1)
    quadruples = np.stack([first, near[:, one], near[:, two], near[:, three]], axis=-1).reshape(-1, 4)
    sides = np.array(list(itertools.combinations(range(4), 2)))
    shapes = sharp[quadruples[:, sides[:, 0]], quadruples[:, sides[:, 1]]]
    groups = []
    size = min(_SIZE, len(blurred) - 1)
    for start in np.argsort(-np.sort(blurred, axis=1)[:, -3:].sum(axis=1))[:_SEEDS]:
        members = np.concatenate([[start], np.argsort(-blurred[start])[:size]])
        wanted = blurred[members[sides[:, 0]], members[sides[:, 1]]]
        misfit = np.square(shapes - wanted).sum(axis=1)
        top = np.argpartition(misfit, min(_BEAM, len(misfit) - 1))[:_BEAM]
        placed, cost = quadruples[top], misfit[top]
        for count in range(4, len(members)):
            placed, cost = _one_more(sharp, placed, cost, blurred[members[count], members[:count]])
        groups.append((float(cost.min()), members, placed[cost.argmin()]))
    groups.sort(key=lambda group: group[0])
    return [(left, right) for _, left, right in groups[:_GROWN]]


def _one_more(sharp: Matrix, placed: Indices, cost: Matrix, wanted: Matrix) -> tuple[Indices, Matrix]:
    """Add one text to each placement of the beam, by its similarities to those placed, and keep the best placements."""
    total = np.repeat(cost[:, None], len(sharp), axis=1)
    for column, value in zip(placed.T, wanted, strict=True):
        total += np.square(sharp[column] - value)
    np.put_along_axis(total, placed, np.inf, axis=1)
    flat = total.ravel()
    chosen = np.flatnonzero(flat <= np.partition(flat, _BEAM - 1)[_BEAM - 1])[:_BEAM]  # in half of argpartition's time
    rows, texts = np.divmod(chosen, len(sharp))
    return np.concatenate([placed[rows], texts[:, None]], axis=1), flat[chosen]


def _extended(blurred: Matrix, sharp: Matrix, left: Indices, right: Indices) -> Indices:
    """Place all records by their similarities to the placed ones; each round keeps a few more of the surest."""
    order = np.zeros(len(blurred), np.intp)
    for _ in range(_ROUNDS):
        a, b = blurred[:, left], sharp[:, right]
        apart = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
        order = apart.argmin(axis=1)
        least = np.take_along_axis(apart, order[:, None], axis=1)
        np.put_along_axis(apart, order[:, None], np.inf, axis=1)
        left = np.argsort(least[:, 0] - apart.min(axis=1))[: min(len(order), int(len(left) * _FASTER) + 1)]
        right = order[left]
    return order
