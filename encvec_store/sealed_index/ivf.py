"""Vectors in lists around centroids, with codes of 4 bits a coordinate: little memory, and quick to build."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.arrays import Matrix
from ..indexes.faiss import omp_threads
from .arrays import Array
from .faissing import Searched, checked, faiss, fill, measure_of, points_of, range_of, view, wanted_of, width_of
from .graph import Positions

__all__ = ["Ivf", "centroids_of", "lists_for", "lists_of", "quantizer_of", "ranges_of"]

_PER_LIST = 50
_PROBES_LEAST, _PROBED = 32, 0.1
"""Lists that a search for 30 candidates reads at least, and which share of all. Real text needs so many for .99."""
_ITERATIONS = 10
_SAMPLE = 50_000
_PIECE = 65_536
Lists = npt.NDArray[np.int32]


class Ivf(Searched):
    """See `Graph`."""

    kind = "ivf"
    storage = "sq4"
    gathers = False

    def __init__(self, metric: str, dim: int, raw: Any) -> None:
        super().__init__(metric, dim, raw, raw)
        self.lists = int(raw.nlist)

    @classmethod
    def begin(cls, metric: str, sample: Matrix, count: int) -> _Growing:
        """Begin a graph; see `kinds.begin`."""
        dim = sample.shape[1]
        with omp_threads():
            points = points_of(metric, sample, width_of(dim))
            centroids = centroids_of(metric, points, count)
            raw = quantizer_of(metric, centroids, ranges_of(metric, points))
        return _Growing(metric, dim, raw, [])

    @classmethod
    def restored(cls, metric: str, dim: int, codes: Sequence[dict[str, Array]], structure: dict[str, Array]) -> Ivf:
        """Return a graph from its arrays. Raises ValueError if they do not fit together."""
        width = width_of(dim)
        centroids, ranges = checked(structure, centroids=("<f4", (None, width)), ranges=("<f4", (2 * width,)))
        pieces = []
        for some in codes:
            lists, packed = checked(some, lists=("<i4", (None,)), codes=("|u1", (None, width // 2)))
            if len(lists) != len(packed) or (len(lists) and not (lists.min() >= 0 and lists.max() < len(centroids))):
                raise ValueError("each code must be in a list")
            pieces.append((lists, packed))
        return cls(metric, dim, _filled(quantizer_of(metric, centroids, ranges), pieces))

    @staticmethod
    def memory(count: int, dim: int) -> int:
        """Return about how many bytes a graph takes."""
        return count * (width_of(dim) // 2 + 8) + 4 * width_of(dim) * lists_for(count)

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return self.count * (self.width // 2 + 8) + 4 * self.width * self.lists

    def needs(self, k: int) -> int:
        """Return how many candidates hold .99 of the k nearest."""
        return k + max(20, k // 2)

    def effort(self, limit: int, passing: int) -> int:
        """Return how many lists a search of all vectors reads; 0 if a scan is cheaper."""
        more = wanted_of(limit, passing / self.count)
        if 3 * max(limit, more * passing / self.count) >= passing or passing <= 1_000:
            return 0
        wanted = max(_PROBES_LEAST, self.lists * _PROBED) * math.sqrt(max(1.0, more / 30))
        if self.metric == "ip":  # products rank lists less well than distances do
            wanted *= 2
        return min(self.lists, math.ceil(wanted))

    def parameters(self, effort: int) -> Any:
        """Return FAISS's parameters for a search of all vectors."""
        return faiss.SearchParametersIVF(nprobe=effort)

    def everywhere(self, selector: Any) -> Any:
        """Return FAISS's parameters for a scan of all vectors."""
        return faiss.SearchParametersIVF(nprobe=self.lists, sel=selector)

    def decoded(self, positions: Positions) -> Matrix:
        """Return the vectors at some positions, as their codes have them."""
        codes = self._gathered(0, self.count)[1][positions]
        with omp_threads():
            vectors: Matrix = self._raw.sq.decode(codes)
        return vectors

    def growing(self, more: int) -> _Growing:
        """Return a copy that takes vectors, in the same lists."""
        raw = quantizer_of(self.metric, **self.structure())
        return _Growing(self.metric, self.dim, raw, [self._gathered(0, self.count)])

    def kept(self, positions: Positions) -> Ivf:
        """Return a new graph over some of its vectors, in new lists, with the codes that they have."""
        codes = self._gathered(0, self.count)[1][positions]
        with omp_threads():
            points = self._raw.sq.decode(codes)
            raw = quantizer_of(self.metric, centroids_of(self.metric, points, len(points)), self.structure()["ranges"])
            lists = lists_of(raw, points)
            return Ivf(self.metric, self.dim, _filled(raw, [(lists, codes)]))

    def codes(self, start: int, stop: int) -> dict[str, Array]:
        """Return the arrays of positions start..stop-1."""
        lists, codes = self._gathered(start, stop)
        return {"lists": lists, "codes": codes}

    def structure(self) -> dict[str, Array]:
        """Return the centroids of the lists, and the range of each coordinate."""
        centroids = view(self._raw, faiss.downcast_index(self._raw.quantizer).codes, np.uint8).view(np.float32)
        return {
            "centroids": centroids.reshape(self.lists, self.width),
            "ranges": view(self._raw, self._raw.sq.trained, np.float32),
        }

    def _gathered(self, start: int, stop: int) -> tuple[Lists, Array]:
        """Return the lists and codes of positions start..stop-1, in order of positions."""
        stop = min(stop, self.count)
        lists = np.empty(stop - start, np.int32)
        codes = np.empty((stop - start, self._raw.code_size), np.uint8)
        for number, ids, some in _entries(self._raw):
            first, last = np.searchsorted(ids, (start, stop))
            at = ids[first:last] - start
            lists[at] = number
            codes[at] = some[first:last]
        return lists, codes


