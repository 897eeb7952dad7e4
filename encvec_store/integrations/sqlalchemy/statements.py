"""What every INSERT and UPDATE passes before it runs: vectors are sealed or hidden, and no half of a pair is written.

A sealed vector is written only with the key of its row: `sealing` encrypts it here. The two columns of a pair are
written together or not at all. A statement that says enough is completed; any other is refused. Statements on tables
without encrypted vectors are left alone. Plaintext vectors of pairs are put into `Hidden` in the parameters, as
SQLAlchemy's errors print parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NoReturn

from sqlalchemy import Column, Connection, Engine, Insert, LargeBinary, Table, Update, event, null, type_coerce
from sqlalchemy.dialects.postgresql.dml import OnConflictDoUpdate
from sqlalchemy.sql.elements import BindParameter, Cast, ClauseElement, Null, TypeCoerce

from ...errors import InputError
from .columns import encrypted_columns
from .errors import unwrapped
from .ranked import SUFFIX
from .sealing import given_by_key, resealed, sealed_insert
from .values import Cell, Hidden, IndexText, PlainVector, Unsealed, refuse_plaintext

__all__ = ["listen"]

_log = logging.getLogger("encvec_store")
_warned: set[str] = set()


def listen() -> None:
    """Check the statements of every engine, from now on."""
    event.listen(Engine, "before_execute", _checked, retval=True)


def _checked(connection: Connection, statement: Any, multiparams: Any, params: Any, _options: Any) -> Any:
    if not isinstance(statement, Insert | Update) or not isinstance(statement.table, Table):
        return statement, multiparams, params
    columns = encrypted_columns(statement.table)
    if not columns:
        return statement, multiparams, params
    if not connection.engine.hide_parameters and not _warned:
        _warned.add("hide_parameters")
        _log.warning(
            "the engine shows the parameters of statements in errors and logs. Encrypted vectors stay hidden, other"
            " columns do not: create_engine(..., hide_parameters=True)"
        )
    rows = [dict(row) for row in multiparams or ([params] if params else [])]
    pairs = [column for column in columns if column.type.paired]  # type: ignore[attr-defined]
    sealed = [column for column in columns if column not in pairs]
    names = _names_of_vectors(statement, columns)
    checked: Any
    if isinstance(statement, Insert):
        checked = _checked_insert(statement, columns, rows)
        checked = sealed_insert(checked, sealed, rows, connection) if sealed else checked
    else:
        checked = _checked_update(statement, columns, rows)
    checked = resealed(checked, sealed, connection) if sealed else checked
    for row in rows:
        _hide(row, names)
    return (checked, rows, {}) if len(rows) > 1 else (checked, [], rows[0] if rows else {})


def _names_of_vectors(statement: Insert | Update, columns: list[Column[Any]]) -> set[str]:
    """Return the names of parameters that may hold a vector: those of columns, and of `bindparam`s set to them."""
    given = given_by_key(statement, statement._values or {})
    binds = [given[column.key] for column in columns if isinstance(given.get(column.key), BindParameter)]
    return {column.key for column in columns} | {bind.key for bind in binds}


def _hide(row: dict[str, Any], names: set[str]) -> None:
    for name in names & row.keys():
        value = row[name]
        if isinstance(value, PlainVector) and value.sealed is not None:
            row[name] = value.sealed
        elif value is not None and not isinstance(value, IndexText | Cell | Hidden):
            row[name] = Hidden(value)


def _checked_update(statement: Update, columns: list[Column[Any]], rows: list[dict[str, Any]]) -> Update:
    given = given_by_key(statement, statement._values or {})
    missing = {}
    for column in columns:
        sealed = column.key + SUFFIX
        for row in rows:
            if _complete(column, {**given, **row}):  # never for a sealed column
                row[sealed] = None
        if (column.key in given or sealed in given) and _complete(column, given):
            missing[column.table.c[sealed]] = type_coerce(null(), LargeBinary())
    _check_moved(columns, given.keys() | (rows[0].keys() if rows else set()))
    if not missing:
        return statement
    completed: Update = statement._generate()
    completed._values = completed._values.union(missing)  # type: ignore[union-attr]
    return completed


def _checked_insert(statement: Insert, columns: list[Column[Any]], rows: list[dict[str, Any]]) -> Insert:
    names = set(statement._select_names or ())
    given = [given_by_key(statement, statement._values or {})]
    given += [given_by_key(statement, row) for part in statement._multi_values for row in part]  # type: ignore[arg-type]
    for column in columns:
        vector, sealed = column.key, column.key + SUFFIX
        if _parts(column) & names:
            _refuse(column, "an INSERT from a SELECT cannot copy it: its ciphertext belongs to another row")
        for row in [*given, *({**given[0], **row} for row in rows)]:
            if vector in row and not (_is_pair(column) and sealed in row):
                if _is_sql(row[vector]):
                    _refuse(column, "give it a vector, not a SQL expression")
            elif _is_pair(column) and sealed in row:
                _complete(column, row)
    clause = statement._post_values_clause
    if not isinstance(clause, OnConflictDoUpdate):
        return statement
    known = {key for row in [*given, *rows] for key in row}
    changed = _checked_conflict(statement, clause, columns, known)
    if changed is clause:
        return statement
    completed: Insert = statement._generate()
    completed._post_values_clause = changed
    return completed


def _checked_conflict(
    statement: Insert, clause: OnConflictDoUpdate, columns: list[Column[Any]], known: set[str]
) -> OnConflictDoUpdate:
    table: Table = statement.table  # type: ignore[assignment]
    given = given_by_key(statement, clause.update_values_to_set)
    missing: dict[Any, Any] = {}
    excluded = {key for key, value in given.items() if _is_excluded(value, key)}
    for column in columns:
        pair = _parts(column)
        if pair & excluded:
            if pair & given.keys() - excluded:
                _refuse(column, "set both columns from `excluded`, or neither")
            missing |= {key: table.alias("excluded").c[key] for key in pair - excluded}
        elif pair & given.keys() and _complete(column, given):
            missing[column.key + SUFFIX] = type_coerce(null(), LargeBinary())
        excluded |= pair if pair & excluded else set()
    _check_moved(columns, given.keys() | missing.keys())
    keys = {key.key: key for key in table.primary_key.columns}
    if keys.keys() & given.keys() - excluded:
        _refuse(columns[0], "ON CONFLICT must set the primary key from `excluded` only")
    takes = [column for column in columns if column.key in excluded]
    bound = all(name in known or (key.default is not None) for name, key in keys.items())
    if takes and keys and bound and not (_targets(clause, table) or keys.keys() <= excluded):
        _refuse(
            takes[0],
            "ON CONFLICT on other columns than the primary key would give a row the vector of another key. Read the"
            " key of the row that is there, and give its `ciphertexts(Model.column, vector, key)`",
        )
    if not missing:
        return clause
    changed: OnConflictDoUpdate = clause._clone()
    changed.update_values_to_set = {**clause.update_values_to_set, **missing}
    return changed


def _targets(clause: OnConflictDoUpdate, table: Table) -> bool:
    """Return True if the conflict is one of the primary key."""
    if clause.constraint_target is not None:
        return clause.constraint_target in (table.primary_key.name, f"{table.name}_pkey")
    targets = {getattr(one, "key", one) for one in clause.inferred_target_elements or ()}
    return targets in ({key.key for key in table.primary_key}, {key.name for key in table.primary_key})


def _is_excluded(value: Any, key: str) -> bool:
    return getattr(getattr(value, "table", None), "name", None) == "excluded" and value.key == key


def _complete(column: Column[Any], given: Mapping[str, Any]) -> bool:
    """Check a column in an UPDATE. Returns True if it is a pair whose companion is to be NULL and is not said yet."""
    vector, sealed = column.key, column.key + SUFFIX
    if not _is_pair(column):
        if vector in given:
            _check_sealed(column, given[vector])
        return False
    if vector not in given and sealed not in given:
        return False
    if vector not in given:
        _refuse(column, f"{sealed!r} cannot be written without it")
    one = _value(column, given[vector])
    if sealed not in given:
        if one is None:
            return True
        if isinstance(given[vector], ClauseElement) and not isinstance(given[vector], BindParameter):
            _refuse(column, f"{sealed!r} must be written with it: use `ciphertexts(Model.column, vector, key)`")
        refuse_plaintext()
    if (one is None) is not (_value(column, given[sealed]) is None):
        _refuse(column, f"it and {sealed!r} must both be NULL, or neither")
    return False


def _check_sealed(column: Column[Any], given: Any) -> None:
    """Refuse a value of a sealed column that nobody has encrypted, or will encrypt."""
    value = _value(column, given)
    if isinstance(value, BindParameter):  # its value comes with the rows
        return
    plain = isinstance(value, PlainVector) and value.sealed is None
    if plain or (value is not None and not isinstance(value, Cell | Unsealed | PlainVector)):
        refuse_plaintext()


def _is_pair(column: Column[Any]) -> bool:
    return column.type.paired  # type: ignore[attr-defined, no-any-return]


def _parts(column: Column[Any]) -> set[str]:
    """Return the keys of the columns that a vector is stored in."""
    return {column.key, column.key + SUFFIX} if _is_pair(column) else {column.key}


def _is_sql(value: Any) -> bool:
    """Return True for SQL other than a value, NULL, and what `ciphertexts` gives."""
    while isinstance(value, Cast | TypeCoerce):
        value = value.clause
    return isinstance(value, ClauseElement) and not isinstance(value, BindParameter | Null)


def _value(column: Column[Any], value: Any) -> Any:
    """Return the value of what a statement sets: None for NULL. Raises InputError for other SQL."""
    while isinstance(value, Cast | TypeCoerce):
        value = value.clause
    if isinstance(value, Null):
        return None
    if isinstance(value, BindParameter):
        return value if value.required or value.callable else value.value
    if isinstance(value, ClauseElement):
        _refuse(column, "give it the values of `ciphertexts(Model.column, vector, key)`, not another SQL expression")
    return value


def _check_moved(columns: list[Column[Any]], keys: set[str]) -> None:
    """Refuse a new primary key for a vector that stays as it is."""
    moved = keys & {key.key for key in columns[0].table.primary_key.columns}
    for column in columns:
        if moved and not _parts(column) <= keys:
            _refuse(
                column,
                "its ciphertext is bound to the primary key, which this statement changes. Set the key on a mapped"
                " object, or give `ciphertexts(Model.column, vector, new_key)` too",
            )


def _refuse(column: Column[Any], why: str) -> NoReturn:
    raise unwrapped(InputError(f"{column.table}.{column.name} is an encrypted vector: {why}"))
