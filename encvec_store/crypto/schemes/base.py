"""What an index-vector scheme is; imports crypto.profile.

A scheme turns points of the unit sphere into the vectors that an index sees. It never decides an
answer: those are re-ranked on the sealed exact vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ..profile import Profile

__all__ = ["KeyedScheme", "Matrix", "Nonces", "Scheme"]

Matrix = npt.NDArray[np.float32]
Nonces = npt.NDArray[np.uint8]


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

    def index_dim(self, point_dim: int) -> int:
        """Coordinates of an index vector; 0 where there is none."""
        ...

    def accepts(self, wanted: Any) -> bool:
        """Say whether a collection under this scheme is what a later opening, naming a scheme like it, asked for."""
        ...

    def keyed(
        self, root: bytes, tenant: str, collection: str, point_dim: int, profile: Profile | None = None
    ) -> KeyedScheme:
        """Derive the scheme's keys for one collection, under its profile if the scheme has use for one."""
        ...


class KeyedScheme(Protocol):
    """A scheme with the keys of one collection and key version."""

    def encrypt(self, points: Matrix, tokens: Nonces) -> tuple[Matrix, Nonces]:
        """Encrypt (n, dim) points of records with (n, 16) tokens: index vectors and (n, 16) noise nonces."""
        ...

    def encrypt_query(self, points: Matrix) -> Matrix:
        """Encrypt (q, dim) query points for comparison by inner product."""
        ...

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        """Recover (n, dim) points from index vectors and their noise nonces. Raises SchemeError where that is lost."""
        ...
