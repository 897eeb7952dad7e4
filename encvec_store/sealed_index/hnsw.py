"""A graph of near neighbours over codes of 8 bits a coordinate.

Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World
graphs", IEEE TPAMI 42(4), 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.arrays import Matrix
from ..data.metrics import norms
from ..indexes.faiss import GpuCopy, gpu_copy, omp_threads
from .arrays import Array
from .faissing import (
    Searched,
    checked,
    faiss,
    fill,
    found_by,
    measure_of,
    points_of,
    range_of,
    view,
    wanted_of,
    width_of,
)
from .graph import Costs, Positions

__all__ = ["Hnsw"]

_M = 32
"""Links of a node on each level; twice as many on the lowest."""
_CONSTRUCTION = 64
"""Nodes kept in the list of a search for the neighbours of a new node."""
_MARGIN = 0.15
_SAMPLE = 50_000
_EF_LEAST, _EF_MOST = 64, 4_000
_EF_COUNT = 50_000
"""Up to so many vectors the least list is enough for .99; with 16 times as many it must be twice as long."""
_NODE = 50
"""Cost of one more node in the list of a search, in units of one distance that a scan computes."""
_MASKED = 1.5
"""With a mask the list is longer, since what passes stands further back, where more is missed; and a walk costs more,
since another one or a scan may follow."""
_AGAIN = 4
_SEED, _ROUNDING = 12_345, 1e-5
_BOOSTS = (1, 2, 4, 8)
"""How many times longer the list of a search may become, if the graph does not find enough with a shorter one."""
_FEW, _MANY = 10, 100
"""Hits for which that is measured."""
_ASKED, _ENOUGH = 384, 0.99
"""By so many of the graph's own vectors, evenly spread, and so large a share of their exact neighbours. A few queries
find almost none, so the mean of 48 would say little."""
_LINKS = 2 * _M + 4
"""A little more than the links of a node on average, on all levels."""
_PIECE = 5_000
"""Vectors added at a time."""


class Hnsw(Searched):
    """See `Graph`."""

    kind, storage = "hnsw", "sq8"
    trusted = 2 / 3

    def __init__(self, metric: str, dim: int, raw: Any, boosts: tuple[int, int] | None = None) -> None:
        storage = faiss.downcast_index(raw.storage)
        super().__init__(metric, dim, raw, storage)
        self._codes = view(raw, storage.codes, np.uint8).reshape(-1, self.width)
        self._links = int(raw.hnsw.neighbors.size())
        self._parameters: Any = None
        self._boosts = (1, 1)
        self._boosts = self._measured() if boosts is None else boosts

    @classmethod
    def begin(cls, metric: str, sample: Matrix, count: int) -> _Growing:
        """Begin a graph; see `kinds.begin`."""
        dim = sample.shape[1]
        raw = _empty(metric, width_of(dim))
        points = points_of(metric, sample[:: max(1, len(sample) // _SAMPLE)], raw.d)
        _train(raw, range_of(points, _MARGIN))
        _reserve(raw, count)
        return _Growing(metric, dim, raw)

    @classmethod
    def restored(cls, metric: str, dim: int, codes: Sequence[dict[str, Array]], structure: dict[str, Array]) -> Hnsw:
        """Return a graph from its arrays. Raises ValueError if they do not fit together."""
        width = width_of(dim)
        pieces = [checked(some, codes=("|u1", (None, width)))[0] for some in codes]
        n = sum(map(len, pieces))
        levels, neighbors, entry, ranges, boosts = checked(
            structure,
            levels=("<i4", (n,)),
            neighbors=("<i4", (None,)),
            entry=("<i4", (2,)),
            ranges=("<f4", (2 * width,)),
            boosts=("|u1", (2,)),
        )
        few, many = boosts.tolist()
        if not {few, many} <= {0, *_BOOSTS}:
            raise ValueError(f"boosts must be of {(0, *_BOOSTS)}, got {few} and {many}")
        return cls(metric, dim, _assembled(metric, width, pieces, levels, neighbors, entry, ranges), (few, many))

    @staticmethod
    def memory(count: int, dim: int) -> int:
        """Return about how many bytes a graph takes."""
        return count * (width_of(dim) + 8 * _M + 4 + 12) + count * 4 // 31 * _M

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return self.count * (self.width + 12) + 4 * self._links

    def needs(self, k: int) -> int:
        """Return how many candidates hold .99 of the k nearest."""
        # measured: 2 more are enough on text and on clusters, 6 on independent coordinates, where all are equally far
        return k + max(6, k // 6)

    def effort(self, limit: int, passing: int) -> int:
        """Return how many nodes a search keeps in its list; 0 if a scan is cheaper."""
        share = passing / self.count
        more = 1 if share == 1 else _MASKED
        least = _EF_LEAST * math.pow(max(1.0, self.count / _EF_COUNT), 0.25)
        ef = math.ceil(more * max(least, wanted_of(limit, share))) * self._boosts[limit > 2 * self.needs(_FEW)]
        if 3 * limit >= passing or passing <= _NODE * ef * more or not ef:
            return 0
        return min(ef, max(_EF_MOST, limit))

    def longer(self, effort: int, passing: int) -> int:
        """Return the list of a second walk, four times as long; 0 if a scan is cheaper."""
        ef = _AGAIN * effort
        return ef if ef <= _EF_MOST and passing > _NODE * ef * _MASKED else 0

    def parameters(self, effort: int) -> Any:
        """Return FAISS's parameters for a search of all vectors."""
        parameters = self._parameters  # kept, because a new one costs as much as a hundred distances
        if parameters is None or parameters.efSearch != effort:
            parameters = self._parameters = faiss.SearchParametersHNSW(efSearch=effort)
        return parameters

    def reach(self, limit: int, passing: int, effort: int) -> int:
        """Return how many vectors to take from a search without a mask: the whole list, which costs no more."""
        return max(limit, effort)

    def subset(self, positions: Positions) -> Any:
        """Return a FAISS index of the codes at some positions."""
        raw = faiss.IndexScalarQuantizer(self.width, faiss.ScalarQuantizer.QT_8bit, measure_of(self.metric))
        fill(raw.sq.trained, [view(self._raw, self._flat.sq.trained, np.float32)], np.float32)
        fill(raw.codes, [self._codes[positions].reshape(-1)], np.uint8)
        raw.is_trained, raw.ntotal = True, len(positions)
        return raw

    def copied(self) -> GpuCopy:
        """Return a copy that GPUs search: a graph, or a scan where links do not lead everywhere."""
        if self._boosts == (1, 1):
            return gpu_copy(self._raw, self.kind)
        flat = faiss.IndexFlat(self.width, self._raw.metric_type)
        for start in range(0, self.count, _PIECE):
            flat.add(self._flat.sa_decode(self._codes[start : start + _PIECE]))
        return gpu_copy(flat, "flat")

    def decoded(self, positions: Positions) -> Matrix:
        """Return the vectors at some positions, as their codes have them."""
        vectors: Matrix = self._flat.sa_decode(self._codes[positions])
        return vectors

    def growing(self, more: int) -> _Growing:
        """Return a copy that takes vectors."""
        arrays = self.structure()
        del arrays["boosts"]
        raw = _assembled(self.metric, self.width, [self._codes], **arrays, more=more)
        return _Growing(self.metric, self.dim, raw)

    def kept(self, positions: Positions) -> Hnsw:
        """Return a new graph over some of its vectors, with the codes that they have."""
        raw = _empty(self.metric, self.width)
        _train(raw, self.structure()["ranges"])
        codes = self._codes[positions]
        _reserve(raw, len(codes))
        for start in range(0, len(codes), _PIECE):
            _add(raw, self._flat.sa_decode(codes[start : start + _PIECE]))
        fill(faiss.downcast_index(raw.storage).codes, [codes], np.uint8)  # so that they do not wander by rounding
        return Hnsw(self.metric, self.dim, raw)

    def codes(self, start: int, stop: int) -> dict[str, Array]:
        """Return the arrays of positions start..stop-1."""
        return {"codes": self._codes[start:stop]}

    def structure(self) -> dict[str, Array]:
        """Return levels, links, the entry point with its level, the range of each coordinate, and the boosts."""
        hnsw = self._raw.hnsw
        return {
            "levels": view(self._raw, hnsw.levels, np.int32),
            "neighbors": view(self._raw, hnsw.neighbors, np.int32),
            "entry": np.array([hnsw.entry_point, hnsw.max_level], np.int32),
            "ranges": view(self._raw, self._flat.sq.trained, np.float32),
            "boosts": np.array(self._boosts, np.uint8),
        }

    def _measured(self) -> tuple[int, int]:
        """Return how many times longer lists must be for few and for many hits; 0 if only a scan finds enough.

        A walk along links can miss much where vectors of very different lengths are ranked by inner products, or where
        most of them lie close together and the others far away. Nothing in the graph tells, so it is tried.
        """
        if not self.count:
            return 1, 1
        asked = self.decoded(np.linspace(0, self.count - 1, min(_ASKED, self.count)).astype(np.int64))
        limits = [min(self.needs(k), self.count) for k in (_FEW, _MANY)]
        efforts = [self.effort(limit, self.count) for limit in limits]
        if not any(efforts):  # a scan is cheaper
            return 1, 1
        sign = -1 if self._descending else 1
        boosts = []
        with omp_threads():
            nearest, slack = self._nearest(asked, _MANY)
            for k, limit, least in zip((_FEW, _MANY), limits, efforts, strict=True):
                farthest = (nearest[:, min(k, self.count) - 1] + slack)[:, None]
                for boost in _BOOSTS:
                    if not least:
                        break
                    costs = sign * found_by(self._raw, asked, limit, self.parameters(least * boost))[1]
                    # equal costs count, so that a vector that is stored many times is not missed
                    if np.minimum((costs <= farthest).sum(axis=1), k).mean() >= _ENOUGH * k:
                        break
                else:
                    boost = 0
                boosts.append(boost)
        return boosts[0], boosts[1]

    def _nearest(self, asked: Matrix, k: int) -> tuple[Costs, Costs]:
        """Return for each of (q, width) points the costs of the k nearest of all vectors, ascending, and their error.

        Products of whole batches take a tenth of the time that FAISS takes to compare codes one by one.
        """
        best, positions = np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.int64)
        for start in range(0, self.count, _PIECE):
            points = self.decoded(np.arange(start, min(start + _PIECE, self.count)))
            costs, places = faiss.knn(asked, points, min(k, len(points)), self._raw.metric_type)
            best = np.hstack([best, -costs if self._descending else costs])
            positions = np.hstack([positions, places + start])
            order = np.argsort(best, axis=1, kind="stable")[:, :k]
            best, positions = np.take_along_axis(best, order, 1), np.take_along_axis(positions, order, 1)
        near = [self.decoded(some) for some in positions]
        if self._descending:
            longest = np.array([norms(points).max() for points in near])
            return best, (_ROUNDING * norms(asked) * longest).astype(np.float32)
        # products lose digits where vectors are far from 0 and close to one another
        gaps = [point - points for point, points in zip(asked, near, strict=True)]
        best = np.sort([np.einsum("ij,ij->i", gap, gap) for gap in gaps], axis=1).astype(np.float32)
        return best, np.float32(_ROUNDING) * best[:, -1]


