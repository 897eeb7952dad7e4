"""What documents have in a field of their metadata: kinds, distinct values, the least and the most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["kinds", "least_and_most", "unique"]

Metas = Sequence[dict[str, Any]]


def _values(metas: Metas, name: str) -> Iterator[Any]:
    """Yield the values of a field that are not None; a name with dots reaches into nested ones."""
    for meta in metas:
        value: Any = meta
        for part in [name] if name in meta else name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            yield value


def unique(metas: Metas, name: str) -> list[Any]:
    """Return the distinct values of a field, sorted: numbers, text, others. Values of different types are different."""
    found = {(type(value).__name__, repr(value)): value for value in _values(metas, name)}
    return sorted(found.values(), key=_place)


def _place(value: Any) -> tuple[int, Any, str]:
    if isinstance(value, int | float):
        return 0, value, type(value).__name__
    return (1, value, "") if isinstance(value, str) else (2, repr(value), "")


def least_and_most(metas: Metas, name: str) -> tuple[Any, Any]:
    """Return the least and the largest of the numbers of a field, or of its texts if it has no number."""
    values = list(_values(metas, name))
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    compared: list[Any] = numbers or [value for value in values if isinstance(value, str)]
    return (min(compared), max(compared)) if compared else (None, None)


def kinds(metas: Metas) -> dict[str, dict[str, str]]:
    """Return the kind of each field's values, as Haystack's stores name them; "mixed" if there are several."""
    names = {bool: "boolean", int: "integer", float: "float", str: "keyword", list: "list", dict: "object"}
    found: dict[str, set[str]] = {}
    for meta in metas:
        for name, value in meta.items():
            if value is not None:
                found.setdefault(name, set()).add(names.get(type(value), type(value).__name__))
    return {name: {"type": kind.pop() if len(kind) == 1 else "mixed"} for name, kind in found.items()}
