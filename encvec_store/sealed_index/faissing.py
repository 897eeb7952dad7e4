"""What the kinds of graphs share: calls of FAISS, and views and copies of its memory."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from ..data.arrays import Matrix
from ..indexes.faiss import GpuCopy, gpu_copy, omp_threads, suits
from .arrays import Array
from .graph import Bits, Costs, Found, Graph, Growing, Kept, Positions

__all__ = [
    "Searched",
    "checked",
    "faiss",
    "fill",
    "found_by",
    "measure_of",
    "points_of",
    "range_of",
    "view",
    "wanted_of",
    "width_of",
]

faiss: Any = _faiss  # its stubs do not know what its Python wrappers add
_LANES = 16
"""Coordinates that FAISS decodes at once. Other dimensions take a much slower way, so zeros fill them up."""
_KEPT = 64 << 20
"""Bytes of codes that are kept for one mask."""
_NARROW = 0.2
"""A share of all vectors whose codes are gathered for one scan."""
_TINY = 1e-30
"""Squares between this and its inverse are sure to be normal numbers of single precision."""
_SPARE = 2
"""How many times more vectors are searched for than pass on average."""


def width_of(dim: int) -> int:
    """Return how many coordinates FAISS keeps of `dim`."""
    return -(-dim // _LANES) * _LANES


def measure_of(metric: str) -> int:
    """Return FAISS's number of a metric."""
    return int(faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)


