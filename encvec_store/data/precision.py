"""How exactly a collection keeps vectors: in single or in half precision (IEEE 754).

Half precision has 11 bits for the digits of a number: rounding changes a coordinate by one part in 2,048 at most, and
below 2^-14 by 2^-25. What is kept is the rounded vector: scores are exact for that one, and it is what comes back.
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
"""Of a coordinate that has all its digits."""


class Precision(StrEnum):
    """How the exact vectors and the index vectors of a collection are kept."""

    SINGLE = "single"
    HALF = "half"

    @property
    def dtype(self) -> np.dtype[np.float16] | np.dtype[np.float32]:
        """Of a coordinate, little-endian."""
        return np.dtype("<f2") if self is Precision.HALF else np.dtype("<f4")

    @property
    def record_format(self) -> int:
        """First byte of a record's header, which both of its envelopes authenticate."""
        return 2 if self is Precision.HALF else 1

    def kept(self, vectors: npt.NDArray[np.float32]) -> Kept:
        """Round (n, d) vectors to what is kept of them; the same again where they are rounded already."""
        return vectors.astype(np.float16) if self is Precision.HALF else vectors

    def check(self, vectors: npt.NDArray[np.float32], lengths: npt.NDArray[np.float64], *, direction: bool) -> None:
        """Refuse vectors that rounding would spoil.

        Args:
            vectors: (n, d).
            lengths: (n,) their Euclidean lengths.
            direction: whether only their direction counts, as under cosine: it is spoilt where coordinates are so
                small that they lose digits.

        Raises:
            NormError: a coordinate is too large, or the vector too short.
        """
        if self is Precision.SINGLE or not len(vectors):
            return
        if lengths.max() > _LARGEST:  # else no coordinate is larger either
            largest = np.abs(vectors).max(axis=1)
            row = int(largest.argmax())
            if largest[row] > _LARGEST:
                raise NormError(f"vectors[{row}] holds {largest[row]:.6g}: precision half keeps up to {_LARGEST:g}")
        least = _LEAST * vectors.shape[1] ** 0.5
        if direction and lengths.min() < least:
            row = int(lengths.argmin())
            raise NormError(
                f"vectors[{row}] has norm {lengths[row]:.3g}: below {least:.3g}, precision half would change its"
                " direction. Scale the vectors, or create the collection with precision single"
            )


FORMATS = {item.record_format: item for item in Precision}
"""By the first byte of a header."""


def precision(name: str | None) -> Precision:
    """Look a precision up by name; None is single. Raises InputError."""
    try:
        return Precision.SINGLE if name is None else Precision(name)
    except ValueError:
        raise InputError(f"precision must be one of {', '.join(Precision)}, got {name!r}") from None
