"""`sap`: Scale-And-Perturb over a Haar-random rotation.

Fuchsbauer, Ghosal, Hauke and O'Neill, "Approximate Distance-Comparison-Preserving Symmetric
Encryption", SCN 2022 (ePrint 2021/1666): c = s m + noise, with the noise uniform in the ball of radius
s beta / 4. Then |m1 - m2| < |m1 - m3| - beta implies the same order of the ciphertexts (beta-DCP). A
rotation of the points changes no distance and no ball, so it costs no recall.

The nonce of a record's noise is a PRF of its token and exact vector. The same upsert twice gives the same
ciphertext, so there is nothing to average. beta is bound into every key, so that ciphertexts under two
betas share no randomness. Otherwise their difference would cancel the noise.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..crypto.labels import Purpose, derive
from ..crypto.prf import Keystream
from ..data.arrays import Kept, Matrix
from ..data.values import number
from ..errors import SchemeError
from .base import Context, Fixed, KeyedScheme, Nonces, OneCell
from .cells import KeyedCells, check_cells
from .device import CPU, Device
from .noise import Noise
from .profile import Profile
from .rotation import rotation, turning
from .simulation import Sample, Trial, plain_trial
from .strategy import Choice

__all__ = ["Sap", "SapField"]

MAX_BETA = 16.0


@dataclass(frozen=True)
class Sap(Fixed):
    """SAP with noise `beta` on records and `query_beta` on queries, relative to unit-length points.

    Args:
        beta: noise on index vectors, uniform in a ball of radius beta / 4. With 0 there is only the rotation.
        query_beta: noise on queries. 0 (the default) is for a thief of stored data, who sees no queries.
        cells: number of random parts of the collection, each with its own rotation.
    """

    beta: float = 2.0
    query_beta: float = 0.0
    cells: int = 1

    name: ClassVar[str] = "sap"
    number: ClassVar[int] = 1
    noisy: ClassVar[bool] = True
    leakage: ClassVar[str] = (
        "Approximate distances between records. The vectors are hidden from an attacker without other data. But an "
        "attacker with some thousand embeddings of a similar kind finds the rotation at any useful beta, and so does "
        "one with some tens of known pairs. Nearly equal vectors under several ids have independent noise, which "
        "averages out. A server that sees queries learns the rotation from as many known queries as there are "
        "dimensions, unless query_beta is set."
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", check_cells(self.name, self.cells))
        for name, value in (("beta", self.beta), ("query_beta", self.query_beta)):
            checked = number(value)
            if checked is None or not 0 <= checked <= MAX_BETA:
                raise SchemeError(f"sap: {name} must be a number from 0 to {MAX_BETA:g}, got {value!r}")
            object.__setattr__(self, name, checked + 0.0)  # 2 and 2.0, 0.0 and -0.0 must derive the same keys

    @property
    def noise(self) -> float:
        """Beta, the noise on index vectors."""
        return self.beta

    def parameters(self) -> Mapping[str, Any]:
        """Return beta and query_beta, and the number of cells if it is above 1."""
        parameters = asdict(self)
        return parameters if self.cells > 1 else {name: parameters[name] for name in ("beta", "query_beta")}

    def index_dim(self, point_dim: int) -> int:
        """An index vector has as many coordinates as the point."""
        return point_dim

    def accepts(self, wanted: Sap) -> bool:
        """Accept only the same parameters."""
        return self == wanted

    def keyed(
        self,
        root: bytes,
        context: Context,
        point_dim: int,
        profile: Profile | None = None,
        device: Device = CPU,
    ) -> KeyedScheme:
        """Derive rotation, scale and noise keys for one collection."""
        parameters: Context = (self.name, f"beta={self.beta!r}", point_dim)
        if self.cells == 1:
            return _KeyedSap(self, root, (*context, *parameters), point_dim, device)
        return _keyed_cells(self, root, context, parameters, point_dim, device)

    def renewed(self, chosen: Collection[str]) -> Sap:
        """Return it as it is: a fit chooses nothing."""
        return self

    def field(self, sample: Sample) -> SapField:
        """A calibration changes only beta."""
        return SapField(self, sample)

    def tuned(self, choice: Choice, chosen: Collection[str] = ()) -> Sap:
        """Return the scheme with the chosen beta."""
        return replace(self, beta=choice.beta)

    def trial(self, sample: Sample, profile: Profile | None) -> Trial:
        """Simulate searches under the scheme as it is."""
        return plain_trial(sample, self.query_beta)


class SapField:
    """What a calibration of `sap` may change: only beta."""

    def __init__(self, scheme: Sap, sample: Sample) -> None:
        self._sample = sample
        self.usual, self.others = sample.points.shape[1], list[int]()
        self.gammas: list[float | None] = [None]
        self.floor, self.least = 0.0, 0
        self.query_beta = scheme.query_beta

    def trial(self, dimensions: int, gamma: float | None) -> Trial:
        return plain_trial(self._sample, self.query_beta)


class _KeyedSap(OneCell):
    def __init__(self, scheme: Sap, root: bytes, context: Context, dim: int, device: Device) -> None:
        self._scale = _scale(root, context)
        radii = (self._scale * scheme.beta / 4, self._scale * scheme.query_beta / 4)
        self._rotation = rotation(derive(root, Purpose.ROTATION, *context), dim)
        self._device, self._turned = device, turning(self._rotation, dim, device)
        self.noise = Noise(root, context, _asked(scheme), *radii, sphere=False)

    def encrypt(self, points: Matrix, tokens: Nonces, kept: Kept) -> tuple[Matrix, Nonces]:
        out = self._turned(points)
        out *= np.float32(self._scale)
        nonces = self.noise.on_records(out, tokens, kept)
        return self._device.get(out), nonces

    def encrypt_queries(self, points: Matrix) -> Matrix:
        return self.encrypt_query(points)[None]

    def encrypt_query(self, points: Matrix) -> Matrix:
        out = self._rotation.apply(points)
        out *= np.float32(self._scale)
        self.noise.on_queries(out, points)
        return out

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        points = np.array(index_vectors, dtype=np.float32)
        self.noise.off(points, nonces)
        points = self._rotation.invert(points)
        points /= np.float32(self._scale)
        return points


def _keyed_cells(
    scheme: Sap, root: bytes, context: Context, parameters: Context, dim: int, device: Device
) -> KeyedCells:
    """Build `sap` with cells. All share one scale, so that their inner products compare."""
    parameters = (*parameters, f"cells={scheme.cells}")
    scale = _scale(root, (*context, *parameters))

    def scaled(points: Matrix) -> Matrix:
        return points * np.float32(scale)

    return KeyedCells(
        root,
        context,
        parameters,
        _asked(scheme),
        scheme.cells,
        dim,
        stored=lambda points: scaled(device.put(points)),
        queried=scaled,
        radius=scale * scheme.beta / 4,
        query_radius=scale * scheme.query_beta / 4,
        sphere=False,
        device=device,
    )


def _scale(root: bytes, context: Context) -> float:
    """Draw the keyed scale of the paper, between 1/2 and 2. It hides the common length of the points."""
    draw = Keystream(derive(root, Purpose.SCALE, *context)).words(np.zeros((1, 16), np.uint8), 1)
    return float(np.float32(math.exp2(2 * (int(draw[0, 0]) + 0.5) * 2.0**-32 - 1)))


def _asked(scheme: Sap) -> Context:
    return (f"query_beta={scheme.query_beta!r}",)