def points_of(metric: str, vectors: Matrix, width: int) -> Matrix:
    """Return (n, dim) vectors as FAISS gets them: (n, width), of length 1 for cosine. A zero vector stays zero."""
    n, dim = vectors.shape
    points: Matrix = np.ascontiguousarray(vectors, np.float32)
    if metric == "cosine" and n == 1 and _TINY < (square := float(np.vdot(points, points))) < 1 / _TINY:
        points = points * np.float32(1 / math.sqrt(square))  # the common case, in a quarter of the time
    elif metric == "cosine":
        with np.errstate(over="ignore", under="ignore"):
            squares = np.einsum("ij,ij->i", points, points)
            if not (squares.min(initial=1) > _TINY and squares.max(initial=1) < 1 / _TINY):
                points = points / np.maximum(np.abs(points).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
                squares = np.maximum(np.einsum("ij,ij->i", points, points), _TINY)
        points = points * (1 / np.sqrt(squares))[:, None]
    if dim != width:
        wide = np.zeros((n, width), np.float32)
        wide[:, :dim] = points
        return wide
    return points


def range_of(sample: Matrix, margin: float) -> Matrix:
    """Return the range of each coordinate as a scalar quantiser keeps it: (2 width,) least values, then spans.

    Coordinates of later vectors are clipped to the range. `margin` widens it at both ends, by a share of the span;
    few vectors say less about the range of all, so then it is wider.
    """
    least, most = sample.min(axis=0), sample.max(axis=0)
    span = most - least
    if len(sample) < 1_000:
        margin += 1 / np.sqrt(len(sample))
        rest = np.float32(max(float(span.max()), float(np.abs(sample).max())))
        span = np.where((least == 0) & (most == 0), span, np.maximum(span, rest / 4))  # not those that fill up lanes
        least = (least + most - span) / 2
    least, span = least - margin * span, span * (1 + 2 * margin)
    return np.concatenate([least, span]).astype(np.float32)


class _Memory:
    """Memory that FAISS owns, as numpy's array interface wants it. It keeps the owner alive."""

    def __init__(self, owner: object, address: int, dtype: np.dtype[Any], size: int) -> None:
        self.owner = owner
        self.__array_interface__ = {"data": (address, False), "typestr": dtype.str, "shape": (size,), "version": 3}


def view(owner: object, vector: Any, dtype: npt.DTypeLike) -> Array:
    """Return FAISS's vector, a part of `owner`, as a flat array without a copy. It must not change any more."""
    kind = np.dtype(dtype)
    size = int(vector.size())
    if size == 0:
        return np.empty(0, kind)
    return np.asarray(_Memory(owner, int(vector.data()), kind, size))


def fill(vector: Any, arrays: Sequence[Array], dtype: npt.DTypeLike, reserve: int = 0) -> None:
    """Copy flat arrays into FAISS's vector, one after the other. It can grow by `reserve` without another copy."""
    kind = np.dtype(dtype)
    size = sum(array.size for array in arrays)
    if reserve:
        vector.resize(size + reserve)
    vector.resize(size)  # keeps the memory that it has
    if size == 0:
        return
    at = int(vector.data())
    for array in arrays:
        flat = np.ascontiguousarray(array, kind)
        ctypes.memmove(at, flat.ctypes.data, flat.nbytes)
        at += flat.nbytes


def checked(arrays: dict[str, Array], **wanted: tuple[str, tuple[int | None, ...]]) -> list[Array]:
    """Return the arrays of these names. Raises ValueError unless dtypes and shapes are as wanted."""
    if set(arrays) != set(wanted):
        raise ValueError(f"the arrays must be {sorted(wanted)}, got {sorted(arrays)}")
    for name, (dtype, shape) in wanted.items():
        array = arrays[name]
        fits = array.ndim == len(shape) and all(
            size is None or size == is_ for size, is_ in zip(shape, array.shape, strict=True)
        )
        if array.dtype != np.dtype(dtype) or not fits:
            raise ValueError(
                f"array {name!r} must have dtype {dtype} and shape {shape}, got {array.dtype} {array.shape}"
            )
    return [arrays[name] for name in wanted]


def _positions(mask: Bits, count: int) -> Positions:
    """Return the positions whose bits are set."""
    full = np.flatnonzero(mask)  # most bytes of a narrow mask are zero
    bits = np.unpackbits(mask[full], bitorder="little").view(np.bool_)
    at = np.flatnonzero(bits)
    positions: Positions = full[at >> 3] * 8 + (at & 7)
    return positions[: np.searchsorted(positions, count)]


class Searched:
    """A search of a FAISS index, which subclasses say how to reach: `effort`, `parameters` and `decoded`."""

    kind: str
    storage: str
    """How vectors are kept, as FAISS's GPU kernels know it."""
    gathers = True
    """Whether there is a `subset`."""
    lists = 0
    """Lists that a scan reads, if vectors are in lists."""
    trusted = 1.0
    """The part of what a search returns, from the nearest on, in which it misses little."""

    def __init__(self, metric: str, dim: int, raw: Any, flat: Any) -> None:
        self.metric, self.dim = metric, dim
        self.count, self.width = int(raw.ntotal), int(raw.d)
        self._raw, self._flat = raw, flat
        self._descending = metric != "l2"

    def effort(self, limit: int, passing: int) -> int:
        """Return how hard to search; 0 if a scan of the vectors that pass is cheaper."""
        raise NotImplementedError

    def longer(self, effort: int, passing: int) -> int:
        """Return how hard to search again where too little passed; 0 if a scan is cheaper."""
        return 0

    def parameters(self, effort: int) -> Any:
        """Return FAISS's parameters for a search of all vectors."""
        raise NotImplementedError

    def copied(self) -> GpuCopy:
        """Return a copy that GPUs search."""
        return gpu_copy(self._raw, self.kind)

    def decoded(self, positions: Positions) -> Matrix:
        """Return the vectors at some positions, as the graph has them: (n, width)."""
        raise NotImplementedError

    def growing(self, more: int) -> Growing:
        """Return a copy that takes vectors, with room for about `more`."""
        raise NotImplementedError

    def extended(self, vectors: Matrix) -> Graph:
        """Return a new graph with (n, dim) vectors appended."""
        grown = self.growing(len(vectors))
        grown.add(vectors)
        return grown.finished()

    def search(
        self,
        queries: Matrix,
        limit: int,
        mask: Bits | None = None,
        passing: int | None = None,
        copy: GpuCopy | None = None,
        kept: Kept | None = None,
    ) -> Found:
        """Return up to `limit` positions for each query, and their costs. See `Graph.search`."""
        if mask is None:
            available = self.count
        else:
            if mask.shape != ((self.count + 7) // 8,):
                raise ValueError(
                    f"a mask of {self.count} positions must have {(self.count + 7) // 8} bytes, got {mask.shape}"
                )
            available = int(np.bitwise_count(mask).sum()) if passing is None else passing
        limit = min(limit, available)
        if limit <= 0:
            return [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        points = points_of(self.metric, queries, self.width)
        effort = 0 if kept is not None and kept.scans else self.effort(limit, available)
        on_gpu = None if copy is None or mask is not None else self._on_gpu(copy, points, limit, effort)
        with omp_threads(1 if len(points) == 1 else None):
            if on_gpu is not None:
                labels, costs = on_gpu
            elif not effort:
                labels, costs = self._scan(points, limit, mask, available, kept)
            else:
                if mask is None:
                    labels, costs = found_by(self._raw, points, limit, self.parameters(effort))
                else:
                    labels, costs = self._passing(points, limit, mask, available, effort, self.trusted)
                    if len(short := _short(labels)) and (more := self.longer(effort, available)):
                        labels[short], costs[short] = self._passing(points[short], limit, mask, available, more, 1.0)
                short = _short(labels)
                if kept is not None:
                    kept.walks, kept.vain = kept.walks + len(labels), kept.vain + len(short)
                if len(short):
                    labels[short], costs[short] = self._scan(points[short], limit, mask, available, kept)
        if self._descending:
            np.negative(costs, out=costs)
        return list(zip(labels, costs, strict=True))

    def _passing(
        self, points: Matrix, limit: int, mask: Bits, passing: int, effort: int, trusted: float
    ) -> tuple[Positions, Costs]:
        """Search without the mask for more, and keep what passes: (q, limit), -1 where that was not enough.

        A walk that goes by the mask misses vectors where those that pass lie apart from the query. Far back in its list
        a walk misses much too, so enough must stand in the part that is trusted.
        """
        more = min(self.count, self.reach(limit, passing, effort))
        labels, costs = found_by(self._raw, points, more, self.parameters(effort))
        keep = (labels >= 0) & ((mask[labels >> 3] >> (labels & 7).astype(np.uint8)) & 1).astype(np.bool_)
        order = np.argsort(~keep, axis=1, kind="stable")[:, :limit]
        kept = np.take_along_axis(keep, order, axis=1)
        kept[:, -1] &= order[:, -1] < trusted * more
        return np.where(kept, np.take_along_axis(labels, order, axis=1), -1), np.take_along_axis(costs, order, axis=1)

    def _on_gpu(self, copy: GpuCopy, points: Matrix, limit: int, effort: int) -> tuple[Positions, Costs] | None:
        """Search a copy: (q, limit) positions and FAISS's distances; None where the CPU must search."""
        if copy.kind == "hnsw" and not effort:
            return None  # of only a few vectors, CAGRA makes no graph
        probes = effort or self.lists if copy.kind == self.kind else 0
        if not suits(copy.kind, self.storage, limit, probes):
            return None
        labels, costs = copy.search(points, limit, probes)
        return None if (labels < 0).any() else (labels, costs)

    def _scan(
        self, points: Matrix, limit: int, mask: Bits | None, passing: int, kept: Kept | None = None
    ) -> tuple[Positions, Costs]:
        """Compare the queries with every vector that passes: (q, limit) positions and FAISS's distances."""
        if mask is None:
            return found_by(self._flat, points, limit, self.everywhere(None))
        size = passing * (self.width + 8)
        if self.gathers and (passing <= self.count * _NARROW or (kept is not None and size <= _KEPT)):
            held = None if kept is None else kept.held
            if held is None:  # codes side by side are read several times as fast as those that lie apart
                positions = _positions(mask, self.count)
                held = positions, self.subset(positions)
                if kept is not None and size <= _KEPT:
                    kept.held, kept.bytes = held, size
            places, costs = found_by(held[1], points, limit, None)
            return held[0][places], costs
        return found_by(self._flat, points, limit, self.everywhere(faiss.IDSelectorBitmap(mask)))

    def reach(self, limit: int, passing: int, effort: int) -> int:
        """Return how many vectors to take from a search without a mask, to keep those that pass."""
        return wanted_of(limit, passing / self.count)

    def subset(self, positions: Positions) -> Any:
        """Return a FAISS index of the codes at some positions."""
        raise NotImplementedError

    def everywhere(self, selector: Any) -> Any:
        """Return FAISS's parameters for a scan of all vectors."""
        return None if selector is None else faiss.SearchParameters(sel=selector)


def _short(labels: Positions) -> Positions:
    """Return the queries, of (q, limit) positions, that have too few."""
    return np.flatnonzero(labels[:, -1] < 0)


def wanted_of(limit: int, share: float) -> int:
    """Return how many of all vectors to search for, so that `limit` of them pass a mask, if that is drawn by chance."""
    return math.ceil(_SPARE * limit / share) if share < 1 else limit


def found_by(raw: Any, points: Matrix, limit: int, parameters: Any) -> tuple[Positions, Costs]:
    """Search a FAISS index for (q, width) points: (q, limit) positions, -1 where there are no more, and distances."""
    shape = (len(points), limit)
    costs, labels = np.empty(shape, np.float32), np.empty(shape, np.int64)
    raw.search_c(len(points), _floats(points), limit, _floats(costs), faiss.swig_ptr(labels), parameters)
    return labels, costs


def _floats(array: Matrix) -> Any:
    return faiss.swig_ptr(array)
