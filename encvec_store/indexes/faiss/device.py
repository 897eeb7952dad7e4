"""Search on a GPU, if there is one and FAISS was built for it.

Indexes are built, extended and kept on the CPU, and a copy is searched on the GPU. FAISS shards flat and IVF indexes
over all GPUs. FAISS searches HNSW graphs on the CPU only, so a CAGRA graph takes their place
(Ootomo et al., "CAGRA: Highly Parallel Graph Construction and Approximate Nearest Neighbor Search for GPUs", ICDE 2024)
over the same vectors on the first GPU, where FAISS was built with cuVS.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from ...runtime.forks import Mutex
from ...runtime.gpus import complain, wanted

__all__ = ["GpuCopy", "gpu_copy", "suits", "uses_gpu"]

faiss: Any = _faiss
Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
_MOST_K = {"flat": 2_048, "ivf": 2_048, "hnsw": 512}
"""Neighbours that FAISS's GPU kernels return at most, by kind of index."""
_MOST_PROBES = 2_048
"""Lists that they probe at most."""
_PIECE = 65_536
"""Vectors turned to float32 at a time."""


@cache
def uses_gpu(device: str) -> bool:
    """Whether `device` means a GPU here. Logs one line, once, if `cuda` was asked for but cannot be used."""
    if not wanted(device):
        return False
    why = _missing()
    if why:
        complain(device, f"{why}; indexes are searched on the CPU")
    return not why


def suits(kind: str, storage: str, k: int, effort: int = 0) -> bool:
    """Whether FAISS can search such an index on a GPU. It supports only some product quantisers.

    Args:
        kind: flat, ivf or hnsw.
        storage: see `FaissOptions`.
        k: the number of neighbours.
        effort: the number of IVF lists to probe.
    """
    if k > _MOST_K[kind] or storage == "pq" or (kind == "ivf" and effort > _MOST_PROBES):
        return False
    return kind != "hnsw" or hasattr(faiss, "GpuIndexCagra")


def _missing() -> str:
    """Say why no GPU can be used; "" if one can be used."""
    if not hasattr(faiss, "StandardGpuResources"):
        return "this FAISS was built without GPU support (faiss-gpu-cuvs has it)"
    try:
        return "" if faiss.get_num_gpus() else "FAISS finds no GPU"
    except Exception as error:  # a driver that is missing or too old
        return f"FAISS cannot ask for GPUs: {type(error).__name__}"


class GpuCopy(Protocol):
    """A copy of a CPU index on GPUs. Searches of several threads take turns, because FAISS needs that."""

    kind: str
    count: int
    """Number of vectors."""

    def search(self, queries: npt.NDArray[np.float32], k: int, effort: int = 0) -> Found:
        """Return (q, k) labels and products; -1 if too few were found.

        `effort` is the number of IVF lists that are probed, or of graph nodes that are kept.
        """
        ...


def gpu_copy(raw: Any, kind: str) -> GpuCopy:
    """Copy a CPU index. `suits` must be true for it."""
    return _Graph(raw) if kind == "hnsw" else _Clone(raw, kind)


class _Clone:
    def __init__(self, raw: Any, kind: str) -> None:
        self.kind = kind
        options = faiss.GpuMultipleClonerOptions()
        options.shard = True
        self.count = int(raw.ntotal)
        self._raw = faiss.index_cpu_to_all_gpus(raw, options)
        self._probes = 0
        self._lock = Mutex()

    def search(self, queries: npt.NDArray[np.float32], k: int, effort: int = 0) -> Found:
        with self._lock:
            if effort and effort != self._probes:
                faiss.GpuParameterSpace().set_index_parameter(self._raw, "nprobe", effort)
                self._probes = effort
            products, labels = self._raw.search(np.ascontiguousarray(queries), k)
            return labels, products


class _Graph:
    kind = "hnsw"

    def __init__(self, raw: Any) -> None:
        self.count = int(raw.ntotal)
        self._resources = faiss.StandardGpuResources()
        self._raw = faiss.GpuIndexCagra(self._resources, raw.d, raw.metric_type, faiss.GpuIndexCagraConfig())
        vectors = np.empty((self.count, raw.d), np.float32)
        for start in range(0, self.count, _PIECE):
            rows = vectors[start : start + _PIECE]
            raw.reconstruct_n(start, len(rows), rows)
        self._raw.train(vectors)
        self._lock = Mutex()

    def search(self, queries: npt.NDArray[np.float32], k: int, effort: int = 0) -> Found:
        parameters = faiss.SearchParametersCagra()
        parameters.itopk_size = -(-max(effort, k) // 32) * 32  # cuVS takes multiples of 32
        with self._lock:
            products, labels = self._raw.search(np.ascontiguousarray(queries), k, params=parameters)
            return labels, products
