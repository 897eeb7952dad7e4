"""LlamaIndex's filters, as `where` of a collection."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from ...errors import FilterError

__all__ = ["where_of"]

_ORDER = {
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
}


def where_of(filters: MetadataFilters | None) -> dict[str, Any] | None:
    """Translate filters; None if there are none."""
    if filters is None or not filters.filters:
        return None
    parts = [part for each in filters.filters if (part := _part(each)) is not None]
    if not parts:
        return None
    match filters.condition:
        case FilterCondition.OR:
            return {"or": parts}
        case FilterCondition.NOT:  # none of them
            return {"not": {"or": parts}}
    return {"and": parts}


def _part(given: MetadataFilter | MetadataFilters) -> dict[str, Any] | None:
    return where_of(given) if isinstance(given, MetadataFilters) else _condition(given.key, given.operator, given.value)


def _condition(key: str, operator: FilterOperator, value: Any) -> dict[str, Any]:
    match operator:
        case FilterOperator.EQ:
            return _never(key) if value is None else {key: {"eq": value}}
        case FilterOperator.NE:
            return {"or": [_missing(key), {key: {"ne": value}}]}
        case FilterOperator.GT | FilterOperator.GTE | FilterOperator.LT | FilterOperator.LTE:
            return {key: {_ORDER[operator]: value}}
        case FilterOperator.IN:
            return {"and": [{key: {"in": value}}, {key: {"ne": None}}]}
        case FilterOperator.NIN:
            return {"or": [_missing(key), {key: {"nin": value}}]}
        case FilterOperator.CONTAINS:
            return {key: {"contains": value}}
        case FilterOperator.ANY:
            return {"or": [{key: {"contains": each}} for each in _list(key, operator, value)] or [_never(key)]}
        case FilterOperator.ALL:
            held = [{key: {"contains": each}} for each in _list(key, operator, value)]
            return {"and": [{"not": _missing(key)}, *held]}
        case FilterOperator.TEXT_MATCH:
            return {key: {"like": _within(key, value)}}
        case FilterOperator.TEXT_MATCH_INSENSITIVE:
            return {key: {"ilike": _within(key, value)}}
        case FilterOperator.IS_EMPTY:
            return {"or": [_missing(key), {key: ""}, {key: {"eq": []}}]}
    raise FilterError(f"field {key!r}: unknown operator {operator!r}")


def _missing(key: str) -> dict[str, Any]:
    """Where there is no value: to LlamaIndex, None is none."""
    return {"or": [{key: {"exists": False}}, {key: None}]}


def _never(key: str) -> dict[str, Any]:
    return {key: {"in": []}}


def _list(key: str, operator: FilterOperator, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise FilterError(f"field {key!r}: {operator.value} must be a list, got {type(value).__name__}")
    return value


def _within(key: str, value: Any) -> str:
    """Return the pattern of texts that have a text within."""
    if not isinstance(value, str):
        raise FilterError(f"field {key!r}: a text to match must be a string, got {type(value).__name__}")
    escaped = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
