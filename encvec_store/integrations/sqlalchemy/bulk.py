"""Many rows at once: batch encryption and binary COPY, and values for an UPDATE."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql
from sqlalchemy import Column, Connection, LargeBinary, Table, bindparam, cast, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.util import await_only

from ...errors import InputError, ShapeError
from .columns import column_of, encrypted_columns, table_of
from .identity import identity_of
from .types import SUFFIX, EncryptedVector
from .values import IndexVector

__all__ = ["bulk_insert", "ciphertexts"]

_BATCH = 4096
_BYTEA, _TEXT = 17, 25
# What stands in a binary COPY is a type's own format: of an enum its label, of a domain what it is made of.
_TYPES = text(
    "SELECT a.attname, CASE t.typtype WHEN 'e' THEN 25 WHEN 'd' THEN t.typbasetype ELSE t.oid END::bigint "
    "FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
    "WHERE a.attrelid = CAST(:name AS regclass) AND a.attnum > 0 AND NOT a.attisdropped"
)


def bulk_insert(bind: Session | Connection, model: Any, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows by one binary COPY, their vectors encrypted in batches; returns how many.

    All of them or none, in the transaction of `bind`. Nothing is put in the session, and no event of the ORM fires.
    Under an async engine: `await session.run_sync(bulk_insert, Model, rows)`.

    Args:
        bind: a session or connection of an engine over psycopg 3.
        model: a mapped class of one table, or a Table.
        rows: dicts by attribute (of a Table: column) name, with the same names in each. Columns left out get their
            Python default (without a context) or the server's.

    Raises:
        InputError: what cannot be encrypted or means nothing here; nothing was sent.
        sqlalchemy.exc.DBAPIError: the server refused; as for any statement, the transaction is to be rolled back.
    """
    if not isinstance(bind, Session | Connection):
        raise InputError("give a Session or Connection; of an async one, `await session.run_sync(bulk_insert, ...)`")
    rows = list(rows)
    if not rows:
        return 0
    table, names = table_of(model)
    given = _columns(rows, names)
    if isinstance(bind, Session):
        bind.flush()
    connection = bind.connection() if isinstance(bind, Session) else bind
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection | psycopg.AsyncConnection):
        raise InputError("bulk_insert copies by psycopg 3: make the engine of a URL postgresql+psycopg://")
    columns = list(_with_defaults(table, given, len(rows)).items())
    made = list(_encrypted(table, dict(columns), len(rows)))
    plain = [(column, values) for column, values in columns if not isinstance(column.type, EncryptedVector)]
    dialect = connection.dialect
    name = dialect.identifier_preparer.format_table(table)
    oids = {str(row[0]): int(row[1]) for row in connection.execute(_TYPES, {"name": name})}
    data = [_bound(column, values, dialect) for column, values in plain] + [values for _, values in made]
    types = [oids.get(column.name, _TEXT) for column, _ in plain] + [_BYTEA] * len(made)
    targets = [column.name for column, _ in plain] + [column.name for column, _ in made]
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.SQL(name), sql.SQL(", ").join(map(sql.Identifier, targets))
    )
    try:
        if isinstance(driver, psycopg.AsyncConnection):
            await_only(_copy_async(driver, statement, types, data))
        else:
            with driver.cursor() as cursor, cursor.copy(statement) as copy:
                copy.set_types(types)
                for row in zip(*data, strict=True):
                    copy.write_row(row)
    except psycopg.Error as error:
        shown = f"COPY {name}"
        raise DBAPIError.instance(shown, None, error, psycopg.Error, hide_parameters=True, dialect=dialect) from error
    return len(rows)


async def _copy_async(
    driver: psycopg.AsyncConnection[Any], statement: sql.Composed, types: list[int], data: Sequence[Sequence[Any]]
) -> None:
    async with driver.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(types)
        for row in zip(*data, strict=True):
            await copy.write_row(row)


def _columns(rows: list[Mapping[str, Any]], names: dict[str, Column[Any]]) -> dict[Column[Any], list[Any]]:
    first = rows[0].keys()
    for number, row in enumerate(rows):
        if row.keys() != first:
            raise InputError(f"rows[{number}] has other names than the first row")
    unknown = sorted(set(first) - set(names))
    if unknown:
        raise InputError(f"there is no {', '.join(map(repr, unknown))}")
    return {names[name]: [row[name] for row in rows] for name in first}


