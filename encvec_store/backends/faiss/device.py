"""Searching on a GPU where FAISS is built for one and one is there; imports faiss, errors' logger only.

Indexes are built, extended and kept on the CPU; what searches is a copy on every GPU there is, sharded by FAISS.
Flat and IVF only: FAISS searches HNSW on the CPU.
"""

from __future__ import annotations

import logging
import threading
from functools import cache
from typing import Any

import faiss as _faiss
import numpy as np
import numpy.typing as npt

__all__ = ["DEVICES", "GpuCopy", "suits", "uses_gpu"]

faiss: Any = _faiss
DEVICES = ("auto", "cpu", "cuda")
_KINDS = ("flat", "ivf")
_MOST_K = 2_048
"""Neighbours that FAISS's GPU kernels return at most."""
_log = logging.getLogger("encvec_store")


@cache
def uses_gpu(device: str) -> bool:
    """Whether `device` means a GPU here. Says once, in one line, where `cuda` was asked for and cannot be had."""
    if device == "cpu":
        return False
    why = _missing()
    if why and device == "cuda":
        _log.warning("device=cuda: %s; indexes are searched on the CPU", why)
    return not why


def suits(kind: str, k: int) -> bool:
    """Whether FAISS can search such an index for k neighbours on a GPU."""
    return kind in _KINDS and k <= _MOST_K


def _missing() -> str:
    """Say why there is no GPU to use; empty where there is one."""
    if not hasattr(faiss, "StandardGpuResources"):
        return "this FAISS was built without GPU support (faiss-gpu-cu12 has it)"
    try:
        return "" if faiss.get_num_gpus() else "FAISS finds no GPU"
    except Exception as error:  # a driver that is missing or too old
        return f"FAISS cannot ask for GPUs: {type(error).__name__}"


class GpuCopy:
    """A copy of a CPU index on the GPUs. FAISS's own are not safe from several threads; this one takes turns."""

    def __init__(self, raw: Any) -> None:
        options = faiss.GpuMultipleClonerOptions()
        options.shard = True
        self.count = int(raw.ntotal)
        self._raw = faiss.index_cpu_to_all_gpus(raw, options)
        self._probes = 0
        self._lock = threading.Lock()

    def search(
        self, queries: npt.NDArray[np.float32], k: int, probes: int = 0
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return (q, k) labels, -1 where too few were found, and products; `probes` lists of an IVF."""
        with self._lock:
            if probes and probes != self._probes:
                faiss.GpuParameterSpace().set_index_parameter(self._raw, "nprobe", probes)
                self._probes = probes
            products, labels = self._raw.search(np.ascontiguousarray(queries), k)
            return labels, products
