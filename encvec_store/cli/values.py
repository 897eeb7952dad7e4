"""Filters and vectors from the command line."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import FilterError, InputError, ShapeError
from ..transfer.typed import metadata_from_json

__all__ = ["from_bytes", "parse_where", "queries_from", "read_queries", "vector_of"]

_PLAUSIBLE = 1e15
"""No embedding has a number as large; half of a float64 read as a float32 often is."""


def parse_where(text: str | None, option: str = "--where") -> dict[str, Any] | None:
    """Parse `--where`, or another option that takes a JSON object. Raises FilterError."""
    if text is None:
        return None
    try:
        where = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FilterError(f"{option} is not JSON: {error}") from None
    if not isinstance(where, dict):
        raise FilterError(f'{option} must be a JSON object, such as \'{{"lang": "de"}}\', got {text[:60]!r}')
    return metadata_from_json(where)


def vector_of(value: Any, what: str) -> npt.NDArray[Any]:
    """Return a vector as a (dim,) array: a JSON list, text of one, or base64 of little-endian float32.

    Raises ShapeError, which does not show the value.
    """
    if isinstance(value, str):
        return _from_text(value, what)
    array = np.empty(0, object)
    if isinstance(value, list) and value:
        with contextlib.suppress(ValueError, OverflowError):
            array = np.asarray(value)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise ShapeError(f"{what} is not a list of numbers")
    return array


def _from_text(text: str, what: str) -> npt.NDArray[Any]:
    if text.lstrip().startswith("["):
        try:
            return vector_of(json.loads(text), what)
        except (ValueError, RecursionError):
            raise ShapeError(f"{what} is not a list of numbers") from None
    try:
        packed = base64.b64decode(text, validate=True)
    except ValueError:
        raise ShapeError(f"{what} is neither a list of numbers nor base64 of float32 numbers") from None
    return from_bytes(packed, what)


def from_bytes(packed: bytes, what: str) -> npt.NDArray[np.float32]:
    """Return the little-endian float32 numbers in some bytes. Raises ShapeError."""
    if not packed or len(packed) % 4:
        raise ShapeError(f"{what} is not made of float32 numbers: it has {len(packed)} bytes")
    numbers = np.frombuffer(packed, "<f4").astype(np.float32)
    if not (np.abs(numbers) < _PLAUSIBLE).all():  # what float64 and other byte orders look like
        raise ShapeError(f"{what} is not made of little-endian float32 numbers")
    return numbers


def queries_from(text: str, source: str) -> npt.NDArray[Any]:
    """Parse JSON of one query, or a list of them, into a (q, dim) array. Raises InputError, ShapeError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is not JSON: {error}") from None
    rows = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    vectors = [vector_of(row, source if len(rows) == 1 else f"{source}, query {n}") for n, row in enumerate(rows)]
    if len({len(vector) for vector in vectors}) > 1:
        raise ShapeError(f"{source}: queries of unlike length")
    return np.stack(vectors)


def read_queries(path: Path, text: str | None = None) -> npt.NDArray[Any]:
    """Read (q, dim) queries from a .npy file, else from JSON. Raises InputError."""
    if text is None and path.suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise InputError(f"{path} is no array of numbers in NumPy's format: {error}") from None
        if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
            raise ShapeError(f"{path}: expected (dim,) or (n, dim) numbers, got {array.shape} of {array.dtype}")
        return np.atleast_2d(array)
    try:
        return queries_from(path.read_text(encoding="utf-8") if text is None else text, str(path))
    except UnicodeDecodeError:
        raise InputError(f"{path} is neither .npy nor JSON text") from None
