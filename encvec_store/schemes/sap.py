"""`sap`: Scale-And-Perturb over a Haar-random rotation.

Fuchsbauer, Ghosal, Hauke and O'Neill, "Approximate Distance-Comparison-Preserving Symmetric
Encryption", SCN 2022 (ePrint 2021/1666): c = s m + noise, with the noise uniform in the ball of radius
s beta / 4. Then |m1 - m2| < |m1 - m3| - beta implies the same order of the ciphertexts (beta-DCP). The
ball is rotation invariant, so the rotation Q in front costs no recall.

The nonce of a record's noise is a PRF of its token and exact vector: the same upsert twice gives the same
ciphertext, so there is nothing to average. beta is bound into every key: an old ciphertext and one with
another beta share no randomness, else their difference would cancel the noise.
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
        beta: noise on what is stored: uniform in a ball of radius beta / 4. 0 is a bare rotation.
        query_beta: noise on queries. 0 (the default) suits the threat of stolen data, where queries are not seen.
        cells: random parts of the collection, each under a rotation of its own.
    """

    beta: float = 2.0
    query_beta: float = 0.0
    cells: int = 1

    name: ClassVar[str] = "sap"
    number: ClassVar[int] = 1
    noisy: ClassVar[bool] = True
    leakage: ClassVar[str] = (
        "Approximate distances between records. Without other data the vectors are hidden, but an attacker who holds "
        "some thousand embeddings of a similar kind aligns the rotation at any useful beta, and some tens of known "
        "pairs suffice too. Nearly equal vectors under several ids have independent noise, which averages out. A "
        "server that sees queries learns the rotation from as many known queries as there are dimensions, unless "
        "query_beta is set."
    )

    def __post_init__(self) -> None:
        check_cells(self.name, self.cells)
        for name, value in (("beta", self.beta), ("query_beta", self.query_beta)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_BETA:
                raise SchemeError(f"sap: {name} must be a number from 0 to {MAX_BETA:g}, got {value!r}")
            object.__setattr__(self, name, float(value) + 0.0)  # 2 and 2.0, 0.0 and -0.0 must derive the same keys

    @property
    def noise(self) -> float:
        """Beta."""
        return self.beta

    def parameters(self) -> Mapping[str, Any]:
        """Return beta and query_beta; and cells, if there are any: without, settings are what they always were."""
        parameters = asdict(self)
        return parameters if self.cells > 1 else {name: parameters[name] for name in ("beta", "query_beta")}

    def index_dim(self, point_dim: int) -> int:
        """As many coordinates as the point."""
        return point_dim

    def accepts(self, wanted: Sap) -> bool:
        """Parameters must be the same."""
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
        """There is nothing to open."""
        return self

    def field(self, sample: Sample) -> SapField:
        """Only beta is to choose."""
        return SapField(self, sample)

    def tuned(self, choice: Choice, chosen: Collection[str] = ()) -> Sap:
        """Take the noise."""
        return replace(self, beta=choice.beta)

    def trial(self, sample: Sample, profile: Profile | None) -> Trial:
        """Simulate as it is."""
        return plain_trial(sample, self.query_beta)


class SapField:
    """What there is to choose under `sap`: only beta."""

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
        self._noise = Noise(root, context, _asked(scheme), *radii, sphere=False)

    def encrypt(self, points: Matrix, tokens: Nonces, kept: Kept) -> tuple[Matrix, Nonces]:
        out = self._turned(points)
        out *= np.float32(self._scale)
        nonces = self._noise.on_records(out, tokens, kept)
        return self._device.get(out), nonces

    def encrypt_queries(self, points: Matrix) -> Matrix:
        return self.encrypt_query(points)[None]

    def encrypt_query(self, points: Matrix) -> Matrix:
        out = self._rotation.apply(points)
        out *= np.float32(self._scale)
        self._noise.on_queries(out, points)
        return out

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        points = np.array(index_vectors, dtype=np.float32)
        self._noise.off(points, nonces)
        points = self._rotation.invert(points)
        points /= np.float32(self._scale)
        return points


def _keyed_cells(
    scheme: Sap, root: bytes, context: Context, parameters: Context, dim: int, device: Device
) -> KeyedCells:
    """One scale for all cells: else their inner products would not compare."""
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
    """Draw a scale between 1/2 and 2, as the paper keys it: it hides the common length of the points."""
    draw = Keystream(derive(root, Purpose.SCALE, *context)).words(np.zeros((1, 16), np.uint8), 1)
    return float(np.float32(math.exp2(2 * (int(draw[0, 0]) + 0.5) * 2.0**-32 - 1)))


def _asked(scheme: Sap) -> Context:
    return (f"query_beta={scheme.query_beta!r}",)