class _Growing:
    def __init__(self, metric: str, dim: int, raw: Any) -> None:
        self._metric, self._dim, self._raw = metric, dim, raw

    def add(self, vectors: Matrix) -> None:
        for start in range(0, len(vectors), _PIECE):  # points are another copy of the vectors
            _add(self._raw, points_of(self._metric, vectors[start : start + _PIECE], self._raw.d))

    def finished(self) -> Hnsw:
        return Hnsw(self._metric, self._dim, self._raw)


def _empty(metric: str, width: int) -> Any:
    raw = faiss.IndexHNSWSQ(width, faiss.ScalarQuantizer.QT_8bit, _M, measure_of(metric))
    raw.hnsw.efConstruction = _CONSTRUCTION
    return raw


def _train(raw: Any, ranges: Array) -> None:
    storage = faiss.downcast_index(raw.storage)
    fill(storage.sq.trained, [ranges], np.float32)
    storage.is_trained = raw.is_trained = True


def _reserve(raw: Any, n: int) -> None:
    """Give an empty index the memory for n vectors, so that it need not be copied while they are added."""
    hnsw, storage = raw.hnsw, faiss.downcast_index(raw.storage)
    fill(storage.codes, [], np.uint8, n * raw.d)
    fill(hnsw.levels, [], np.int32, n)
    fill(hnsw.offsets, [np.zeros(1, np.uint64)], np.uint64, n)
    fill(hnsw.neighbors, [], np.int32, n * _LINKS)