def _with_defaults(table: Table, given: dict[Column[Any], list[Any]], n: int) -> dict[Column[Any], list[Any]]:
    """Add what Python makes where nothing is given. Raises InputError for a companion: it comes by itself."""
    columns = dict(given)
    companions = {table.c[column.key + SUFFIX] for column in encrypted_columns(table)}
    for column in table.c:
        default: Any = column.default
        if column in companions:
            if column in given:
                raise InputError(f"{column.key!r} is made here, of the vector")
        elif column not in given and default is not None:
            if default.is_callable:
                columns[column] = [default.arg(None) for _ in range(n)]
            elif default.is_scalar:
                columns[column] = [default.arg] * n
            else:
                raise InputError(f"the default of {column.key!r} is SQL, which COPY cannot take: give values")
    return columns


def _encrypted(
    table: Table, columns: dict[Column[Any], list[Any]], n: int
) -> Iterator[tuple[Column[Any], list[bytes | None]]]:
    """Yield the index vectors (in pgvector's binary form) and envelopes of every encrypted column given."""
    identities = [identity_of(table, lambda key, i=i: columns[key][i] if key in columns else None) for i in range(n)]  # type: ignore[misc]
    for column in encrypted_columns(table):
        if column not in columns:
            continue
        kind: EncryptedVector = column.type  # type: ignore[assignment]
        values = columns[column]
        there = [i for i in range(n) if values[i] is not None]
        index: list[bytes | None] = [None] * n
        sealed: list[bytes | None] = [None] * n
        for start in range(0, len(there), _BATCH):
            places = there[start : start + _BATCH]
            vectors = _stacked(kind, column, [values[i] for i in places])
            one, two = kind.sealed_many(vectors, [identities[i] for i in places])
            head = np.frombuffer(struct.pack(">HH", kind.index_dim, 0), np.uint8)
            packed = np.hstack([np.broadcast_to(head, (len(places), 4)), one.astype(">f4").view(np.uint8)])
            for i, left, right in zip(places, packed, two, strict=True):
                index[i], sealed[i] = left.tobytes(), right.tobytes()
        yield column, index
        yield table.c[column.key + SUFFIX], sealed


def _stacked(kind: EncryptedVector, column: Column[Any], vectors: list[Any]) -> npt.NDArray[np.float32]:
    arrays = [np.asarray(vector) for vector in vectors]
    wrong = next((array.shape for array in arrays if array.shape != (kind.dim,)), None)
    if wrong is not None:
        raise ShapeError(f"{column.key}: expected shape ({kind.dim},), got {wrong}")
    return kind.cipher.checked(np.stack(arrays), column.key)


def _bound(column: Column[Any], values: list[Any], dialect: Any) -> list[Any]:
    """Values as SQLAlchemy gives them to the driver."""
    process: Any = column.type.dialect_impl(dialect).bind_processor(dialect)
    return values if process is None else [process(value) for value in values]


def ciphertexts(column: Any, vector: Any, key: Any = None) -> dict[str, ColumnElement[Any]]:
    """Encrypt a vector for `update(Model).values(**ciphertexts(...))` or `on_conflict_do_update(set_=...)`.

    Args:
        column: `Model.embedding`, or the column of a table.
        vector: (dim,), or None.
        key: primary key of the row: a value, or a tuple of them. Without it the row's identity is not bound.

    Returns:
        The values of the two columns, by name.
    """
    found = column_of(column)
    table: Table = found.table
    kind: EncryptedVector = found.type  # type: ignore[assignment]
    index = sealed = None
    if vector is not None:
        parts = key if isinstance(key, tuple) else (key,) * (key is not None)
        keys = dict(zip(table.primary_key.columns, parts, strict=bool(parts)))
        index, sealed = kind.sealed(
            kind.cipher.checked(np.asarray(vector)[None], found.key), identity_of(table, keys.get)
        )
    # casts, which the ORM cannot evaluate: it expires what a session holds of the row
    return {
        found.key: cast(bindparam(None, index, type_=IndexVector(), unique=True), IndexVector()),
        found.key + SUFFIX: cast(bindparam(None, sealed, type_=LargeBinary(), unique=True), LargeBinary()),
    }
