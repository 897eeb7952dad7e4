"""Clusters from a graph of neighbours, and how well they agree with the truth.

C. Biemann, "Chinese Whispers", TextGraphs 2006: in each round, every node takes the label with the largest weight among
its neighbours. Adjusted Rand index: L. Hubert and P. Arabie, Journal of Classification 2, 1985. Normalised mutual
information: by the arithmetic mean of both entropies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["mutual_information", "rand_index", "whispers"]

Labels = npt.NDArray[np.int64]
_ROUNDS = 20


def whispers(near: npt.NDArray[np.intp], weights: npt.NDArray[np.floating], seed: int = 0) -> Labels:
    """Return labels (n,) of nodes, given neighbours (n, k), -1 for none, and the weights (n, k) of these edges."""
    n = len(near)
    edges: list[dict[int, float]] = [{} for _ in range(n)]
    for node, (others, values) in enumerate(zip(near.tolist(), weights.tolist(), strict=True)):
        for other, value in zip(others, values, strict=True):
            if other not in (-1, node):
                edges[node][other] = edges[other][node] = value
    labels = np.arange(n, dtype=np.int64)
    rng = np.random.default_rng(seed)
    for _ in range(_ROUNDS):
        changed = False
        for node in rng.permutation(n).tolist():
            heard: dict[int, float] = {}
            for other, value in edges[node].items():
                heard[int(labels[other])] = heard.get(int(labels[other]), 0.0) + value
            if heard:
                best = max(heard.items(), key=lambda pair: (pair[1], -pair[0]))[0]
                changed |= best != labels[node]
                labels[node] = best
        if not changed:
            break
    return labels


def rand_index(a: Labels, b: Labels) -> float:
    """Adjusted Rand index of two labellings (n,): 1 the same, 0 as by chance."""
    table = _contingency(a, b)
    both = _pairs(table).sum()
    left, right = _pairs(table.sum(axis=1)).sum(), _pairs(table.sum(axis=0)).sum()
    expected = left * right / _pairs(table.sum())
    most = (left + right) / 2
    return 1.0 if most == expected else float((both - expected) / (most - expected))


def mutual_information(a: Labels, b: Labels) -> float:
    """Normalised mutual information of two labellings (n,): 1 the same, 0 independent."""
    joint = _contingency(a, b) / len(a)
    left, right = joint.sum(axis=1), joint.sum(axis=0)
    inside = joint > 0
    shared = (joint[inside] * np.log(joint[inside] / np.outer(left, right)[inside])).sum()
    entropies = [float(-(part[part > 0] * np.log(part[part > 0])).sum()) for part in (left, right)]
    return 1.0 if sum(entropies) == 0 else float(2 * shared / sum(entropies))


def _contingency(a: Labels, b: Labels) -> npt.NDArray[np.float64]:
    (names_a, a), (names_b, b) = (np.unique(side, return_inverse=True) for side in (a, b))
    table = np.zeros((len(names_a), len(names_b)))
    np.add.at(table, (a, b), 1)
    return table


def _pairs(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return counts * (counts - 1) / 2