def _add(raw: Any, points: Matrix) -> None:
    """Append (n, width) points. The levels of the nodes depend on their number only, not on who drew others before."""
    raw.hnsw.rng = faiss.RandomGenerator(_SEED + raw.ntotal)
    with omp_threads():
        raw.add(points)


def _assembled(
    metric: str,
    width: int,
    codes: Sequence[Array],
    levels: Array,
    neighbors: Array,
    entry: Array,
    ranges: Array,
    more: int = 0,
) -> Any:
    """Return FAISS's index with copies of these arrays, and with room for `more` vectors."""
    raw = _empty(metric, width)
    _train(raw, ranges)
    hnsw, storage = raw.hnsw, faiss.downcast_index(raw.storage)
    steps = faiss.vector_to_array(hnsw.cum_nneighbor_per_level)
    n = len(levels)
    if n and not (levels.min() >= 1 and levels.max() < len(steps)):
        raise ValueError("levels are out of range")
    offsets = np.zeros(n + 1, np.uint64)
    np.cumsum(steps[levels], out=offsets[1:], dtype=np.uint64)
    _check(levels, neighbors, entry, offsets, steps)
    fill(storage.codes, [some.reshape(-1) for some in codes], np.uint8, more * width)
    fill(hnsw.levels, [levels], np.int32, more)
    fill(hnsw.offsets, [offsets], np.uint64, more)
    fill(hnsw.neighbors, [neighbors], np.int32, more * _LINKS)
    hnsw.entry_point, hnsw.max_level = map(int, entry)
    raw.ntotal = storage.ntotal = n
    return raw


def _check(levels: Array, neighbors: Array, entry: Array, offsets: Array, steps: Array) -> None:
    """Raise ValueError if FAISS could read outside of its memory while it walks these links."""
    n = len(levels)
    if len(neighbors) != offsets[-1]:
        raise ValueError(f"{n} nodes of these levels must have {offsets[-1]} links, got {len(neighbors)}")
    start, top = map(int, entry)
    if n == 0:
        if (start, top) != (-1, -1):
            raise ValueError("a graph without nodes must have no entry point")
        return
    if not (0 <= start < n and top == levels.max() - 1 == levels[start] - 1):
        raise ValueError("the entry point must be a node of the highest level")
    if neighbors.min() < -1 or neighbors.max() >= n:
        raise ValueError(f"links must lead to nodes 0..{n - 1}")
    for level in range(1, top + 1):
        nodes = np.flatnonzero(levels > level)
        places = (offsets[nodes] + np.uint64(steps[level]))[:, None] + np.arange(
            steps[level + 1] - steps[level], dtype=np.uint64
        )
        linked = neighbors[places]
        if (levels[linked[linked >= 0]] <= level).any():
            raise ValueError("links of a level must lead to nodes of this level")
