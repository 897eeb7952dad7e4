"""Typed values to JSON and back: what files, and columns of JSON, hold of a record.

Types that JSON lacks carry a tag, the same as in a stored record: {"$date": "2024-05-01"}; $datetime, $bytes
(base64), $uuid, $decimal, $tuple, $int (hexadecimal, where huge), $float for nan and inf. A key that begins with
"$" gets a second one. So what `get --json` prints, `ingest` reads back with the types it had.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ..data.ids import Id
from ..data.records import Hit, Record
from ..errors import InputError

__all__ = ["from_json", "id_to_json", "metadata_from_json", "record_to_json", "to_json"]

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
                raise InputError(f"the value tagged {key} is none of that type") from None
    return metadata_from_json(value)


def metadata_from_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a record; its own keys are names, never tags."""
    return {key[1:] if key.startswith("$$") else key: from_json(item) for key, item in value.items()}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def id_to_json(id: Id) -> Any:
    """Return an id as JSON: text as it is, an integer or a UUID with its tag, as a bare number is read as text."""
    if isinstance(id, str):
        return id
    return {"$uuid": str(id)} if isinstance(id, uuid.UUID) else {"$int": f"{id:x}"}


def record_to_json(record: Record | Hit, *, vectors: bool) -> dict[str, Any]:
    """Return a record as `ingest` reads it, or a hit with its score beside."""
    document: dict[str, Any] = {"id": id_to_json(record.id)}
    if isinstance(record, Hit):
        document["score"] = record.score
    document |= {"metadata": to_json(record.metadata), "document": record.document}
    if vectors and record.vector is not None:
        # the shortest decimals that give the same float32: half the digits of its double
        document["vector"] = [float(str(x)) for x in record.vector]
    return document
