"""The identity of a row: the text of its primary key, which the row's ciphertext is bound to.

Python makes this text when a row is written, and the server when it is read. For each key column it is the length and
the value: `2:17`, or `1:7,3:abc` for two columns. So a key may only have types whose text is proven to be the same on
both sides: integers, strings without padding, and UUIDs that the server keeps as `uuid`. Others are refused.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Table, Text, Uuid, cast, func, literal_column, types
from sqlalchemy.dialects.postgresql.types import PGUuid
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from ...errors import InputError
from ..cipher import identity_text
from .errors import unwrapped

__all__ = ["check_key", "identity_expression", "identity_of", "namer"]

_INTEGERS = {types.Integer, types.INTEGER, types.SmallInteger, types.SMALLINT, types.BigInteger, types.BIGINT}
_STRINGS = {types.String, types.VARCHAR, types.Text, types.TEXT, types.Unicode, types.UnicodeText}
_UUIDS = {types.Uuid, types.UUID, PGUuid}


def _proven(kind: TypeEngine[Any]) -> TypeEngine[Any] | None:
    """Return the type that PostgreSQL sees, or None if its text may differ from Python's."""
    kind = kind._variant_mapping.get("postgresql", kind)
    while isinstance(kind, TypeDecorator) and _passes_values(type(kind)):
        kind = kind.impl_instance
    if type(kind) in _UUIDS:
        return kind if kind.native_uuid else None  # type: ignore[attr-defined]
    return kind if type(kind) in _INTEGERS | _STRINGS else None


def _passes_values(kind: type[TypeDecorator[Any]]) -> bool:
    """Return True if a decorator leaves the values that are written as they are."""
    names = ("process_bind_param", "bind_processor", "bind_expression", "column_expression")
    return all(getattr(kind, name) is getattr(TypeDecorator, name) for name in names)


def check_key(table: Table, *, complete: bool = True) -> None:
    """Refuse a primary key that cannot be bound. Raises InputError.

    Args:
        table: of the key.
        complete: False while the table is made: the type of a foreign key may not be known yet.
    """
    for key in table.primary_key.columns:
        if _proven(key.type) is None and (complete or not isinstance(key.type, NullType)):
            raise unwrapped(
                InputError(
                    f"{table.fullname}.{key.name}: the primary key of a table with encrypted vectors must be made of"
                    " Integer, String, Text or Uuid columns, whose text Python and PostgreSQL write alike;"
                    f" got {key.type!r}"
                )
            )


def _text(column: Column[Any], kind: TypeEngine[Any] | None, value: Any) -> str | None:
    """Return the text of a key column's value; None if it is unknown, or PostgreSQL may read it in another way."""
    try:
        if isinstance(kind, Uuid):
            return str(value if isinstance(value, UUID) else UUID(value))
        if type(kind) in _INTEGERS:
            return str(operator.index(value))
    except (ValueError, AttributeError, TypeError):
        return None
    if type(value) is not str:
        return None
    limit = getattr(kind, "length", None)
    if limit is not None and len(value) > limit:  # the server would cut blanks at the end
        raise InputError(f"{column.name}: a key must have at most {limit} characters, got {len(value)}")
    return value


def namer(table: Table) -> Callable[[Callable[[Column[Any]], Any]], str | None]:
    """Return `identity_of` for many rows of a table, whose key is checked once. Raises InputError."""
    check_key(table)
    keys = [(column, _proven(column.type)) for column in table.primary_key.columns]

    def identity(value: Callable[[Column[Any]], Any]) -> str | None:
        parts = []
        for column, kind in keys:
            text = _text(column, kind, value(column))
            if text is None:
                return None
            parts.append(text)
        return identity_text(parts) or None

    return identity


def identity_of(table: Table, value: Callable[[Column[Any]], Any]) -> str | None:
    """Return the identity of a row. Raises InputError.

    Args:
        table: of the row.
        value: gives the row's value of a key column, or None.

    Returns:
        None if a part of the key is not known yet, or there is no key.
    """
    return namer(table)(value)


def identity_expression(table: Table, keys: Sequence[Any]) -> ColumnElement[Any] | None:
    """Return the identity as SQL over the expressions of the key columns; None for a table without a key."""
    check_key(table)
    pieces: list[Any] = []
    for key in keys:
        text = cast(key, Text)
        pieces += [literal_column("','")] if pieces else []
        pieces += [func.length(text), literal_column("':'"), text]
    return func.concat(*pieces, type_=Text()) if pieces else None
