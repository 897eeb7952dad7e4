"""Vectors in lists around centroids, whose codes lie in the store and are fetched list by list.

In memory are the centroids, where each list begins, and the range of each coordinate. A code has 4 bits for each
coordinate of the difference from the centroid. Lists are numbered so that those with near centroids lie next to each
other, and share blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..data.arrays import Bytes, Matrix
from ..indexes.faiss import omp_threads
from .arrays import Array
from .blocks import Blocks, Places
from .clustering import NearestCentroid, lists_on_demand, means_of
from .faissing import checked, faiss, fill, found_by, measure_of, width_of
from .graph import Bits, Positions
from .ivf import quantizer_of, ranges_of

__all__ = ["FEW", "MANY", "Layout", "Lists"]

FEW, MANY = 10, 100
"""Hits for which the number of lists to read is measured."""
_LEAF = 4
_RANGED = 50_000
"""Points from which ranges are taken."""

Numbers = npt.NDArray[np.int64]


class Layout:
    """How vectors become codes in lists.

    Args:
        metric: the collection's.
        dim: coordinates of a vector.
        centroids: (lists, width) of the lists.
        ranges: (2 width,) least value and span of each coordinate.
        probes: how many lists to read for few and for many hits.
    """

    def __init__(self, metric: str, dim: int, centroids: Matrix, ranges: Matrix, probes: Array) -> None:
        self.metric, self.dim, self.width = metric, dim, width_of(dim)
        self.centroids, self.ranges, self.probes = centroids, ranges, probes
        self.lists = len(centroids)
        self._raw = quantizer_of(metric, centroids, ranges)

    @classmethod
    def of(cls, metric: str, dim: int, points: Matrix, count: int) -> Layout:
        """Return the layout for `count` vectors like some (s, width) points, s >= 1. All lists are to be read."""
        with omp_threads():
            centroids = means_of(metric, points, lists_on_demand(count, len(points)))
            centroids = np.ascontiguousarray(centroids[_along(centroids)])
            every = np.full(2, len(centroids), np.int32)
            some = points[:: -(-len(points) // _RANGED)]
            away = some - centroids[NearestCentroid(centroids)(some)]
            return cls(metric, dim, centroids, ranges_of("cosine", away), every)

    @property
    def code(self) -> int:
        """Bytes of a code."""
        return self.width // 2

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return 2 * self.centroids.nbytes

    def suits(self, count: int, points: int) -> bool:
        """Return True if so many vectors need no other lists, as they would come from so many points."""
        return self.lists * 2 >= lists_on_demand(count, points)

    def encoded(self, points: Matrix, nearest: NearestCentroid) -> tuple[npt.NDArray[np.int32], Bytes]:
        """Return the list and the code of each of (n, width) points. `nearest` is of the centroids."""
        lists = nearest(points)
        with omp_threads():
            codes: Bytes = self._raw.sq.compute_codes(points - self.centroids[lists])
        return lists, codes

    def decoded(self, lists: Numbers, codes: Bytes) -> Matrix:
        """Return the vectors of n codes in these lists: (n, width)."""
        with omp_threads():
            vectors: Matrix = self._raw.sq.decode(np.ascontiguousarray(codes))
        return vectors + self.centroids[lists]

    def nearest(self, points: Matrix, most: int) -> Numbers:
        """Return the numbers of the lists that are nearest to (q, width) points: (q, most), nearest first."""
        with omp_threads(1 if len(points) == 1 else None):
            return found_by(self._raw.quantizer, points, most, None)[0]

    def over(self, numbers: Numbers, pieces: Iterable[tuple[int, Bytes]]) -> Any:
        """Return FAISS's index over codes, which get ascending ids.

        Args:
            numbers: the lists.
            pieces: (place in `numbers`, (n, code) codes) of each piece, in the order of the lists.
        """
        measure = measure_of(self.metric)
        quantizer = faiss.IndexFlat(self.width, measure)
        quantizer.add(self.centroids[numbers])
        raw = faiss.IndexIVFScalarQuantizer(
            quantizer, self.width, len(numbers), faiss.ScalarQuantizer.QT_4bit, measure, True
        )
        fill(raw.sq.trained, [self.ranges], np.float32)
        raw.is_trained = True
        add, pointer, count = raw.invlists.add_entries, faiss.swig_ptr, 0
        for place, codes in pieces:
            ids = np.arange(count, count + len(codes))
            add(place, len(codes), pointer(ids), pointer(codes))
            count += len(codes)
        raw.ntotal = count  # once: it is slow to set
        return raw


class Lists:
    """See `Graph`. What needs codes is in `ondemand`, because it waits for the store."""

    kind = "lists"

    def __init__(self, layout: Layout, ends: Numbers, blocks: Blocks) -> None:
        self.layout, self.ends, self.blocks = layout, ends, blocks
        self.metric, self.dim, self.width = layout.metric, layout.dim, layout.width
        self.count, self.lists = blocks.count, layout.lists

    @classmethod
    def restored(cls, metric: str, dim: int, structure: Mapping[str, Array], blocks: Blocks | None) -> Lists:
        """Return a graph from its arrays. Raises ValueError if they do not fit together."""
        width = width_of(dim)
        centroids, ranges, probes, sizes = checked(
            dict(structure),
            centroids=("<f4", (None, width)),
            ranges=("<f4", (2 * width,)),
            probes=("<i4", (2,)),
            sizes=("<u4", (None,)),
        )
        if blocks is None or blocks.width != width // 2 or len(sizes) != len(centroids) or not len(sizes):
            raise ValueError("lists must have blocks, and sizes for each centroid")
        if not (probes.min() >= 1 and probes.max() <= len(sizes)) or int(sizes.sum(dtype=np.int64)) != blocks.count:
            raise ValueError("lists must hold each code once")
        layout = Layout(metric, dim, centroids.copy(), ranges.copy(), probes.copy())
        return cls(layout, ends_of(sizes), blocks)

    @staticmethod
    def memory(count: int, dim: int) -> int:
        """Return about how many bytes a graph takes, without any block."""
        return 8 * width_of(dim) * lists_on_demand(count, count)

    @property
    def bytes(self) -> int:
        """Memory held, in bytes, without any block."""
        return self.layout.bytes + self.ends.nbytes

    def needs(self, k: int) -> int:
        """Return how many candidates hold .99 of the k nearest."""
        return k + max(20, k // 2)

    def effort(self, limit: int) -> int:
        """Return how many lists a search for so many candidates reads."""
        few, many = map(int, self.layout.probes)
        least, most = self.needs(FEW), self.needs(MANY)
        if limit <= least:
            return few
        if limit >= most:
            return min(self.lists, math.ceil(many * math.sqrt(limit / most)))
        return math.ceil(few + (many - few) * (limit - least) / (most - least))

    def pieces(self, lists: Numbers) -> list[tuple[int, int, int, int]]:
        """Return where some lists, whose numbers ascend, lie: (place in `lists`, block, start, stop) of each piece."""
        starts, stops, each = self.ends[lists], self.ends[lists + 1], self.blocks.each
        first, last = starts // each, np.maximum(stops - 1, starts) // each
        places = np.repeat(np.arange(len(lists)), last - first + 1)
        blocks = np.arange(len(places)) - np.repeat(np.cumsum(last - first + 1) - (last - first + 1), last - first + 1)
        blocks += first[places]
        starts = np.maximum(starts[places] - blocks * each, 0)
        stops = np.minimum(stops[places] - blocks * each, each)
        full = stops > starts
        found = np.stack([places, blocks, starts, stops], axis=1)[full]
        return list(map(tuple, found.tolist()))

    def structure(self) -> dict[str, Array]:
        """Return centroids, ranges, how many lists to read, and the sizes of the lists."""
        return {
            "centroids": self.layout.centroids,
            "ranges": self.layout.ranges,
            "probes": self.layout.probes,
            "sizes": np.diff(self.ends).astype(np.uint32),
        }

    def _elsewhere(self, *arguments: Any, **more: Any) -> NoReturn:
        raise NotImplementedError("the codes of these lists are in the store: see sealed_index.ondemand")

    search = copied = decoded = growing = extended = kept = codes = _elsewhere


def ends_of(sizes: npt.NDArray[np.integer]) -> Numbers:
    """Return where each list ends, after a 0."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def passes(places: Places, mask: Bits) -> npt.NDArray[np.bool_]:
    """Say for each position whether its bit is set."""
    found: npt.NDArray[np.bool_] = ((mask[places >> 3] >> (places & 7).astype(np.uint8)) & 1).astype(np.bool_)
    return found


def _along(centroids: Matrix) -> Positions:
    """Return an order of the centroids in which near ones are close: halved again and again along their spread."""
    order: list[Positions] = []
    waiting = [np.arange(len(centroids))]
    while waiting:
        some = waiting.pop()
        if len(some) <= _LEAF:
            order.append(some)
            continue
        points = centroids[some] - centroids[some].mean(axis=0)
        axis = points[np.argmax(np.einsum("ij,ij->i", points, points))]
        for _ in range(3):  # about the first principal axis
            axis = points.T @ (points @ axis)
            axis = axis / max(float(np.linalg.norm(axis)), 1e-30)
        some = some[np.argsort(points @ axis, kind="stable")]
        waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
    return np.concatenate(order)
