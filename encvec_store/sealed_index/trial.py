"""How many lists a search must read: tried with some vectors while the lists are built."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..data.arrays import Matrix, Rows
from .arrays import Array
from .faissing import points_of
from .lists import FEW, MANY, Layout

__all__ = ["ListTrial", "asking"]

_ASKED, _SHARE = 500, 10
"""Vectors that ask: at most so many, and at most one of so many."""
_ENOUGH = 0.995
"""The share of their neighbours that must be in the lists that are read."""
_SPARE = 1.1
_LEAST = 4
_AT_ONCE = 32


class ListTrial:
    """Finds the neighbours of a sample among all vectors that go by, and the lists that they are in.

    Neighbours within the sample would not do: of ten million vectors, the nearest one in a sample of 200,000 is about
    the fiftieth of all, and takes several times as many lists.

    Args:
        layout: says which list a vector is in. It must not come from those that ask: centroids lie nearer to these.
        asked: (q, dim) vectors, q >= 1, which go by, too: the neighbours of others may be among those that do not.
        count: how many vectors there are in all. If fewer go by, neighbours are taken to be as much farther away.
    """

    def __init__(self, layout: Layout, asked: Matrix, count: int) -> None:
        self._layout, self._count, self._seen = layout, count, 0
        self._asked = points_of(layout.metric, asked, layout.width)
        self._costs = np.full((len(self._asked), MANY + 1), np.inf, np.float32)
        self._lists = np.full((len(self._asked), MANY + 1), -1, np.int32)

    def add(self, points: Matrix, lists: npt.NDArray[np.int32]) -> None:
        """Take (n, width) points, as `points_of` makes them, and the list of each."""
        self._seen += len(points)
        costs = -(self._asked @ points.T)
        if self._layout.metric == "l2":
            costs += np.einsum("ij,ij->i", points, points) / 2
        some = np.flatnonzero((costs < self._costs.max(axis=1)[:, None]).any(axis=0))  # soon they are few
        costs = np.concatenate([self._costs, costs[:, some]], axis=1)
        found = np.concatenate([self._lists, np.broadcast_to(lists[some], (len(costs), len(some)))], axis=1)
        best = np.argpartition(costs, MANY, axis=1)[:, : MANY + 1]
        self._costs, self._lists = (np.take_along_axis(each, best, axis=1) for each in (costs, found))

    def probes(self) -> Array:
        """Return how many lists hold .995 of the neighbours, for few and for many hits."""
        share = min(1.0, self._seen / max(1, self._count))
        found = np.take_along_axis(self._lists, np.argsort(self._costs, axis=1, kind="stable"), axis=1)
        ranks = np.concatenate([self._ranks(start, found[start : start + _AT_ONCE]) for start in self._starts()])
        needed = []
        for k in (FEW, MANY):
            near = ranks[:, 1 : 1 + max(1, math.ceil(k * share))]  # the first one is the vector itself
            near = near[near >= 0]
            most = int(np.quantile(near, _ENOUGH, method="higher")) if near.size else 0
            needed.append(min(self._layout.lists, max(_LEAST, math.ceil(_SPARE * (1 + most)))))
        return np.array([needed[0], max(needed)], np.int32)

    def _starts(self) -> range:
        return range(0, len(self._asked), _AT_ONCE)

    def _ranks(self, start: int, found: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return how many lists are nearer to a vector than each of (q, n) lists; -1 where there is none."""
        count = self._layout.lists
        order = self._layout.nearest(self._asked[start : start + len(found)], count)
        ranks = np.empty((len(found), count), np.int32)
        np.put_along_axis(ranks, order, np.arange(count, dtype=np.int32)[None], axis=1)
        return np.where(found >= 0, np.take_along_axis(ranks, np.maximum(found, 0), axis=1), np.int32(-1))


def asking(rows: Rows) -> Rows:
    """Return the rows, of those that will go by, whose vectors ask. All of them ascend."""
    return rows[:: max(_SHARE, -(-len(rows) // _ASKED))]
