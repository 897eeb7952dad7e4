"""Haystack's filters, as `where` of a collection."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from haystack.errors import FilterError

__all__ = ["field_of", "where_of"]

Where = dict[str, Any]
_ORDER = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_PREFIX = "meta."
_ATTRIBUTES = ("id", "content", "blob", "score", "embedding", "sparse_embedding", "meta")


def where_of(filters: Any) -> Where | None:
    """Translate filters; None and {} mean none. Raises FilterError."""
    if filters is None or filters == {}:
        return None
    return _node(filters)


def field_of(name: str) -> str:
    """Return the key of metadata that a field names, with or without `meta.`."""
    return name.removeprefix(_PREFIX)


def _node(filters: Any) -> Where:
    if not isinstance(filters, Mapping):
        raise FilterError(f"a filter must be a dictionary, got {type(filters).__name__}")
    if "operator" not in filters:
        raise FilterError("a filter must have the key 'operator'")
    if "field" in filters:
        return _comparison(filters)
    if "conditions" not in filters:
        raise FilterError("a filter must have the key 'field', or 'conditions' for AND, OR and NOT")
    conditions = filters["conditions"]
    if not isinstance(conditions, list) or not conditions:
        raise FilterError("'conditions' must be a list of filters that is not empty")
    parts = [_node(condition) for condition in conditions]
    match filters["operator"]:
        case "AND":
            return {"and": parts}
        case "OR":
            return {"or": parts}
        case "NOT":
            return {"not": {"and": parts}}
    raise FilterError(f"the operator of 'conditions' must be AND, OR or NOT, got {filters['operator']!r}")


def _comparison(filters: Mapping[str, Any]) -> Where:
    if "value" not in filters:
        raise FilterError("a comparison must have the key 'value'")
    name, operator, value = filters["field"], filters["operator"], filters["value"]
    if not isinstance(name, str) or name in _ATTRIBUTES:
        raise FilterError(f"'field' must be a field of the metadata, such as 'meta.year', got {name!r}")
    make: Callable[[str, Any], Where] | None = _COMPARISONS.get(operator)
    if operator in _ORDER:
        return _ordered(field_of(name), operator, value)
    if make is None:
        known = ", ".join([*_COMPARISONS, *_ORDER])
        raise FilterError(f"field {name!r}: the operator must be one of {known}, got {operator!r}")
    return make(field_of(name), value)


def _equal(name: str, value: Any) -> Where:
    return _missing(name) if value is None else {name: {"eq": value}}


def _in(name: str, value: Any) -> Where:
    if not isinstance(value, list):
        raise FilterError(f"field {name!r}: 'in' and 'not in' need a list, got {type(value).__name__}")
    some = {name: {"in": [item for item in value if item is not None]}}
    return {"or": [some, _missing(name)]} if None in value else some


_COMPARISONS: dict[str, Callable[[str, Any], Where]] = {
    "==": _equal,
    "!=": lambda name, value: {"not": _equal(name, value)},
    "in": _in,
    "not in": lambda name, value: {"not": _in(name, value)},
}


def _ordered(name: str, operator: str, value: Any) -> Where:
    if value is None:
        return {name: {"in": []}}  # nothing
    if isinstance(value, dt.date):
        value = value.isoformat()  # which stands for dates, times and text
    elif isinstance(value, str):
        try:
            dt.datetime.fromisoformat(value)
        except ValueError:
            raise FilterError(f"field {name!r}: {operator} compares numbers and ISO dates, not other text") from None
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise FilterError(f"field {name!r}: {operator} compares numbers and ISO dates, got {type(value).__name__}")
    return {name: {_ORDER[operator]: value}}


def _missing(name: str) -> Where:
    """Where there is no value: to Haystack, None is none."""
    return {"or": [{name: {"exists": False}}, {name: None}]}
