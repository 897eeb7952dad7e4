"""What an index-vector scheme is; imports crypto.profile, device.

A scheme turns points of the unit sphere into the vectors that an index sees. It never decides an
answer: those are re-ranked on the sealed exact vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from .device import CPU, Device
from .profile import Profile

__all__ = ["Cells", "KeyedScheme", "Matrix", "Nonces", "OneCell", "Scheme"]

Matrix = npt.NDArray[np.float32]
Nonces = npt.NDArray[np.uint8]
Cells = npt.NDArray[np.int64]


class Scheme(Protocol):
    """A scheme with its parameters, without a key."""

    name: ClassVar[str]
    number: ClassVar[int]
    """Identifies the scheme in record headers; never reused."""
    leakage: ClassVar[str]
    """What a thief of index vectors learns, in plain words."""

    def parameters(self) -> Mapping[str, Any]:
        """Parameters as JSON values: stored, authenticated, and bound into every key."""
        ...

    @property
    def cells(self) -> int | None:
        """Parts of the collection, each under a rotation of its own, once there are index vectors. None: not chosen."""
        ...

    def index_dim(self, point_dim: int) -> int:
        """Coordinates of an index vector; 0 where there is none."""
        ...

    def accepts(self, wanted: Any) -> bool:
        """Say whether a collection under this scheme is what a later opening, naming a scheme like it, asked for."""
        ...

    def keyed(
        self,
        root: bytes,
        tenant: str,
        collection: str,
        point_dim: int,
        profile: Profile | None = None,
        device: Device = CPU,
    ) -> KeyedScheme:
        """Derive the scheme's keys for one collection, under its profile if the scheme has use for one.

        Records are encrypted on the device, queries always on the CPU: one is no work.
        """
        ...


class KeyedScheme(Protocol):
    """A scheme with the keys of one collection and key version."""

    @property
    def cells(self) -> int:
        """How many rotations there are. Index vectors of two cells do not compare."""
        ...

    def cells_of(self, tokens: Nonces) -> Cells:
        """Return the cell, from 0, of each of (n, 16) tokens: (n,) int64."""
        ...

    def encrypt(self, points: Matrix, tokens: Nonces) -> tuple[Matrix, Nonces]:
        """Encrypt (n, dim) points of records with (n, 16) tokens: index vectors and (n, 16) noise nonces."""
        ...

    def encrypt_queries(self, points: Matrix) -> Matrix:
        """Encrypt (q, dim) query points for comparison by inner product, for each cell: (cells, q, index_dim).

        Products of different cells compare with each other.
        """
        ...

    def aligned(self, index_vectors: Matrix, tokens: Nonces) -> Matrix:
        """Turn (n, index_dim) index vectors of records so that those of all cells compare: for statistics."""
        ...

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        """Recover (n, dim) points from index vectors and their noise nonces. Raises SchemeError where that is lost."""
        ...


class OneCell:
    """What keyed schemes have in common that know of no cells."""

    cells = 1

    def cells_of(self, tokens: Nonces) -> Cells:
        """All in the first."""
        return np.zeros(len(tokens), np.int64)

    def encrypt_query(self, points: Matrix) -> Matrix:
        """Encrypt (q, dim) query points: (q, index_dim)."""
        raise NotImplementedError

    def encrypt_queries(self, points: Matrix) -> Matrix:
        """Encrypt them for the one cell there is."""
        return self.encrypt_query(points)[None]

    def aligned(self, index_vectors: Matrix, tokens: Nonces) -> Matrix:
        """They compare as they are."""
        return index_vectors
