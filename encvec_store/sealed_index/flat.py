"""A graph without links: the vectors themselves, which a search scans. It is exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.arrays import Matrix
from .arrays import Array
from .faissing import Searched, checked, faiss, fill, measure_of, points_of, view, width_of
from .graph import Positions

__all__ = ["Flat"]


class Flat(Searched):
    """See `Graph`. The vectors are kept in single precision."""

    kind = "flat"
    storage = "float32"

    def __init__(self, metric: str, dim: int, raw: Any) -> None:
        super().__init__(metric, dim, raw, raw)
        self._vectors: Matrix = view(raw, raw.codes, np.uint8).view(np.float32).reshape(-1, self.width)

    @classmethod
    def begin(cls, metric: str, sample: Matrix, count: int) -> _Growing:
        """Begin a graph; see `kinds.begin`."""
        return _Growing(metric, sample.shape[1], [])

    @classmethod
    def restored(cls, metric: str, dim: int, codes: Sequence[dict[str, Array]], structure: dict[str, Array]) -> Flat:
        """Return a graph from its arrays. Raises ValueError if they do not fit together."""
        checked(structure)
        return cls(
            metric, dim, _raw(metric, dim, [checked(some, vectors=("<f4", (None, width_of(dim))))[0] for some in codes])
        )

    @staticmethod
    def memory(count: int, dim: int) -> int:
        """Return about how many bytes a graph takes."""
        return 4 * count * width_of(dim)

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return self.memory(self.count, self.dim)

    def needs(self, k: int) -> int:
        """Return how many candidates hold the k nearest."""
        return k

    def effort(self, limit: int, passing: int) -> int:
        """Return 0: only a scan is possible."""
        return 0

    def decoded(self, positions: Positions) -> Matrix:
        """Return the vectors at some positions."""
        return self._vectors[positions]

    def subset(self, positions: Positions) -> Any:
        """Return a FAISS index of the vectors at some positions."""
        return _raw(self.metric, self.dim, [self._vectors[positions]])

    def growing(self, more: int) -> _Growing:
        """Return a copy that takes vectors."""
        return _Growing(self.metric, self.dim, [self._vectors])

    def kept(self, positions: Positions) -> Flat:
        """Return a new graph over some of its vectors."""
        return Flat(self.metric, self.dim, _raw(self.metric, self.dim, [self._vectors[positions]]))

    def codes(self, start: int, stop: int) -> dict[str, Array]:
        """Return the arrays of positions start..stop-1."""
        return {"vectors": self._vectors[start:stop]}

    def structure(self) -> dict[str, Array]:
        """Return no arrays: nothing is left to store."""
        return {}


class _Growing:
    def __init__(self, metric: str, dim: int, pieces: list[Matrix]) -> None:
        self._metric, self._dim, self._pieces = metric, dim, pieces

    def add(self, vectors: Matrix) -> None:
        points = points_of(self._metric, vectors, width_of(self._dim))
        self._pieces.append(points.copy() if np.may_share_memory(points, vectors) else points)

    def finished(self) -> Flat:
        return Flat(self._metric, self._dim, _raw(self._metric, self._dim, self._pieces))


def _raw(metric: str, dim: int, points: Sequence[Matrix]) -> Any:
    raw = faiss.IndexFlat(width_of(dim), measure_of(metric))
    fill(raw.codes, [some.reshape(-1).view(np.uint8) for some in points], np.uint8)
    raw.ntotal = sum(map(len, points))
    return raw
