"""What every kind of graph can do: an immutable index over opened vectors, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..data.arrays import Matrix
from .arrays import Array

if TYPE_CHECKING:
    from ..indexes.faiss import GpuCopy

__all__ = ["Bits", "Costs", "Found", "Graph", "Growing", "Kept", "Positions"]

Positions = npt.NDArray[np.int64]
"""(n,) places of vectors in a graph, from 0."""
Costs = npt.NDArray[np.float32]
"""(n,) smaller is nearer: the negated inner product for cosine and ip, the squared distance for l2."""
Bits = npt.NDArray[np.uint8]
"""(ceil(count / 8),) one bit for each position, little-endian: whether it may be returned."""
Found = list[tuple[Positions, Costs]]


class Kept:
    """What a search with a mask has gathered, for the next one with the same mask."""

    def __init__(self) -> None:
        self.held: tuple[Positions, Any] | None = None
        self.bytes = 0
        self.walks = self.vain = 0
        """Searches that did not compare all that pass at once, and those of them that had to in the end."""

    @property
    def scans(self) -> bool:
        """True if codes are held, and comparing all of them at once is likely the shorter way."""
        return self.held is not None and 2 * self.vain > self.walks


class Growing(Protocol):
    """A graph that is being built. Nobody searches it, so it takes vectors piece by piece, without copies."""

    def add(self, vectors: Matrix) -> None:
        """Append (n, dim) vectors."""
        ...

    def finished(self) -> Graph:
        """Return the graph. Nothing may be added afterwards."""
        ...


class Graph(Protocol):
    """An index over vectors at positions 0..count-1. It never changes, so any number of threads may search it.

    It finds candidates. Exact scores come from the vectors themselves, later.
    """

    kind: str
    count: int
    dim: int

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        ...

    def needs(self, k: int) -> int:
        """Return how many candidates to ask for, so that .99 of the k nearest are among them."""
        ...

    def search(
        self,
        queries: Matrix,
        limit: int,
        mask: Bits | None = None,
        passing: int | None = None,
        copy: GpuCopy | None = None,
        kept: Kept | None = None,
    ) -> Found:
        """Return up to `limit` positions for each query, nearest first, and their costs.

        Costs of different graphs can be compared, also with those of an exact scan. Never fewer than
        min(limit, passing) positions come back.

        Args:
            queries: (q, dim).
            limit: at most so many positions for each query.
            mask: the positions that may be returned; None means all.
            passing: how many bits of the mask are set; None means that they are counted here.
            copy: what `copied` returned, to be searched instead where there is no mask and GPUs can do it.
            kept: takes what other searches with the same mask can use; None to keep nothing.
        """
        ...

    def copied(self) -> GpuCopy:
        """Return a copy that GPUs search."""
        ...

    def decoded(self, positions: Positions) -> Matrix:
        """Return the vectors at some positions, as their codes have them; perhaps with more coordinates, all 0."""
        ...

    def growing(self, more: int) -> Growing:
        """Return a copy that takes vectors, with room for about `more`. Memory holds both.

        This graph does not change and can be searched meanwhile.
        """
        ...

    def extended(self, vectors: Matrix) -> Graph:
        """Return a new graph with (n, dim) vectors appended."""
        ...

    def kept(self, positions: Positions) -> Graph:
        """Return a new graph over these of its vectors, in this order, built from its codes."""
        ...

    def codes(self, start: int, stop: int) -> dict[str, Array]:
        """Return the arrays that store positions start..stop-1: one entry of fixed width for each."""
        ...

    def structure(self) -> dict[str, Array]:
        """Return the arrays that store all the rest. Their shapes depend on the number of vectors only."""
        ...
