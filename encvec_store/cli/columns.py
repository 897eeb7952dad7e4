"""Which columns of a file hold what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..transfer.flatten import flattened

__all__ = ["Columns", "listed", "no_column", "taken_out", "text_id"]


@dataclass
class Columns:
    """Which columns hold what. None: the usual name, and for `id` none is needed."""

    id: str | None = None
    vector: str | None = None
    document: str | None = None
    prefix: str | None = None
    """Of the ids of rows that bring none: `prefix:row`."""
    vectors: bool = True
    """False for a file of metadata, which has no vectors."""
    only: Sequence[str] | None = None
    """The columns to take as metadata; None for all others."""
    exclude: Sequence[str] = ()
    flatten: Sequence[str] = ()
    """Columns of JSON objects, whose keys become metadata of their own."""

    def takes(self, name: str) -> bool:
        """Return whether a column that holds nothing else is taken as metadata."""
        return (self.only is None or name in self.only) and name not in self.exclude

    def check(self, file: str, names: Sequence[str]) -> None:
        """Raise InputError for a column that was named and is not there."""
        for option, given in (("columns", self.only or ()), ("exclude", self.exclude), ("flatten", self.flatten)):
            for name in given:
                if name not in names:
                    raise InputError(f"{file} has no column {name!r} for --{option}; it has: {', '.join(names)}")
        for name in self.flatten:
            if not self.takes(name):
                raise InputError(f"--flatten {name}: this column is left out")

    def fields(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata of a row: what is taken of it, flattened. Raises InputError."""
        return flattened({name: value for name, value in found.items() if self.takes(name)}, self.flatten)


def no_column(file: str, name: str, names: Sequence[str], what: str, kind: str = "column") -> InputError:
    """Return the error for a column that was named by `--{what}-column`, or is needed, and is not among `names`."""
    there = ", ".join(names) or "none"
    return InputError(f"{file} has no {kind} {name!r}; it has: {there}. Name it with --{what}-column")


def listed(text: str | None) -> list[str] | None:
    """Return the names in `A,B,C`."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def taken_out(item: dict[str, Any], name: str) -> Any:
    """Remove a value by its key, or by keys with dots between for one in nested objects. Raises KeyError."""
    if name in item:
        return item.pop(name)
    first, dot, rest = name.partition(".")
    inner = item[first]
    if not dot or not isinstance(inner, dict):
        raise KeyError(name)
    found = taken_out(inner, rest)
    if not inner:
        del item[first]
    return found


def text_id(value: Any, column: str) -> str:
    """Return an id as text; whole numbers are taken too. Raises InputError."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"id {column!r} must be a string or an integer, got {type(value).__name__}")
