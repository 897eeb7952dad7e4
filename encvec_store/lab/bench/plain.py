"""Plaintext FAISS with the index that the `faiss:` store chooses.

Called as bare as FAISS allows: no ids, no documents, no durability, nothing between the caller and the index.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from ...data import Matrix, Metric
from ...indexes.faiss import FaissOptions, empty_ivf, gpu_copy, lists_for, suits, training_size, uses_gpu
from .source import Vectors, VectorSource

__all__ = ["Plain"]


class Plain:
    """A FAISS index of (n, d) plaintext vectors under a metric."""

    name = "plain FAISS"

    def __init__(
        self,
        metric: Metric,
        vectors: VectorSource | Vectors,
        options: FaissOptions,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Build the index, a slice at a time, and take the time; `progress` gets vectors done."""
        source = vectors if isinstance(vectors, VectorSource) else VectorSource(vectors)
        n, self._unit = len(source), metric.name == "cosine"
        self.kind = options.kind_for(n)
        self.storage = options.storage_for(self.kind)
        self.build_s = self.build_cpu_s = 0.0
        """Seconds of training and adding: wall clock and processor."""
        self._index = _empty(self.kind, self.storage, metric, n, source.dim, options)
        if not self._index.is_trained:
            sample = source.take(training_size(self.kind, n)).whole()
            self._timed(self._index.train, metric.lift(sample) if self._unit else sample)
        for _, some in source.slices():
            self._timed(lambda part: self._index.add(metric.lift(part) if self._unit else part), some)
            if progress is not None:
                progress(len(some))
        usable = suits(self.kind, self.storage, 1) and uses_gpu(options.device)
        self._gpu = gpu_copy(self._index, self.kind) if usable else None
        self.set_ef(options.ef_search)
        if self.kind == "ivf":
            self._index.nprobe = options.probes_for(self._index.nlist)

    def _timed(self, work: Callable[[Matrix], Any], vectors: Matrix) -> None:
        start, busy = time.perf_counter(), time.process_time()
        work(vectors)
        self.build_s += time.perf_counter() - start
        self.build_cpu_s += time.process_time() - busy

    def set_ef(self, ef: int) -> None:
        """Set HNSW's efSearch."""
        if self.kind == "hnsw":
            self._index.hnsw.efSearch = ef

    def set_effort(self, effort: int) -> None:
        """Set HNSW's efSearch or IVF's probes, whichever there is."""
        self.set_ef(effort)
        if self.kind == "ivf":
            self._index.nprobe = effort

    @property
    def effort(self) -> int | None:
        """The current efSearch or probes; None for a scan."""
        found = {"hnsw": lambda: self._index.hnsw.efSearch, "ivf": lambda: self._index.nprobe}.get(self.kind)
        return None if found is None else int(found())

    def search(self, query: Matrix, k: int) -> npt.NDArray[np.int64]:
        """Return positions of the k nearest to a (d,) query; -1 where the index found too few."""
        labels: npt.NDArray[np.int64] = self.search_all(query[None], k)[0]
        return labels

    def search_all(self, queries: Matrix, k: int) -> npt.NDArray[np.int64]:
        """Return (q, k) positions for (q, d) queries."""
        asked = queries
        if self._unit:
            asked = asked / np.sqrt(np.einsum("ij,ij->i", asked, asked))[:, None]
        if self._gpu is not None and suits(self.kind, self.storage, k):
            return self._gpu.search(asked, k, self.effort or 0)[0]
        labels: npt.NDArray[np.int64] = self._index.search(asked, k)[1]
        return labels

    def size(self) -> int:
        """Return the bytes of the index, as FAISS writes it."""
        written = 0

        def count(data: bytes) -> None:
            nonlocal written
            written += len(data)

        library: Any = faiss
        faiss.write_index(self._index, library.PyCallbackIOWriter(count, 1 << 20))
        return written

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        faiss.write_index(self._index, str(path))


def _empty(kind: str, storage: str, metric: Metric, n: int, dim: int, options: FaissOptions) -> Any:
    library: Any = faiss  # its own types know only some of its constructors
    index: Any
    measure = faiss.METRIC_L2 if metric.name == "l2" else faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        return library.IndexFlat(dim, measure)
    if kind == "ivf":
        return empty_ivf(dim, lists_for(n), storage, measure)
    if storage == "sq8":
        index = library.IndexHNSWSQ(dim, library.ScalarQuantizer.QT_8bit, options.m, measure)
    else:
        index = library.IndexHNSWFlat(dim, options.m, measure)
    index.hnsw.efConstruction = options.ef_construction
    return index
