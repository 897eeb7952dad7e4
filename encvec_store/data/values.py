"""Python's own types for what callers give: scalars without numpy or pandas types, and ordered lists.

A subclass of a built-in type becomes that type if this loses nothing. `pandas.NaT` and a `pandas.Timestamp` with
nanoseconds are datetimes to `isinstance`, but no datetime holds them, so they are refused.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Set
from decimal import Decimal
from typing import Any

import numpy as np

from ..errors import InputError, MetadataError

__all__ = ["Texts", "check_limit", "check_offset", "exact", "integer", "listed", "number", "text"]

_EXACT = frozenset(
    {str, int, float, bool, type(None), bytes, dt.datetime, dt.date, uuid.UUID, Decimal, list, tuple, dict}
)
_SCALARS = np.bool_ | np.integer | np.floating | np.str_ | np.bytes_
Texts = str | bytes | bytearray | memoryview
"""Sequences that are one value, not a list of values."""


def exact(value: Any) -> Any:
    """Return a value as the built-in type that it belongs to; a value of another type is returned as it is.

    Raises:
        MetadataError: it belongs to a built-in type that cannot hold it.
    """
    if type(value) in _EXACT:
        return value
    if isinstance(value, _SCALARS):
        return value.item()
    try:
        plain = _plain(value)
        if plain is value or plain == value or (isinstance(plain, float | Decimal) and plain != plain):
            return plain
    except (TypeError, ValueError, ArithmeticError):
        pass
    kind = type(value).__name__
    if getattr(value, "nanosecond", 0) > 0:
        raise MetadataError(
            f"{kind} has nanoseconds, and a datetime holds microseconds: round it, or give an int or a string"
        )
    raise MetadataError(f"{kind} cannot be kept as a built-in type: use None for a missing value")


def _plain(value: Any) -> Any:
    """Convert an instance of a subclass, by the methods of the base class."""
    match value:
        case str():
            return str.__str__(value)
        case int():
            return int.__pos__(value)
        case float():
            return float.__pos__(value)
        case bytes():
            return bytes(memoryview(value))
        case dt.datetime():
            date = (value.year, value.month, value.day)
            time = (value.hour, value.minute, value.second, value.microsecond)
            return dt.datetime(*date, *time, value.tzinfo, fold=value.fold)
        case dt.date():
            return dt.date(value.year, value.month, value.day)
        case uuid.UUID():
            return uuid.UUID(int=value.int)
        case Decimal():
            return Decimal(value)
    return value


def integer(value: Any) -> int | None:
    """Return an int, or an integer of numpy, as an int; None for anything else, and for booleans."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return None
    return int(value)


def check_limit(value: Any, name: str = "limit", least: int = 1) -> int:
    """Return an integer of at least 1, or another least one. Raises InputError."""
    found = integer(value)
    if found is None or found < least:
        raise InputError(f"{name} must be an integer >= {least}, got {value!r}")
    return found


def check_offset(value: Any) -> int:
    """Return an integer of at least 0. Raises InputError."""
    return check_limit(value, "offset", 0)


def number(value: Any) -> float | None:
    """Return an int or a float, also of numpy, as a float; None for anything else, and for booleans."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def text(value: Any) -> str | None:
    """Return a string, also of a subclass, as a str; None for anything else."""
    return str.__str__(value) if isinstance(value, str) else None


def _is_column(values: Any) -> bool:
    return callable(getattr(values, "to_pylist", None)) and not hasattr(values, "column_names")


def listed(values: Any) -> list[Any] | None:
    """Return the items of an ordered sequence: a list, a tuple, a one-dimensional array, a pandas Series or Index.

    Or of an array of pyarrow. None for what is not one: strings, sets, mappings, iterators, tables, arrays with masked
    items.
    """
    if type(values) is list:
        return list(values)
    if isinstance(values, Texts | Mapping | Set):
        return None
    if _is_column(values):
        return list(values.to_pylist())
    if not all(hasattr(type(values), name) for name in ("__len__", "__getitem__", "__iter__")):
        return None
    if getattr(values, "ndim", 1) != 1 or (isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values)):
        return None
    return list(values)
