"""The precision in which a collection keeps vectors: single or half (IEEE 754).

Half precision has 11 significant bits. Rounding changes a coordinate by at most one part in 2,048, and a coordinate
below 2^-14 by at most 2^-25. The rounded vector is the one that is kept, scored and returned.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt

from ..errors import InputError, NormError
from .arrays import Kept

__all__ = ["FORMATS", "Precision", "precision"]

_LARGEST = 65_504.0
_LEAST = 2.0**-14
"""The smallest coordinate that keeps all 11 bits."""


class Precision(StrEnum):
    """How the exact vectors and the index vectors of a collection are kept."""

    SINGLE = "single"
    HALF = "half"

    @property
    def dtype(self) -> np.dtype[np.float16] | np.dtype[np.float32]:
        """The type of a coordinate, little-endian."""
        return np.dtype("<f2") if self is Precision.HALF else np.dtype("<f4")

    @property
    def record_format(self) -> int:
        """The first byte of a record's header, which both of its envelopes authenticate."""
        return 2 if self is Precision.HALF else 1

    def kept(self, vectors: npt.NDArray[np.float32]) -> Kept:
        """Round (n, d) vectors to this precision."""
        return vectors.astype(np.float16) if self is Precision.HALF else vectors

    def check(self, vectors: npt.NDArray[np.float32], lengths: npt.NDArray[np.float64], *, direction: bool) -> None:
        """Refuse vectors that rounding would spoil.

        Args:
            vectors: (n, d).
            lengths: (n,) their Euclidean lengths.
            direction: True if only the direction of a vector counts, as under cosine. Coordinates that are too small
                lose digits, and that changes the direction.

        Raises:
            NormError: a coordinate is too large, or the vector too short.
        """
        if self is Precision.SINGLE or not len(vectors):
            return
        if lengths.max() > _LARGEST:  # otherwise no coordinate is larger either
            largest = np.abs(vectors).max(axis=1)
            row = int(largest.argmax())
            if largest[row] > _LARGEST:
                raise NormError(
                    f"vectors[{row}] has a coordinate of size {largest[row]:.6g}: precision half holds at most"
                    f" {_LARGEST:g}. Scale the vectors, or create the collection with precision single"
                )
        least = _LEAST * vectors.shape[1] ** 0.5
        if direction and lengths.min() < least:
            row = int(lengths.argmin())
            raise NormError(
                f"vectors[{row}] has norm {lengths[row]:.3g}: below {least:.3g}, precision half would change its"
                " direction. Scale the vectors, or create the collection with precision single"
            )


FORMATS = {item.record_format: item for item in Precision}
"""Precisions by the first byte of a header."""


def precision(name: str | None) -> Precision:
    """Look a precision up by name; None is single. Raises InputError."""
    try:
        return Precision.SINGLE if name is None else Precision(name)
    except ValueError:
        raise InputError(f"precision must be one of {', '.join(Precision)}, got {name!r}") from None
