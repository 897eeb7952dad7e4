"""Leaks other than identification: membership, attributes, norms, averaging, own records, cells.

Each probe takes arrays and returns figures with their chance level and, where possible, the `null`: the value that
luck reaches in one of twenty trials when nothing leaks. `linking` and `identities` hold two more probes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import norm, spearmanr

from ...data import Matrix
from .algebra import Cells, Indices, Statistics, centred, float32, procrustes, unit
from .metrics import auc, hits
from .protocol import Keyed

__all__ = [
    "Labels",
    "apart",
    "attributes",
    "averaging",
    "cell_leakage",
    "chosen_plaintext",
    "grouping",
    "joining",
    "membership",
    "norms",
]

Labels = npt.NDArray[np.int64]
LUCK = 0.05
_PENALTY = 1e-3
_SHUFFLES = 400


def membership(located: Matrix, members: Matrix, strangers: Matrix, luck: float = LUCK) -> dict[str, float]:
    """Tell whether a text is stored, by its cosine to the nearest located ciphertext. All are in one frame.

    The null is that of the rank sum (Mann and Whitney, Annals of Mathematical Statistics 18, 1947).
    """
    scores = [(unit(side) @ unit(located).T).max(axis=1) for side in (members, strangers)]
    m, s = len(members), len(strangers)
    spread = math.sqrt((m + s + 1) / (12 * m * s))
    return {"auc": auc(scores[0], scores[1]), "chance": 0.5, "null": 0.5 + float(norm.isf(luck)) * spread}


def attributes(located: Matrix, truth: Labels, placed: Matrix, labels: Labels, luck: float = LUCK) -> dict[str, float]:
    """Infer a label of each located record (n, q), by logistic regression on the corpus (m, q) and its labels.

    `chance` is the accuracy of always guessing the corpus' commonest label, `null` that on shuffled records.
    """
    names, codes = np.unique(labels, return_inverse=True)
    inputs = np.concatenate([unit(placed), np.ones((len(placed), 1), np.float32)], axis=1).astype(np.float64)
    shape = (inputs.shape[1], len(names))

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights = flat.reshape(shape)
        scores = inputs @ weights
        scores -= scores.max(axis=1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        slope = np.exp(logs)
        slope[np.arange(len(codes)), codes] -= 1
        value = -logs[np.arange(len(codes)), codes].mean() + _PENALTY / 2 * float(np.square(weights).sum())
        return float(value), (inputs.T @ slope / len(codes) + _PENALTY * weights).ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    seen = np.concatenate([unit(located), np.ones((len(located), 1), np.float32)], axis=1)
    guess = names[(seen @ found.x.reshape(shape)).argmax(axis=1)]
    common = float((truth == names[np.bincount(codes).argmax()]).mean())
    rng = np.random.default_rng(0)
    shuffled = [float((guess == rng.permutation(truth)).mean()) for _ in range(_SHUFFLES)]
    return {
        "accuracy": float((guess == truth).mean()),
        "chance": common,
        "null": max(common, float(np.quantile(shuffled, 1 - luck))),
    }


def grouping(ciphertexts: Matrix, labels: Labels, known: int, seed: int = 0) -> dict[str, float]:
    """Infer labels from the ciphertexts and the leaked labels of `known` records: neighbours stay neighbours."""
    order = np.random.default_rng(seed).permutation(len(labels))
    told, rest = order[:known], order[known:]
    points = centred(ciphertexts)
    return {**attributes(points[rest], labels[rest], points[told], labels[told]), "known": float(known)}


def apart(ciphertexts: Matrix, cells: Cells) -> Matrix:
    """Give each cell of ciphertexts (n, k) its own coordinates, and one that marks the cell: rotations differ."""
    names, codes = np.unique(cells, return_inverse=True)
    if len(names) == 1:
        return ciphertexts
    n, k = ciphertexts.shape
    out = np.zeros((n, len(names), k + 1), np.float32)
    for code in range(len(names)):
        out[codes == code, code, :k] = centred(ciphertexts[codes == code])
    out[np.arange(n), codes, k] = 1
    return out.reshape(n, -1)


def norms(ciphertexts: Matrix, vectors: Matrix) -> dict[str, float]:
    """Correlate ciphertext lengths with the plaintexts' distances to their mean (Spearman); report their spread."""
    lengths = np.linalg.norm(ciphertexts, axis=1)
    away = np.linalg.norm(centred(vectors), axis=1)
    spread = float(lengths.std() / lengths.mean())
    return {
        # on a sphere, lengths differ only by rounding
        "rank_correlation": float(spearmanr(lengths, away).statistic) if spread > 1e-6 else 0.0,
        "relative_spread": spread,
        "scale": float(lengths.mean()),
        "chance": 0.0,
        "null": float(norm.isf(LUCK / 2)) / math.sqrt(len(vectors) - 1),
    }


def averaging(keyed: Keyed, vectors: Matrix, times: int = 16) -> dict[str, float]:
    """Encrypt the same (n, d) `times` times, and compare the means of two halves by cosine.

    `chance` is the cosine of two single encryptions. Noise that is derived from the record gives the same bytes each
    time. Fresh noise averages out, and the cosine goes to 1.
    """
    runs = np.stack([keyed.store(vectors) for _ in range(times)])
    halves = [float32(runs[start::2].mean(axis=0)) for start in (0, 1)]
    return {
        "cosine": float(np.einsum("ij,ij->i", unit(halves[0]), unit(halves[1])).mean()),
        "chance": float(np.einsum("ij,ij->i", unit(runs[0]), unit(runs[1])).mean()),
        "repeats_equal": float((runs[0] == runs[1]).all()),
    }


