"""Keys of JSON columns as metadata of their own, so that filters reach them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import InputError
from .typed import metadata_from_json, to_json

__all__ = ["flattened"]


def flattened(fields: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return fields with the keys of the objects `names` in place of these.

    An object is a mapping, or text that holds JSON. Null gives no keys. Only the first level is taken apart: an object
    within an object stays one value. Two equal values under one key are kept once.

    Raises:
        InputError: a value is no object, or two different values want one key.
    """
    if not names:
        return dict(fields)
    found = {name: value for name, value in fields.items() if name not in names}
    origin = dict.fromkeys(found, "a column of its own")
    for name in names:
        for key, value in _object(fields.get(name), name).items():
            if key in found and not _equal(found[key], value):
                both = f"{key!r} stands both in {name!r} and in {origin[key]}"
                raise InputError(f"{both}, with different values: leave one of them out")
            found.setdefault(key, value)
            origin.setdefault(key, repr(name))
    return found


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if isinstance(value, str):
        with contextlib.suppress(ValueError, AttributeError, RecursionError):
            value = metadata_from_json(json.loads(value))
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"column {name!r} must hold JSON objects, got {type(value).__name__}")
    return value


def _equal(one: Any, other: Any) -> bool:
    """Compare as stored metadata is compared: 1, 1.0 and True are three values."""
    return json.dumps(to_json(one), sort_keys=True) == json.dumps(to_json(other), sort_keys=True)