class _Growing:
    def __init__(self, metric: str, dim: int, raw: Any, pieces: list[tuple[Lists, Array]]) -> None:
        self._metric, self._dim, self._raw, self._pieces = metric, dim, raw, pieces

    def add(self, vectors: Matrix) -> None:
        for start in range(0, len(vectors), _PIECE):  # points are another copy of the vectors
            points = points_of(self._metric, vectors[start : start + _PIECE], self._raw.d)
            with omp_threads():
                self._pieces.append((lists_of(self._raw, points), self._raw.sq.compute_codes(points)))

    def finished(self) -> Ivf:
        return Ivf(self._metric, self._dim, _filled(self._raw, self._pieces))


def lists_for(count: int) -> int:
    """Return the number of lists for so many vectors."""
    return max(1, min(int(4 * math.sqrt(count)), count // 30, 8_192))


def centroids_of(metric: str, points: Matrix, count: int) -> Matrix:
    """Return the centroids of lists for `count` vectors, of which some are given as (n, width) points."""
    lists = min(lists_for(count), len(points))
    most = max(_PER_LIST * lists, 1)
    clustering = faiss.Kmeans(
        points.shape[1],
        lists,
        niter=_ITERATIONS,
        seed=1,
        spherical=metric == "cosine",
        min_points_per_centroid=1,
        max_points_per_centroid=_PER_LIST,
    )
    clustering.train(points[:: max(1, len(points) // most)])
    centroids: Matrix = clustering.centroids
    return centroids


def quantizer_of(metric: str, centroids: Array, ranges: Array) -> Any:
    """Return FAISS's index with these centroids and ranges, and without vectors."""
    width = centroids.shape[1]
    quantizer = faiss.IndexFlat(width, measure_of(metric))
    quantizer.add(np.ascontiguousarray(centroids))
    raw = faiss.IndexIVFScalarQuantizer(
        quantizer, width, len(centroids), faiss.ScalarQuantizer.QT_4bit, measure_of(metric), False
    )
    fill(raw.sq.trained, [ranges], np.float32)
    raw.is_trained = True
    return raw


def lists_of(raw: Any, points: Matrix) -> Lists:
    """Return the list of each point: that of the centroid at the least distance, also where products rank.

    Otherwise long centroids would take nearly all points.
    """
    centroids = view(raw, faiss.downcast_index(raw.quantizer).codes, np.uint8).view(np.float32)
    lists: Lists = faiss.knn(points, centroids.reshape(-1, raw.d), 1)[1][:, 0].astype(np.int32)
    return lists


def ranges_of(metric: str, sample: Matrix) -> Matrix:
    """Return the range of each coordinate: (2 width,) least values, then spans.

    Where all vectors are equally long, three standard deviations: steps are smaller, and the few coordinates beyond
    lose less than that gains. Elsewhere the longest vectors are those that inner products rank first.
    """
    sample = sample[:: max(1, len(sample) // _SAMPLE)]
    if metric != "cosine":
        return range_of(sample, 0.05)
    mean, deviation = sample.mean(axis=0), sample.std(axis=0)
    # one vector, or many that are equal, say nothing about those that come later
    rest = deviation.mean() if deviation.any() else np.abs(sample).mean()
    deviation = np.where((mean == 0) & (deviation == 0), 0, np.maximum(deviation, rest / 10))
    return np.concatenate([mean - 3 * deviation, 6 * deviation]).astype(np.float32)


def _filled(raw: Any, pieces: Sequence[tuple[Lists, Array]]) -> Any:
    """Put codes, in the order of their positions, into their lists."""
    lists = np.concatenate([some for some, _ in pieces])
    codes = np.concatenate([some for _, some in pieces])
    order = np.argsort(lists, kind="stable")
    ends = np.searchsorted(lists[order], np.arange(raw.nlist + 1))
    inverted = raw.invlists
    for number in range(raw.nlist):
        ids = order[ends[number] : ends[number + 1]]
        if len(ids):
            some = codes[ids]
            inverted.add_entries(number, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(some))
    raw.ntotal = len(lists)
    return raw


def _entries(raw: Any) -> Iterator[tuple[int, Positions, Array]]:
    """Yield the number of each list that is not empty, the positions in it, ascending, and their codes."""
    inverted, width = raw.invlists, raw.code_size
    for number in range(raw.nlist):
        size = inverted.list_size(number)
        if size:
            ids = faiss.rev_swig_ptr(inverted.get_ids(number), size)
            yield number, ids, faiss.rev_swig_ptr(inverted.get_codes(number), size * width).reshape(size, width)
