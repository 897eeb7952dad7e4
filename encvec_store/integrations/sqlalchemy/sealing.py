"""Encrypts the vectors of sealed columns in a statement, just before it runs.

A vector is bound to its primary key. So the defaults of the key that Python makes are made here, if the row lacks them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from sqlalchemy import Column, Connection, Insert, Table, Update, bindparam, inspect
from sqlalchemy.dialects.postgresql.dml import OnConflictDoUpdate
from sqlalchemy.sql.elements import BindParameter, Cast, ClauseElement, Null, TypeCoerce

from ...errors import EncvecError, ShapeError
from ..cipher import plain_array
from .errors import unwrapped
from .identity import namer
from .types import EncryptedVector
from .values import Cell, PlainVector, Unsealed

__all__ = ["NeedsStatementError", "given_by_key", "made_by", "resealed", "sealed_insert", "stacked"]

_BATCH = 4096


def given_by_key(statement: Insert | Update, values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the values of a statement by the keys of their columns; a mapped class may name them by attribute."""
    return {_key_of(statement, name): value for name, value in values.items()}


def _key_of(statement: Insert | Update, name: Any) -> str:
    if not isinstance(name, str):
        return str(name.key)
    subject = statement._propagate_attrs.get("plugin_subject")
    if subject is not None:
        for prop in inspect(subject).mapper.column_attrs:
            if prop.key == name:
                return str(prop.columns[0].key)
    return name


# -- INSERT


def sealed_insert(
    statement: Insert, columns: list[Column[Any]], rows: list[dict[str, Any]], connection: Connection
) -> Insert:
    """Return an INSERT whose vectors are sealed, also those in its parameters `rows`, which are changed.

    Raises:
        InputError: a value that is no vector, or a primary key that must be known.
    """
    completed: Insert = statement._generate()
    table: Table = statement.table  # type: ignore[assignment]
    fixed = given_by_key(statement, statement._values or {})
    try:
        if statement._multi_values:
            parts = [[_by_name(statement, row) for row in part] for part in statement._multi_values]
            flat = [row for part in parts for row in part]
            _seal_rows(table, columns, flat, [dict(row) for row in flat], connection)
            keyed = [[{table.c[key]: value for key, value in row.items()} for row in part] for part in parts]
            completed._multi_values = tuple(keyed)  # type: ignore[arg-type]
            return completed
        whole = [{**fixed, **row} for row in rows] or [dict(fixed)]
        known = [{name: _valued(value, row) for name, value in full.items()} for full, row in _beside(whole, rows)]
        made = [dict[str, Any]() for _ in whole]
        _seal_rows(table, columns, made, known, connection)
    except EncvecError as error:
        failed: EncvecError = error
    else:
        _placed(completed, fixed, rows, made)
        return completed
    raise unwrapped(failed)


