"""`sealed`: no index vector at all; the trusted process searches opened vectors in memory. Imports profile, base."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import Matrix, Nonces, OneCell
from .device import CPU, Device
from .profile import Profile

__all__ = ["Sealed"]


@dataclass(frozen=True)
class Sealed:
    """Vectors exist in the store only as AES-256-GCM ciphertext."""

    name: ClassVar[str] = "sealed"
    number: ClassVar[int] = 2
    cells: ClassVar[None] = None
    leakage: ClassVar[str] = (
        "At rest: the number and sizes of records. Searches read every vector, so a server learns nothing more."
    )

    def parameters(self) -> Mapping[str, Any]:
        """No parameters."""
        return {}

    def index_dim(self, point_dim: int) -> int:
        """Always 0: nothing is indexed."""
        return 0

    def accepts(self, wanted: Sealed) -> bool:
        """There is nothing to differ in."""
        return self == wanted

    def keyed(
        self,
        root: bytes,
        tenant: str,
        collection: str,
        point_dim: int,
        profile: Profile | None = None,
        device: Device = CPU,
    ) -> _KeyedSealed:
        """Need no keys of its own."""
        return _KeyedSealed()


class _KeyedSealed(OneCell):
    def encrypt(self, points: Matrix, tokens: Nonces) -> tuple[Matrix, Nonces]:
        # The nonce tells writes apart in the headers: without it one write's payload would go with another's vector
        nonces = np.frombuffer(os.urandom(16 * len(points)), np.uint8).reshape(-1, 16)
        return np.empty((len(points), 0), np.float32), nonces

    def encrypt_query(self, points: Matrix) -> Matrix:
        return np.empty((len(points), 0), np.float32)

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        return np.empty((len(index_vectors), 0), np.float32)
