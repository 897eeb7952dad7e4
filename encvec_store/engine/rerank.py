"""Exact scores of opened vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data.metrics import Metric

__all__ = ["best"]

_CHUNK = 8192
_FEW = 64
"""So few vectors are all scored exactly."""


def best(
    metric: Metric,
    query: npt.NDArray[np.float32],
    vectors: npt.NDArray[np.float32],
    places: npt.NDArray[np.intp] | None,
    k: int,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return (places, exact scores) of the k vectors nearest to a query, nearest first.

    Args:
        metric: the collection's.
        query: (dim,).
        vectors: (n, dim).
        places: the vectors to compare; None for all.
        k: how many.
    """
    compared = vectors if places is None else vectors[places]
    if len(compared) <= _FEW:
        chosen, scores = np.arange(len(compared)), metric.scores(query, compared)
    else:
        found = []
        for start in range(0, len(compared), _CHUNK):  # in chunks: scores need vectors in double precision
            part = compared[start : start + _CHUNK]
            near = metric.contenders(query, part, k)
            found.append((start + near, metric.scores(query, part[near])))
        chosen, scores = map(np.concatenate, zip(*found, strict=True))
    order = np.argsort(metric.order(scores), kind="stable")[:k]
    chosen = chosen[order]
    return (chosen if places is None else places[chosen]), scores[order]
