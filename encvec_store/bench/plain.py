"""The baseline: FAISS on plaintext, with the index that the `faiss:` store chooses; imports backends.faiss, metrics.

Called as bare as FAISS allows: no ids, no documents, no durability, nothing between the caller and the index.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from ..backends.faiss import ann
from ..backends.faiss.options import Options
from ..metrics import Metric

__all__ = ["Plain"]

Matrix = npt.NDArray[np.float32]


class Plain:
    """A FAISS index of (n, d) plaintext vectors under a metric."""

    def __init__(self, metric: Metric, vectors: Matrix, options: Options) -> None:
        """Build the index and take the time."""
        self._unit = metric.name == "cosine"
        self.kind = options.kind_for(len(vectors))
        self.storage = "float32" if self.kind == "flat" else options.storage
        start = time.perf_counter()
        points = metric.lift(vectors) if self._unit else vectors
        self._index = _empty(self.kind, self.storage, metric, len(vectors), vectors.shape[1], options)
        if not self._index.is_trained:
            self._index.train(points)
        self._index.add(points)
        self.build_s = time.perf_counter() - start
        self.set_ef(options.ef_search)
        if self.kind == "ivf":
            self._index.nprobe = options.nprobe or max(4, -(-self._index.nlist // 12))

    def set_ef(self, ef: int) -> None:
        """Set HNSW's efSearch."""
        if self.kind == "hnsw":
            self._index.hnsw.efSearch = ef

    def search(self, query: Matrix, k: int) -> npt.NDArray[np.int64]:
        """Return positions of the k nearest to a (d,) query."""
        asked = query[None]
        if self._unit:
            asked = asked / np.linalg.norm(query)
        labels: npt.NDArray[np.int64] = self._index.search(asked, k)[1][0]
        return labels

    def size(self) -> int:
        """Return the bytes of the index, as FAISS writes it."""
        return len(faiss.serialize_index(self._index))

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        faiss.write_index(self._index, str(path))


def _empty(kind: str, storage: str, metric: Metric, n: int, dim: int, options: Options) -> Any:
    library: Any = faiss  # its own types know only some of its constructors
    index: Any
    measure = faiss.METRIC_L2 if metric.name == "l2" else faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        return library.IndexFlat(dim, measure)
    if kind == "ivf":
        code = "SQ8" if storage == "sq8" else "Flat"
        index = library.index_factory(dim, f"IVF{ann._lists(n)},{code}", measure)
        index.cp.min_points_per_centroid = 1
        return index
    if storage == "sq8":
        index = library.IndexHNSWSQ(dim, library.ScalarQuantizer.QT_8bit, options.m, measure)
    else:
        index = library.IndexHNSWFlat(dim, options.m, measure)
    index.hnsw.efConstruction = options.ef_construction
    return index