def _beside(whole: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Any:
    return zip(whole, rows or [{}], strict=True)


def _by_name(statement: Insert, row: Any) -> dict[str, Any]:
    if isinstance(row, Mapping):
        return given_by_key(statement, row)
    return {column.key: value for column, value in zip(statement.table.c, row, strict=False)}


def _valued(value: Any, row: Mapping[str, Any]) -> Any:
    """Return the value that a statement gives; SQL as it is."""
    while isinstance(value, Cast | TypeCoerce):
        value = value.clause
    if isinstance(value, Null):
        return None
    if isinstance(value, BindParameter):
        return row.get(value.key, value.effective_value)
    return value


def _placed(statement: Insert, fixed: dict[str, Any], rows: list[dict[str, Any]], made: list[dict[str, Any]]) -> None:
    """Put what was made in the place of what was given: in the parameters, or in the statement itself."""
    if not rows:
        values, new = dict(statement._values or {}), dict(made[0])
        for name in list(values):
            key = _key_of(statement, name)
            if key in new:
                values[name] = _bound(statement, key, new.pop(key))
        values.update({statement.table.c[key]: _bound(statement, key, value) for key, value in new.items()})
        if values:
            statement._values = _immutable(values)
        return
    named = {key: value.key for key, value in fixed.items() if isinstance(value, BindParameter)}
    for row, new in zip(rows, made, strict=True):
        for key, value in new.items():
            row[named[key] if key in named and named[key] in row else key] = value


def _immutable(values: dict[Any, Any]) -> Any:
    from sqlalchemy.util import immutabledict

    return immutabledict(values)


def _bound(statement: Insert, key: str, value: Any) -> BindParameter[Any]:
    return bindparam(None, value, type_=statement.table.c[key].type, unique=True)


def _seal_rows(
    table: Table,
    columns: list[Column[Any]],
    into: list[dict[str, Any]],
    known: list[dict[str, Any]],
    connection: Connection,
) -> None:
    """Seal the vectors of n rows.

    Args:
        table: of the rows.
        columns: its sealed columns.
        into: gets the cells, and the primary keys that Python makes.
        known: the values of each row.
        connection: to read the incarnation with.
    """
    name = namer(table)
    for row, values in zip(into, known, strict=True):
        for key in table.primary_key.columns:
            if values.get(key.key) is None:
                made = _default_of(key, values)
                if made is not None:
                    row[key.key] = values[key.key] = made
    identities = [name(partial(_plain_value, values)) for values in known]
    for column in columns:
        kind: EncryptedVector = column.type  # type: ignore[assignment]
        places, vectors = [], []
        for i, values in enumerate(known):
            value = _valued(values.get(column.key), {})
            if isinstance(value, Unsealed):
                into[i][column.key] = unsealed(kind, value, connection)
            elif isinstance(value, PlainVector) and value.sealed is not None and column.key not in into[i]:
                into[i][column.key] = value.sealed
            elif value is not None and not isinstance(value, Cell | ClauseElement):
                places.append(i)
                vectors.append(value)
        for start in range(0, len(places), _BATCH):
            some = places[start : start + _BATCH]
            checked = stacked(kind, column, vectors[start : start + _BATCH])
            cells = kind.sealed_many(checked, [identities[i] for i in some], connection)
            for i, cell in zip(some, cells, strict=True):
                into[i][column.key] = Cell(cell.tobytes())


def _plain_value(values: Mapping[str, Any], key: Column[Any]) -> Any:
    value = _valued(values.get(key.key), {})
    return None if isinstance(value, ClauseElement) else value


def stacked(kind: EncryptedVector, column: Column[Any], vectors: list[Any]) -> Any:
    """Return n vectors as (n, dim) float32, checked for their column. Raises InputError."""
    arrays = [plain_array(vector, column.key) for vector in vectors]
    wrong = next((array.shape for array in arrays if array.shape != (kind.dim,)), None)
    if wrong is not None:
        raise ShapeError(f"{column.key}: expected shape ({kind.dim},), got {wrong}")
    return kind.cipher.checked(np.stack(arrays), column.key)


# -- defaults of the primary key


class _Row:
    """What a default may ask of its row: the other values."""

    def __init__(self, values: Mapping[str, Any] | None) -> None:
        self._values = values

    @property
    def current_parameters(self) -> Mapping[str, Any]:
        """The values of the row."""
        return self.get_current_parameters()

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> Mapping[str, Any]:
        """Return the values of the row."""
        if self._values is None:
            raise NeedsStatementError
        return self._values

    def __getattr__(self, name: str) -> Any:
        raise NeedsStatementError


class NeedsStatementError(Exception):
    """A default asks for more than the values of its row."""


def made_by(default: Any, values: Mapping[str, Any] | None) -> Any:
    """Return what a callable or scalar default makes for a row. Raises NeedsStatementError."""
    return default.arg(_Row(values)) if default.is_callable else default.arg


def _default_of(column: Column[Any], values: Mapping[str, Any]) -> Any:
    """Return a default that Python makes; None if there is none, or if it needs the statement or the server."""
    default: Any = column.default
    if default is None or not (default.is_callable or default.is_scalar):
        return None
    try:
        return made_by(default, values)
    except NeedsStatementError:
        return None


# -- what `ciphertexts` gives


def unsealed(kind: EncryptedVector, value: Unsealed, connection: Connection) -> Cell:
    """Seal what `ciphertexts` gave."""
    return kind.sealed(Unsealed.taken(value), value.identity, connection)


def resealed(statement: Insert | Update, columns: list[Column[Any]], connection: Connection) -> Insert | Update:
    """Return a statement in which the values of `ciphertexts` are sealed. Raises InputError."""
    kinds: dict[str, EncryptedVector] = {column.key: column.type for column in columns}  # type: ignore[misc]

    def all_of(values: Mapping[Any, Any], key_of: Callable[[Any], str]) -> dict[Any, Any]:
        return {name: _resealed(kinds.get(key_of(name)), value, connection) for name, value in values.items()}

    def key_of(name: Any) -> str:
        return _key_of(statement, name)

    changed: Any = statement._generate()
    if statement._values:
        changed._values = _immutable(all_of(statement._values, key_of))
    clause = statement._post_values_clause if isinstance(statement, Insert) else None
    if isinstance(clause, OnConflictDoUpdate):
        conflict: OnConflictDoUpdate = clause._clone()
        conflict.update_values_to_set = all_of(clause.update_values_to_set, key_of)
        changed._post_values_clause = conflict
    return changed  # type: ignore[no-any-return]


def _resealed(kind: EncryptedVector | None, value: Any, connection: Connection) -> Any:
    inner = value
    while isinstance(inner, Cast | TypeCoerce):
        inner = inner.clause
    held = inner.value if isinstance(inner, BindParameter) else inner
    if kind is None or not isinstance(held, Unsealed):
        return value
    try:
        cell = unsealed(kind, held, connection)
    except EncvecError as error:
        failed: EncvecError = error
    else:
        bound = bindparam(None, cell, type_=kind, unique=True)
        return Cast(bound, value.type) if isinstance(value, Cast) else bound
    raise unwrapped(failed)
