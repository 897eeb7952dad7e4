"""`sealed`: no index vector at all; the trusted process searches opened vectors in memory."""

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
    """Vectors exist in the store only as AES-256-GCM ciphertext."""

    name: ClassVar[str] = "sealed"
    number: ClassVar[int] = 2
    noisy: ClassVar[bool] = False
    noise: ClassVar[float] = 0.0
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
        context: Context,
        point_dim: int,
        profile: Profile | None = None,
        device: Device = CPU,
    ) -> KeyedSealed:
        """Need no keys of its own."""
        return KeyedSealed()

    def renewed(self, chosen: Collection[str]) -> Sealed:
        """There is nothing to open."""
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
        raise CalibrationError(f"scheme {self.name!r} has no noise to calibrate")


class KeyedSealed(OneCell):
    """Makes index vectors without coordinates."""

    def encrypt(self, points: Matrix, tokens: Nonces, kept: Kept) -> tuple[Matrix, Nonces]:
        # The nonce tells writes apart in the headers: without it one write's payload would go with another's vector
        nonces = np.frombuffer(os.urandom(16 * len(points)), np.uint8).reshape(-1, 16)
        return np.empty((len(points), 0), np.float32), nonces

    def encrypt_queries(self, points: Matrix) -> Matrix:
        return self.encrypt_query(points)[None]

    def encrypt_query(self, points: Matrix) -> Matrix:
        return np.empty((len(points), 0), np.float32)

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        return np.empty((len(index_vectors), 0), np.float32)
