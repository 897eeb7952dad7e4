"""Typed values to JSON and back, filters and vectors from the command line; imports numpy, errors.

Types that JSON lacks carry a tag, the same as in a stored record: {"$date": "2024-05-01"}; $datetime, $bytes
(base64), $uuid, $decimal, $tuple, $int (hexadecimal, where huge), $float for nan and inf. A key that begins with
"$" gets a second one. So what `get --json` prints, `ingest` reads back with the types it had.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import uuid
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import FilterError, InputError, ShapeError
from ..records import Hit, Record

__all__ = [
    "from_json",
    "metadata_from_json",
    "parse_where",
    "queries_from",
    "read_queries",
    "record_to_json",
    "to_json",
    "vector_of",
]


_HUGE = 1 << 1024  # longer integers are not read back from decimal


def to_json(value: Any) -> Any:
    """Return a metadata value as JSON values, with tags."""
    match value:
        case float() if not math.isfinite(value):
            return {"$float": repr(value)}
        case int() if abs(value) > _HUGE:
            return {"$int": f"{value:x}"}
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {"$" + key if key.startswith("$") else key: to_json(item) for key, item in value.items()}
        case list():
            return [to_json(item) for item in value]
        case tuple():
            return {"$tuple": [to_json(item) for item in value]}
        case dt.datetime():
            return {"$datetime": value.isoformat()}
        case dt.date():
            return {"$date": value.isoformat()}
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case uuid.UUID():
            return {"$uuid": str(value)}
        case Decimal():
            return {"$decimal": str(value)}
    raise InputError(f"{type(value).__name__} has no form in JSON")


_DECODERS: dict[str, Any] = {
    "$datetime": dt.datetime.fromisoformat,
    "$date": dt.date.fromisoformat,
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$uuid": uuid.UUID,
    "$decimal": Decimal,
    "$int": lambda digits: int(digits, 16),
    "$float": float,
    "$tuple": lambda items: tuple(from_json(item) for item in _list(items)),
}


def from_json(value: Any) -> Any:
    """Undo `to_json`. Raises InputError for a tag with a value that it cannot have."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, item),) = value.items()
        if (decode := _DECODERS.get(key)) is not None:
            try:
                return decode(item)
            except InputError:
                raise
            except (ValueError, TypeError, AttributeError, ArithmeticError):
                raise InputError(f"{json.dumps(value)[:200]} is no value of the type {key}") from None
    return metadata_from_json(value)


def metadata_from_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a record; its own keys are names, never tags."""
    return {key[1:] if key.startswith("$$") else key: from_json(item) for key, item in value.items()}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def record_to_json(record: Record | Hit, *, vectors: bool) -> dict[str, Any]:
    """Return a record as `ingest` reads it, or a hit with its score beside."""
    document: dict[str, Any] = {"id": record.id}
    if isinstance(record, Hit):
        document["score"] = record.score
    document |= {"metadata": to_json(record.metadata), "document": record.document}
    if vectors and record.vector is not None:
        # the shortest decimals that give the same float32: half the digits of its double
        document["vector"] = [float(str(x)) for x in record.vector]
    return document


def parse_where(text: str | None) -> dict[str, Any] | None:
    """Parse `--where`. Raises FilterError."""
    if text is None:
        return None
    try:
        where = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FilterError(f"--where is not JSON: {error}") from None
    if not isinstance(where, dict):
        raise FilterError(f'--where is a JSON object, such as \'{{"lang": "de"}}\', not {text[:60]!r}')
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