def chosen_plaintext(
    keyed: Keyed, vectors: Matrix, *, own: Matrix | None = None, length: float = 1.0, seed: int = 0
) -> dict[str, float | str]:
    """Store 2 d chosen vectors, solve for the map, and identify the (n, d) records stored under the same key.

    The chosen vectors and the statistics come from `own` (m, d), vectors of the same kind; by default the vectors are
    drawn at random. A `length` above 1 drowns the noise, if the scheme accepts such norms. The map is fitted to the
    vectors themselves and to the adversary's own sketch of them; the better result counts.
    """
    n, d = vectors.shape
    rng = np.random.default_rng(seed)
    if own is None:
        chosen = unit(vectors.mean(axis=0) + vectors.std() * rng.standard_normal((2 * d, d)).astype(np.float32))
    else:
        chosen = own[rng.permutation(len(own))[: 2 * d]]
    made, mine = keyed.spread(chosen * np.float32(length))
    stored, cells = keyed.spread(vectors)
    fit = Statistics.fit(vectors if own is None else own, made.shape[1])
    found: dict[str, float] = {}
    for name, inside in (("straight", chosen), ("sketched", unit(fit.whitened(chosen)))):
        inputs = np.concatenate([inside, np.ones((len(inside), 1), np.float32)], axis=1)
        frame = vectors if name == "straight" else unit(fit.whitened(vectors))
        frame = np.concatenate([frame, np.ones((n, 1), np.float32)], axis=1)
        named = 0
        for cell in np.unique(cells):
            here = np.flatnonzero(cells == cell)
            matrix = np.linalg.lstsq(inputs[mine == cell], made[mine == cell], rcond=1e-4)[0].astype(np.float32)
            named += int(hits(centred(stored[here]), centred(frame @ matrix), here).sum())
        found[name] = named / n
    best = max(found, key=lambda name: found[name])
    return {"identified": found[best], "chance": 1 / n, "map": best, "records": float(len(chosen)), "length": length}


def cell_leakage(tokens: Cells, labels: Labels) -> dict[str, float]:
    """Measure what cells (n,) tell about labels (n,): mutual information over label entropy, 0 none, 1 all.

    `chance` is the mean of this with shuffled labels, which is above 0 for small cells, and `null` its quantile.
    `named` is the share of records whose label is the commonest in their cell, `named_null` its quantile with shuffled
    labels.
    """
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(labels) for _ in range(_SHUFFLES)]
    by_luck = [_information(tokens, one) for one in shuffled]
    sizes = np.unique(tokens, return_counts=True)[1]
    return {
        "information": _information(tokens, labels),
        "chance": float(np.mean(by_luck)),
        "null": float(np.quantile(by_luck, 1 - LUCK)),
        "named": _commonest(tokens, labels),
        "named_null": float(np.quantile([_commonest(tokens, one) for one in shuffled], 1 - LUCK)),
        "cells": float(len(sizes)),
        "largest_cell": float(sizes.max() / len(tokens)),
        "smallest_cell": float(sizes.min() / len(tokens)),
    }


def joining(keyed: Keyed, vectors: Matrix, queries: Matrix) -> dict[str, float]:
    """Turn all cells to the rotation of the first, by (q, d) logged queries that were encrypted for every cell.

    Two copies of each of the (n, d) records are stored. `one_cell` is the cosine of two copies in one cell; noise lets
    no map exceed it. `joined` is the cosine of copies in the first cell and in another turned cell, divided by
    `one_cell`: 1 means that the cells are joined again. `chance` is the same without queries, `null` its quantile when
    the queries are paired at random.
    """
    asked = keyed.ask(queries)
    (first, a), (second, b) = (keyed.spread(vectors) for _ in range(2))
    alike = np.einsum("ij,ij->i", unit(first), unit(second))
    rng = np.random.default_rng(0)
    order = np.arange(len(queries))

    def turned(order: Indices) -> float:
        total, count = 0.0, 0
        for cell in range(1, len(asked)):
            rows = (a == cell) & (b == 0)
            turn = procrustes(asked[cell], asked[0][order], min(asked.shape[1:]))
            total += float(np.einsum("ij,ij->", unit(first[rows] @ turn), unit(second[rows])))
            count += int(rows.sum())
        return total / max(1, count)

    most = float(alike[a == b].mean())
    return {
        "joined": min(1.0, turned(order) / most),
        "chance": float(alike[a != b].mean()) / most,
        "null": float(np.quantile([turned(rng.permutation(order)) for _ in range(20)], 1 - LUCK)) / most,
        "one_cell": most,
        "queries": float(len(queries)),
    }


def _commonest(tokens: Labels, labels: Labels) -> float:
    each = (np.bincount(labels[tokens == token]).max() for token in np.unique(tokens))
    return float(sum(each) / len(labels))


def _information(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> float:
    (names_a, a), (names_b, b) = (np.unique(side, return_inverse=True) for side in (a, b))
    joint = np.zeros((len(names_a), len(names_b)))
    np.add.at(joint, (a, b), 1 / len(a))
    left, right = joint.sum(axis=1), joint.sum(axis=0)
    inside = joint > 0
    shared = (joint[inside] * np.log(joint[inside] / np.outer(left, right)[inside])).sum()
    entropy = -(right * np.log(right)).sum()
    return float(shared / entropy) if entropy > 0 else 0.0
