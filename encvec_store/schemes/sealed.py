"""`sealed`: there are no index vectors; the trusted process searches opened vectors in memory."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np

from ..data.arrays import Kept, Matrix
from ..errors import CalibrationError
from .base import Context, Field, Fixed, Nonces, OneCell
from .device import CPU, Device
from .profile import Profile
from .simulation import Sample, Trial
from .strategy import Choice

__all__ = ["KeyedSealed", "Sealed"]


@dataclass(frozen=True)
class Sealed(Fixed):
    """The store has vectors only as AES-256-GCM ciphertext."""

    name: ClassVar[str] = "sealed"
    number: ClassVar[int] = 2
    noisy: ClassVar[bool] = False
    noise: ClassVar[float] = 0.0
    cells: ClassVar[None] = None
    leakage: ClassVar[str] = (
        "The number and padded sizes of records, and the size of the index over them. A server that watches searches"
        " also sees which records are read together: those of one search are near each other."
    )

    def parameters(self) -> Mapping[str, Any]:
        """Return nothing: there are no parameters."""
        return {}

    def index_dim(self, point_dim: int) -> int:
        """Return 0: there are no index vectors."""
        return 0

    def accepts(self, wanted: Sealed) -> bool:
        """Accept `sealed`: there are no parameters that could differ."""
        return self == wanted

    def keyed(
        self,
        root: bytes,
        context: Context,
        point_dim: int,
        profile: Profile | None = None,
        device: Device = CPU,
    ) -> KeyedSealed:
        """Return the scheme: it needs no keys of its own."""
        return KeyedSealed()

    def renewed(self, chosen: Collection[str]) -> Sealed:
        """Return it as it is: a fit chooses nothing."""
        return self

    def field(self, sample: Sample) -> Field:
        """Refuse: there is no noise."""
        self._refuse()

    def tuned(self, choice: Choice, chosen: Collection[str] = ()) -> Sealed:
        """Refuse: there is no noise."""
        self._refuse()

    def trial(self, sample: Sample, profile: Profile | None) -> Trial:
        """Refuse: there is no noise."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise CalibrationError(f"calibrate is for server-ranked schemes (sketch, sap): {self.name!r} has no noise")


class KeyedSealed(OneCell):
    """Makes empty index vectors."""

    def encrypt(self, points: Matrix, tokens: Nonces, kept: Kept) -> tuple[Matrix, Nonces]:
        # a random nonce tells writes apart: without it one write's vector would fit another's payload
        nonces = np.frombuffer(os.urandom(16 * len(points)), np.uint8).reshape(-1, 16)
        return np.empty((len(points), 0), np.float32), nonces

    def encrypt_queries(self, points: Matrix) -> Matrix:
        return self.encrypt_query(points)[None]

    def encrypt_query(self, points: Matrix) -> Matrix:
        return np.empty((len(points), 0), np.float32)

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        return np.empty((len(index_vectors), 0), np.float32)
