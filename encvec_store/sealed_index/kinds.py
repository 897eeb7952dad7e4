"""The kinds of graphs, and which one suits so many vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..data.arrays import Matrix
from .arrays import Array
from .graph import Graph, Tick

if TYPE_CHECKING:
    from .flat import Flat
    from .hnsw import Hnsw
    from .ivf import Ivf

__all__ = ["KINDS", "build", "chosen", "memory_of", "restored"]

KINDS = ("flat", "hnsw", "ivf")
_FLAT_MOST = 5_000


def _class_of(kind: str) -> type[Flat | Hnsw | Ivf]:
    """Return the class of a kind. FAISS takes long to load, and not every command needs it."""
    from .flat import Flat
    from .hnsw import Hnsw
    from .ivf import Ivf

    classes: dict[str, type[Flat | Hnsw | Ivf]] = {"flat": Flat, "hnsw": Hnsw, "ivf": Ivf}
    return classes[kind]


def build(kind: str, metric: str, vectors: Matrix, threads: int | None = None, tick: Tick | None = None) -> Graph:
    """Return a graph over (n, dim) vectors, n >= 1.

    Args:
        kind: one of KINDS.
        metric: the collection's.
        vectors: (n, dim).
        threads: threads of OpenMP that build it; None means as many as allowed.
        tick: called after each piece of the work.
    """
    return _class_of(kind).build(metric, vectors, threads, tick)


def restored(kind: str, metric: str, dim: int, codes: Sequence[dict[str, Array]], structure: dict[str, Array]) -> Graph:
    """Return a graph from the arrays of its `codes` and `structure`, which are copied.

    Raises:
        ValueError: they do not fit together.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    return _class_of(kind).restored(metric, dim, codes, structure)


def memory_of(kind: str, count: int, dim: int) -> int:
    """Return about how many bytes such a graph takes."""
    return _class_of(kind).memory(count, dim)


def chosen(count: int, dim: int, budget: int, wanted: str = "auto") -> str:
    """Return the kind for `count` vectors: exact while they are few, HNSW while it fits `budget` bytes, else IVF."""
    if wanted != "auto":
        return wanted
    if count <= _FLAT_MOST:
        return "flat"
    return "hnsw" if memory_of("hnsw", count, dim) <= budget else "ivf"
