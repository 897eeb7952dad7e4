"""Measures of what an attack gained, with intervals, and of the recall that the owner keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...data import Matrix
from .algebra import Cells, Indices, blocks, nearest, unit

__all__ = [
    "Unlinkability",
    "auc",
    "decoder",
    "equal_error_rate",
    "hits",
    "mean_cosine",
    "recall_in_candidates",
    "scores",
    "true_accept_rate",
    "unlinkability",
    "wilson",
]

Scores = npt.NDArray[np.floating]
_Z = 1.959964
_NULLS = 20


def hits(located: Matrix, placed: Matrix, own: Indices | None = None) -> npt.NDArray[np.bool_]:
    """Return which located ciphertexts have their own record as the nearest of all placed records.

    `own` holds the index of each one's own record in `placed`; by default both are in the same order.
    """
    own = np.arange(len(located)) if own is None else own
    found: npt.NDArray[np.bool_] = nearest(unit(located), unit(placed)) == own
    return found


def scores(stored: Matrix, asked: Matrix, cells: Cells) -> Matrix:
    """Return inner products (q, n) of records (n, k), in cells (n,), with queries (cells, q, k), one set per cell."""
    if len(asked) == 1:
        only: Matrix = asked[0] @ stored.T
        return only
    found = np.empty((asked.shape[1], len(stored)), np.float32)
    for cell, queries in enumerate(asked):
        found[:, cells == cell] = queries @ stored[cells == cell].T
    return found


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95% score interval of a rate (Wilson, JASA 22, 1927)."""
    if trials < 1:
        return 0.0, 1.0
    rate, z2 = successes / trials, _Z**2
    middle = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z / (1 + z2 / trials) * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_cosine(estimates: Matrix, truth: Matrix, mean: Matrix | None = None) -> float:
    """Return the mean cosine of estimates to the truth. With `mean` subtracted, guessing the mean gains nothing."""
    if mean is not None:
        estimates, truth = estimates - mean, truth - mean
    return float(np.einsum("ij,ij->i", unit(estimates), unit(truth)).mean())


def decoder(frame: Matrix, vectors: Matrix) -> tuple[Matrix, Matrix]:
    """Fit the best linear estimate of vectors (m, d) from their noisy frame (m, q); return its matrix and offset.

    Its error is what truncation and noise still hide once the transform is known.
    """
    mean, middle = frame.mean(axis=0), vectors.mean(axis=0)
    away = frame - mean
    gram = away.T @ away
    gram += np.float32(1e-3 * np.trace(gram) / len(gram)) * np.eye(len(gram), dtype=np.float32)
    matrix = np.linalg.solve(gram, away.T @ (vectors - middle)).astype(np.float32)
    return matrix, (middle - mean @ matrix).astype(np.float32)


def recall_in_candidates(
    scored: Matrix, vectors: Matrix, queries: Matrix, candidates: Sequence[int], k: int = 10
) -> dict[int, float]:
    """Return the owner's recall@k for each number of candidates, given the scores (p, n) of the ciphertexts."""
    found = dict.fromkeys(candidates, 0.0)
    for rows in blocks(len(queries), 256):
        exact = queries[rows] @ vectors.T
        hints = scored[rows]
        true = np.argpartition(-exact, k - 1, axis=1)[:, :k]
        own = np.take_along_axis(hints, true, axis=1)
        for i in range(k):
            rank = (hints > own[:, [i]]).sum(axis=1)
            for count in candidates:
                found[count] += float((rank < count).sum())
    return {count: total / (k * len(queries)) for count, total in found.items()}


# --------------------------------------------------------------------------------- ISO/IEC 24745


def equal_error_rate(mated: Scores, non_mated: Scores) -> float:
    """Return the error rate where equal shares of mated pairs are refused and of non-mated pairs accepted."""
    scores = np.concatenate([mated, non_mated])
    own = np.concatenate([np.ones(len(mated), bool), np.zeros(len(non_mated), bool)])
    order = np.argsort(scores, kind="stable")
    refused = np.concatenate([[0.0], np.cumsum(own[order]) / len(mated)])
    taken = np.concatenate([[1.0], 1 - np.cumsum(~own[order]) / len(non_mated)])
    ranked = scores[order]
    whole = np.concatenate([[True], ranked[1:] != ranked[:-1], [True]])  # no threshold can separate equal scores
    refused, taken = refused[whole], taken[whole]
    place = int(np.argmin(np.abs(refused - taken)))
    return float((refused[place] + taken[place]) / 2)


def true_accept_rate(mated: Scores, non_mated: Scores, far: float) -> float:
    """Return the share of mated pairs accepted when at most the share `far` of non-mated pairs is accepted."""
    allowed = math.floor(far * len(non_mated))
    threshold = np.sort(non_mated)[::-1][min(allowed, len(non_mated) - 1)]
    return float((mated > threshold).mean())


def auc(positive: Scores, negative: Scores) -> float:
    """Return the chance that a positive scores above a negative; a tie counts half. 1/2 means nothing was learnt."""
    order = np.sort(negative)
    below = np.searchsorted(order, positive, side="left") + np.searchsorted(order, positive, side="right")
    return float(below.mean() / (2 * len(negative)))


@dataclass(frozen=True)
class Unlinkability:
    """The measure D of Gomez-Barrero et al.: 0 is unlinkable, 1 is fully linkable."""

    system: float
    """D_sys, the global measure."""
    null: float
    """The 95% quantile of D_sys with shuffled labels: its value by chance."""
    scores: npt.NDArray[np.float64]
    """Centres of the bins."""
    local: npt.NDArray[np.float64]
    """D(s) in each bin."""


def unlinkability(mated: Scores, non_mated: Scores, *, bins: int = 100, seed: int = 0) -> Unlinkability:
    """Measure how far scores of templates under different keys link them, locally and globally, with the null.

    Gomez-Barrero, Galbally, Rathgeb and Busch, "General framework to evaluate unlinkability in biometric template
    protection systems", IEEE TIFS 13(6), 2018: LR(s) = p(s | mated) / p(s | non-mated), D(s) = 2 LR / (1 + LR) - 1
    where LR > 1, else 0; D_sys is the mean of D over the mated scores. Priors are equal.
    """
    scores = np.concatenate([mated, non_mated]).astype(np.float64)
    edges = np.linspace(scores.min(), scores.max() + 1e-12, bins + 1)
    places = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, bins - 1)

    def measured(order: npt.NDArray[np.intp]) -> tuple[float, npt.NDArray[np.float64]]:
        of_mated = np.bincount(places[order[: len(mated)]], minlength=bins) / len(mated)
        of_others = np.bincount(places[order[len(mated) :]], minlength=bins) / len(non_mated)
        both = of_mated + of_others
        local = np.where(of_mated > of_others, 2 * of_mated / np.where(both > 0, both, 1) - 1, 0.0)
        return float((local * of_mated).sum()), local

    system, local = measured(np.arange(len(scores)))
    rng = np.random.default_rng(seed)
    nulls = [measured(rng.permutation(len(scores)))[0] for _ in range(_NULLS)]
    return Unlinkability(system, float(np.quantile(nulls, 0.95)), (edges[1:] + edges[:-1]) / 2, local)
