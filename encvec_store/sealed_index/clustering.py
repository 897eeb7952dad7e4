"""How many lists, and their centroids, by k-means in two steps.

K-means over all points takes as many distances as there are points times lists. So the points are first cut into a few
cells, and each cell into its share of the lists. Neighbours across the border of two cells are then in lists that fit
them less well; a few rounds of Lloyd's algorithm over all points, with the nearest centroid found by a graph, mend
that. 1,000,000 x 128 (clustered) in 16,000 lists, from 12 points for each: for .99 of the ten nearest, 1,500 vectors
must be read, and 8,800 without the rounds. 5,800 lists need 18,800.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.arrays import Matrix
from ..indexes.faiss import omp_threads
from .faissing import faiss

__all__ = ["NearestCentroid", "lists_on_demand", "means_of"]

_PER_ROOT, _LONG, _MOST = 16, 40, 16_384
"""Lists per root of the number of vectors, vectors of a list at least, and lists at most."""
_POINTS = 12
"""Points that a centroid takes at least. From fewer, neighbours are spread over more lists."""
_ITERATIONS, _ROUNDS = 10, 2
_WHOLE = 1_024
"""So many lists are found in one step."""
_PER_LIST = 50
_LINKS, _EFFORT_BUILD, _EFFORT = 16, 60, 32


def lists_on_demand(count: int, points: int) -> int:
    """Return the number of lists for so many vectors, if centroids come from so many points."""
    return max(1, min(int(_PER_ROOT * math.sqrt(count)), count // _LONG, points // _POINTS, _MOST))


def means_of(metric: str, points: Matrix, lists: int) -> Matrix:
    """Return about so many centroids, (m, width), of (n, width) points, n >= 1."""
    lists = min(lists, len(points))
    with omp_threads():
        if lists <= _WHOLE:
            return _clustered(metric, points, lists)
        cells = _clustered(metric, points, math.isqrt(lists))
        cell = NearestCentroid(cells)(points)
        sizes = np.bincount(cell, minlength=len(cells))
        shares = np.maximum(1, sizes * lists // len(points))
        order, ends = np.argsort(cell, kind="stable"), np.cumsum(sizes)
        centroids = np.concatenate(
            [
                _clustered(metric, points[order[end - size : end]], min(size, share))
                for size, share, end in zip(sizes.tolist(), shares.tolist(), ends.tolist(), strict=True)
                if size
            ]
        )
        return _clustered(metric, points, len(centroids), centroids)


class NearestCentroid:
    """Finds the number of the centroid at the least distance from each point: nearly the least, if they are many.

    Also where products rank: otherwise long centroids would take nearly all points.
    """

    def __init__(self, centroids: Matrix) -> None:
        self._index = _empty(centroids.shape[1], len(centroids))
        with omp_threads():
            self._index.add(centroids)

    def __call__(self, points: Matrix) -> npt.NDArray[np.int32]:
        """Return (n,) numbers for (n, width) points."""
        with omp_threads():
            nearest: npt.NDArray[np.int32] = self._index.search(points, 1)[1][:, 0].astype(np.int32)
        return nearest


def _clustered(metric: str, points: Matrix, lists: int, begin: Matrix | None = None) -> Matrix:
    """Return so many means; from some on if they are given."""
    width = points.shape[1]
    clustering = faiss.Clustering(width, lists)
    clustering.niter = _ITERATIONS if begin is None else _ROUNDS
    clustering.seed, clustering.spherical = 1, metric == "cosine"
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = _PER_LIST
    if begin is None:
        points = points[:: max(1, len(points) // (_PER_LIST * lists))]
    else:
        clustering.max_points_per_centroid = len(points)
        faiss.copy_array_to_vector(begin.ravel(), clustering.centroids)
    clustering.train(np.ascontiguousarray(points), _empty(width, 1 if begin is None else lists))
    means: Matrix = faiss.vector_to_array(clustering.centroids).reshape(lists, width)
    return means


def _empty(width: int, centroids: int) -> Any:
    """Return an empty index for so many centroids."""
    if centroids <= _WHOLE:
        return faiss.IndexFlatL2(width)
    graph = faiss.IndexHNSWFlat(width, _LINKS)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = _EFFORT_BUILD, _EFFORT
    return graph
