"""Finds the table columns that a caller names by a mapped class, attribute or column."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Table, inspect

from ...errors import InputError
from .ranked import RankedVector
from .types import EncryptedVector

__all__ = ["column_of", "encrypted_columns", "ranked_kind", "sealed_kind", "table_of"]


def column_of(given: Any) -> Column[Any]:
    """Return the encrypted table column of a mapped attribute or column. Raises InputError."""
    found = given.__clause_element__() if hasattr(given, "__clause_element__") else given
    for column in getattr(found, "base_columns", ()):
        if isinstance(column, Column) and isinstance(column.type, EncryptedVector):
            return column
    raise InputError(f"expected an encrypted column, got {given!r}")


def table_of(model: Any) -> tuple[Table, dict[str, Column[Any]]]:
    """Return the table of a mapped class of one table, or of a Table, and its columns by attribute name."""
    if isinstance(model, Table):
        return model, {column.key: column for column in model.c}
    mapper = inspect(model)
    if len(mapper.tables) != 1:
        raise InputError(f"{mapper.class_.__name__} is mapped to {len(mapper.tables)} tables: give one of the tables")
    attributes = {prop.key: prop.columns[0] for prop in mapper.column_attrs}
    return mapper.local_table, {key: column for key, column in attributes.items() if isinstance(column, Column)}


def sealed_kind(column: Column[Any]) -> EncryptedVector:
    """Return the type of a sealed column. Raises InputError for a pair."""
    kind: EncryptedVector = column.type  # type: ignore[assignment]
    if kind.paired:
        raise InputError(
            f"{column} must be a sealed column, and the scheme {kind.scheme.name!r} is ranked by the server"
        )
    return kind


def ranked_kind(column: Column[Any], instead: str) -> RankedVector:
    """Return the type of a pair. Raises InputError for a sealed column."""
    if not isinstance(column.type, RankedVector):
        raise InputError(f"{column} is sealed, and the server cannot rank it: {instead}")
    return column.type


def encrypted_columns(table: Table) -> list[Column[Any]]:
    """Return the encrypted columns of a table."""
    return [column for column in table.c if isinstance(column.type, EncryptedVector)]
