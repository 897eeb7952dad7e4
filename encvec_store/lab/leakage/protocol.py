"""What the lab asks of a subject: a scheme or a control, and the same under a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import numpy as np

from ...data import Matrix
from ...sealing import DEFAULT_OVERSAMPLE
from .algebra import Cells

__all__ = ["GivenParameters", "Keyed", "OneRotation", "Subject"]


class Keyed(Protocol):
    """A subject under one key."""

    @property
    def noise(self) -> float:
        """Radius of the noise ball, relative to points of length 1: a parameter, which the adversary knows."""
        ...

    @property
    def public(self) -> Callable[[Matrix], Matrix] | None:
        """Steps before the secret ones, (n, d) -> (n, k), where they depend on nothing secret; else None."""
        ...

    @property
    def sorts(self) -> Callable[[Matrix], Cells] | None:
        """The cell of each of (n, d) vectors, where content decides it and not a key's draw; else None."""
        ...

    def store(self, vectors: Matrix) -> Matrix:
        """Index vectors (n, k) of (n, d) unit vectors."""
        ...

    def spread(self, vectors: Matrix) -> tuple[Matrix, Cells]:
        """Return the same, and the cell of each (n,), which a thief sees. Each cell has a rotation of its own."""
        ...

    def ask(self, queries: Matrix) -> Matrix:
        """Encrypted queries (cells, q, k) of (q, d), ranked by inner product with the records of each cell."""
        ...


class OneRotation:
    """What keyed subjects have in common that know of no cells."""

    sorts: Callable[[Matrix], Cells] | None = None

    def store(self, vectors: Matrix) -> Matrix:
        """See Keyed."""
        raise NotImplementedError

    def spread(self, vectors: Matrix) -> tuple[Matrix, Cells]:
        """All in the first."""
        return self.store(vectors), np.zeros(len(vectors), np.int64)


class Subject(Protocol):
    """A scheme or control with its parameters."""

    @property
    def oversample(self) -> int:
        """Candidates that the owner re-ranks per hit."""
        ...

    def grown(self, records: int, sample: Matrix) -> Subject:
        """Return the subject with the parameters that a collection of so many records like (m, d) vectors has."""
        ...

    def parameters(self) -> Mapping[str, Any]:
        """Parameters as JSON values."""
        ...

    def keyed(self, key: int, profile: Matrix) -> Keyed:
        """Under the key of that number, with (m, d) vectors of the collection's own kind for statistics."""
        ...


class GivenParameters:
    """What subjects have in common whose parameters are all given."""

    @property
    def oversample(self) -> int:
        """See Subject."""
        return DEFAULT_OVERSAMPLE

    def grown(self, records: int, sample: Matrix) -> Self:
        """Return the same."""
        return self
