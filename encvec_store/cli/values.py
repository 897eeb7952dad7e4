"""Filters and vectors from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import FilterError, InputError, ShapeError
from ..transfer.typed import metadata_from_json

__all__ = ["parse_where", "queries_from", "read_queries", "vector_of"]


def parse_where(text: str | None) -> dict[str, Any] | None:
    """Parse `--where`. Raises FilterError."""
    if text is None:
        return None
    try:
        where = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FilterError(f"--where is not JSON: {error}") from None
    if not isinstance(where, dict):
        raise FilterError(f'--where must be a JSON object, such as \'{{"lang": "de"}}\', got {text[:60]!r}')
    return metadata_from_json(where)


def vector_of(value: Any, what: str) -> npt.NDArray[Any]:
    """Return a JSON list as a (dim,) array. Raises ShapeError."""
    if not isinstance(value, list) or not value:
        raise ShapeError(f"{what} is not a list of numbers")
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        array = np.empty(0, object)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise ShapeError(f"{what} is not a list of numbers")
    return array


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
