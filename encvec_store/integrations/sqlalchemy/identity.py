"""What of a row its ciphertext is bound to: the primary key, as text, here and on the server.

Text is the length and the value of every part, as in `2:17` or `1:7,3:abc`. Parts are integers, strings and UUIDs,
whose text is the same for Python and PostgreSQL; a key with a part of another kind is not bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Enum, Integer, String, Table, Text, Uuid, cast, func, literal_column
from sqlalchemy.sql.elements import ColumnElement

__all__ = ["identity_expression", "identity_of"]


def _parts(table: Table) -> list[Column[Any]]:
    """Return the columns of the primary key; none where it cannot be bound."""
    keys = list(table.primary_key.columns)
    fit = all(isinstance(key.type, Integer | String | Uuid) and not isinstance(key.type, Enum) for key in keys)
    return keys if fit else []


def _text(column: Column[Any], value: Any) -> str | None:
    if isinstance(column.type, Uuid):
        try:
            return str(value if isinstance(value, UUID) else UUID(value))
        except (ValueError, AttributeError, TypeError):
            return None
    if isinstance(column.type, Integer):
        try:
            return str(value.__index__())
        except AttributeError:
            return None
    return str(value) if isinstance(value, str) else None


def identity_of(table: Table, value: Callable[[Column[Any]], Any]) -> str | None:
    """Return the identity of a row whose value of each column is given; None where it is not known."""
    parts = []
    for column in _parts(table):
        text = _text(column, value(column))
        if text is None:
            return None
        parts.append(f"{len(text)}:{text}")
    return ",".join(parts) or None


def identity_expression(table: Table, keys: Sequence[Any]) -> ColumnElement[Any] | None:
    """Return the same as SQL over the columns that stand for the primary key; None where it is never bound."""
    if not _parts(table):
        return None
    pieces: list[Any] = []
    for key in keys:
        text = cast(key, Text)
        pieces += [literal_column("','")] if pieces else []
        pieces += [func.length(text), literal_column("':'"), text]
    return func.concat(*pieces, type_=Text())
