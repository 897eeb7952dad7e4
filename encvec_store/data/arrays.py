"""Array types that rooms share. The docstring of each function gives the shapes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Bytes", "Kept", "Matrix", "Rows"]

Matrix = npt.NDArray[np.float32]
"""Vectors, points or index vectors, one a row."""
Kept = npt.NDArray[np.float16] | npt.NDArray[np.float32]
"""Vectors as a collection keeps them, in half or single precision."""
Bytes = npt.NDArray[np.uint8]
"""Byte strings of one length, one a row: tokens, headers, envelopes."""
Rows = npt.NDArray[np.int64]
"""Row numbers of a store."""
