"""Vectors that need not fit in memory, and what is asked of them: sources, data sets, judgements.

A source is read by slices (to store, to search exactly) and by rows (to score what was found). An array, a memory map
and an HDF5 data set will do as they are; `Drawn` makes vectors up as they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...data import Matrix, Rows, as_vectors
from ...errors import InputError, ShapeError

__all__ = ["Data", "Drawn", "Judged", "Labels", "Qrels", "VectorSource", "Vectors", "held_out"]

SLICE = 20_000
HELD_OUT = 1_000


class Vectors(Protocol):
    """(n, d) numbers with NumPy's indexing: an array, a memory map, an HDF5 data set, `Drawn`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""
        ...

    def __getitem__(self, rows: Any, /) -> Any: ...


class VectorSource:
    """(n, d) vectors, or those of them at some positions; float32 where they leave it."""

    def __init__(self, array: Vectors, rows: Rows | None = None) -> None:
        """Take `array`, or its rows at ascending positions `rows`. Raises ShapeError."""
        if len(array.shape) != 2 or not array.shape[1]:
            raise ShapeError(f"expected vectors of shape (n, d), got {tuple(array.shape)}")
        self._array, self._rows = array, rows
        self.n = array.shape[0] if rows is None else len(rows)
        self.dim = int(array.shape[1])

    def __len__(self) -> int:
        return self.n

    def slices(self, size: int = SLICE) -> Iterator[tuple[int, Matrix]]:
        """Yield (first position, (m, d) vectors), in order."""
        for start in range(0, self.n, size):
            stop = min(start + size, self.n)
            if self._rows is None:
                yield start, self._as_vectors(self._array[start:stop])
            else:
                yield start, self._at(self._rows[start:stop])

    def rows(self, positions: npt.ArrayLike) -> Matrix:
        """Return the (m, d) vectors at positions, in the order asked."""
        wanted = np.asarray(positions, np.int64)
        return self._at(wanted if self._rows is None else self._rows[wanted])

    def take(self, limit: int | None, seed: int = 0) -> VectorSource:
        """Return at most `limit` of them, spread over the whole and always the same ones."""
        if limit is None or limit >= self.n:
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(self.n)[:limit])
        return VectorSource(self._array, chosen if self._rows is None else self._rows[chosen])

    def head(self, limit: int) -> VectorSource:
        """Return the first of them, at most so many."""
        rows = self._rows
        return VectorSource(self._array, np.arange(min(limit, self.n)) if rows is None else rows[:limit])

    def whole(self) -> Matrix:
        """Return all of them in one array."""
        if self._rows is None:
            return self._as_vectors(self._array[: self.n])
        return self._at(self._rows)

    def _at(self, rows: Rows) -> Matrix:
        if not len(rows):
            return np.empty((0, self.dim), np.float32)
        unique, back = np.unique(rows, return_inverse=True)  # HDF5 wants them ascending, each once
        first, last = int(unique[0]), int(unique[-1])
        found = self._array[first : last + 1] if last - first == len(unique) - 1 else self._array[unique]
        return self._as_vectors(np.asarray(found)[back])

    def _as_vectors(self, some: Any) -> Matrix:
        return as_vectors(some, self.dim)


class Judged(Protocol):
    """What is relevant to a query, for nDCG."""

    def gains(self, query: int, positions: Rows) -> npt.NDArray[np.float64]:
        """Return (m,) gains of records at positions."""
        ...

    def best(self, query: int, k: int) -> npt.NDArray[np.float64]:
        """Return the k largest gains that there are for a query, largest first."""
        ...


class Labels:
    """A record is relevant if it has the query's label: an intent, a person."""

    def __init__(self, labels: Rows, query_labels: Rows) -> None:
        self._labels, self._asked = labels, query_labels
        self._counts = np.bincount(labels)

    def gains(self, query: int, positions: Rows) -> npt.NDArray[np.float64]:
        """1 for the query's label, else 0."""
        found: npt.NDArray[np.float64] = (self._labels[positions] == self._asked[query]).astype(np.float64)
        return found

    def best(self, query: int, k: int) -> npt.NDArray[np.float64]:
        """As many ones as there are records of the label."""
        label = self._asked[query]
        return np.ones(min(k, int(self._counts[label]) if label < len(self._counts) else 0))


class Qrels:
    """Judgements as TREC has them: for each query, gains of records."""

    def __init__(self, judged: Sequence[Mapping[int, float]]) -> None:
        self._judged = judged

    def gains(self, query: int, positions: Rows) -> npt.NDArray[np.float64]:
        """0 for what was not judged."""
        return np.array([self._judged[query].get(int(position), 0.0) for position in positions])

    def best(self, query: int, k: int) -> npt.NDArray[np.float64]:
        """Return the largest."""
        return np.array(sorted((gain for gain in self._judged[query].values() if gain > 0), reverse=True)[:k])


@dataclass(frozen=True)
class Data:
    """What a benchmark runs on: vectors to store, others to ask for, and what is relevant, where that is known."""

    name: str
    vectors: VectorSource
    queries: Matrix
    """(q, d)"""
    metric: str = "cosine"
    judged: Judged | None = None

    def first(self, queries: int) -> Data:
        """Return it with at most so many queries."""
        return replace(self, queries=self.queries[:queries])


class Drawn:
    """Vectors made as they are asked for, a block at a time: any number of them takes the memory of a block.

    `draw(generator, m, first)` returns (m, d) vectors that stand at positions first, first + 1, ...; a block's
    generator is seeded by its number, so a position holds the same vector whoever asks, and in whatever order.
    """

    BLOCK = 8_192

    def __init__(self, n: int, dim: int, seed: int, draw: Callable[[np.random.Generator, int, int], Matrix]) -> None:
        if n < 1 or dim < 1:
            raise InputError(f"a synthetic set needs n >= 1 and d >= 1, got {n} x {dim}")
        self.shape = (n, dim)
        self._seed, self._draw = seed, draw
        self._held: tuple[int, Matrix] | None = None

    def _block(self, number: int) -> Matrix:
        if self._held is None or self._held[0] != number:
            first = number * self.BLOCK
            generator = np.random.default_rng([self._seed, 1, number])
            self._held = number, self._draw(generator, self.BLOCK, first)[: self.shape[0] - first]
        return self._held[1]

    def __getitem__(self, rows: Any) -> Matrix:
        """Return vectors of a slice, or at ascending positions."""
        wanted = np.arange(self.shape[0])[rows] if isinstance(rows, slice) else np.asarray(rows, np.int64)
        out = np.empty((len(wanted), self.shape[1]), np.float32)
        blocks = wanted // self.BLOCK
        for number in np.unique(blocks).tolist():
            here = blocks == number
            out[here] = self._block(number)[wanted[here] - number * self.BLOCK]
        return out


def held_out(array: Vectors, most: int = HELD_OUT) -> tuple[VectorSource, Matrix]:
    """Take a tenth of the vectors, at most so many, out as queries, at random and always the same ones.

    Raises InputError for fewer than two vectors.
    """
    n = int(array.shape[0])
    if n < 2:
        raise InputError("two vectors are the least that give a query and something to find")
    order = np.random.default_rng(0).permutation(n)
    count = min(most, max(1, n // 10))
    whole = VectorSource(array)
    return VectorSource(array, np.sort(order[count:])), whole.rows(order[:count])
