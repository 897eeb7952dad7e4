"""Copies of graphs on GPUs, which searches use where they can. FAISS's CPU graphs stay what is built and stored."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ..runtime.forks import Mutex, generation
from .graph import Graph

if TYPE_CHECKING:
    from ..indexes.faiss import GpuCopy

__all__ = ["Gpus"]

log = logging.getLogger("encvec_store")
_LEAST = 10_000
"""Vectors of the smallest graph for which a copy is worth it."""


class Gpus:
    """The copies of one index. One goes when its graph does.

    Args:
        device: `cpu`, `cuda` or `auto`.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._copies: WeakKeyDictionary[Graph, GpuCopy] = WeakKeyDictionary()
        self._turn = Mutex()
        self._failed = False

    def copy_of(self, graph: Graph) -> GpuCopy | None:
        """Return the copy of a graph; None if the CPU is to search it, as long as another thread makes the copy."""
        if self.device == "cpu" or self._failed or graph.count < _LEAST or generation():
            return None  # CUDA does not work in a forked child
        held = self._copies.get(graph)
        if held is not None:
            return held
        from ..indexes.faiss import uses_gpu  # it loads FAISS

        if not uses_gpu(self.device) or not self._turn.acquire(timeout=0):
            return None
        try:
            held = self._copies.get(graph)  # another thread may have made it meanwhile
            if held is None:
                held = self._copies[graph] = graph.copied()
        except RuntimeError as error:  # FAISS: the GPU has too little memory, or cannot search such a graph
            self._failed = True
            log.warning("searched on the CPU from now on, because a GPU does not take the index: %s", _first(error))
        finally:
            self._turn.release()
        return held

    def holds(self, graph: Graph) -> bool:
        """Say whether there is a copy of a graph."""
        return graph in self._copies


def _first(error: RuntimeError) -> str:
    return str(error).strip().partition("\n")[0]
