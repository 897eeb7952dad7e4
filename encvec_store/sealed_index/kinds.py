"""The kinds of graphs, and which one suits so many vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..data.arrays import Matrix
from .arrays import Array
from .graph import Graph, Growing

if TYPE_CHECKING:
    from .blocks import Blocks
    from .flat import Flat
    from .hnsw import Hnsw
    from .ivf import Ivf

__all__ = ["KINDS", "SAMPLE", "begin", "build", "chosen", "memory_of", "points_within", "restored"]

KINDS = ("flat", "hnsw", "ivf")
"""Those in memory. `lists` are another kind, whose codes lie in the store."""
_FLAT_MOST = 5_000
_ROW = 9
"""Bytes of a row number and its bits, beside a graph."""
SAMPLE = 100_000
"""Vectors at most from which ranges and centroids are taken."""
_POINTS, _SAMPLED = (2_000, 200_000), 2
"""The same for lists on demand, at least and at most, and the part of the memory that they may take."""


def _class_of(kind: str) -> type[Flat | Hnsw | Ivf]:
    """Return the class of a kind. FAISS takes long to load, and not every command needs it."""
    from .flat import Flat
    from .hnsw import Hnsw
    from .ivf import Ivf

    classes: dict[str, type[Flat | Hnsw | Ivf]] = {"flat": Flat, "hnsw": Hnsw, "ivf": Ivf}
    return classes[kind]


def begin(kind: str, metric: str, sample: Matrix, count: int) -> Growing:
    """Begin a graph.

    Args:
        kind: one of KINDS.
        metric: the collection's.
        sample: (s, dim), s >= 1, vectors like those that come, from which ranges and centroids are taken.
        count: about how many come.
    """
    return _class_of(kind).begin(metric, sample, count)


def build(kind: str, metric: str, vectors: Matrix) -> Graph:
    """Return a graph over (n, dim) vectors, n >= 1."""
    n = len(vectors)
    growing = begin(kind, metric, vectors[:: max(1, n // SAMPLE)], n)
    growing.add(vectors)
    return growing.finished()


def restored(
    kind: str,
    metric: str,
    dim: int,
    codes: Sequence[dict[str, Array]],
    structure: dict[str, Array],
    blocks: Blocks | None = None,
) -> Graph:
    """Return a graph from the arrays of its `codes` and `structure`, which are copied, or from its blocks.

    Raises:
        ValueError: they do not fit together.
    """
    if kind == "lists":
        from .lists import Lists

        return Lists.restored(metric, dim, structure, blocks)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)} or lists, got {kind!r}")
    return _class_of(kind).restored(metric, dim, codes, structure)


def memory_of(kind: str, count: int, dim: int) -> int:
    """Return about how many bytes such a graph takes."""
    if kind == "lists":
        from .lists import Lists

        return Lists.memory(count, dim)
    return _class_of(kind).memory(count, dim)


def chosen(count: int, dim: int, budget: int, wanted: str = "auto") -> str:
    """Return the kind for `count` vectors.

    Exact while they are few, HNSW while it fits `budget` bytes, then IVF, and lists in the store if nothing else fits.
    """
    if wanted != "auto":
        return wanted
    if count <= _FLAT_MOST:
        return "flat"
    for kind in ("hnsw", "ivf"):
        if memory_of(kind, count, dim) + _ROW * count <= budget:
            return kind
    return "lists"


def points_within(memory: int, dim: int) -> int:
    """Return how many vectors of the sample the memory allows."""
    bytes_each = 4 * dim + 256  # a point, and its part of what k-means takes
    least, most = _POINTS
    return min(most, max(least, memory // (_SAMPLED * bytes_each)))
