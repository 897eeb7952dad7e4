"""Binary COPY: which values it takes exactly as an INSERT would, and how they are sent."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psycopg
from psycopg import sql
from psycopg.types.json import Json, Jsonb
from sqlalchemy import Column, Connection, Table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only

__all__ = ["BYTEA", "can_copy", "copied", "copy"]

BYTEA, _TEXT = 17, 25

Sent = tuple[int, list[Any]]
"""The type by which psycopg sends a column, and the values as the driver takes them."""

# A domain is sent as its base type, and the label of an enum as text.
_TYPES = text(
    "SELECT a.attname, CASE t.typtype WHEN 'e' THEN 25 WHEN 'd' THEN t.typbasetype ELSE t.oid END::bigint "
    "FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
    "WHERE a.attrelid = CAST(:name AS regclass) AND a.attnum > 0 AND NOT a.attisdropped"
)


def _exactly(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


def _whole(size: int) -> Callable[[Any], bool]:
    """Return a test for integers of so many bytes: psycopg would cut larger ones."""
    limit = 1 << (8 * size - 1)
    return lambda value: type(value) is int and -limit <= value < limit


def _single(value: Any) -> bool:
    """Return True for a float that stays finite, or nonzero, as a `real`: psycopg would send infinity, or 0."""
    with np.errstate(over="ignore", under="ignore"):
        kept = np.float32(value) if type(value) is float else None
    return kept is not None and bool(np.isinf(kept) == np.isinf(value)) and bool((kept == 0) == (value == 0))


def _bytes(value: Any) -> bool:
    return type(value) is bytes or (type(value) is psycopg.Binary and type(value.obj) is bytes)


def _words(value: Any) -> bool:
    return type(value) is list and bool(value) and all(type(word) is str for word in value)


# The type of the column -> the type that is sent, and the values that arrive as an INSERT would write them.
_PROVEN: dict[int, tuple[int, Callable[[Any], bool]]] = {
    16: (16, _exactly(bool)),
    BYTEA: (BYTEA, _bytes),
    20: (20, _whole(8)),
    21: (21, _whole(2)),
    23: (23, _whole(4)),
    25: (_TEXT, _exactly(str)),
    114: (114, _exactly(Json)),
    700: (700, _single),
    701: (701, _exactly(float)),
    1009: (1009, _words),
    1015: (1015, _words),
    1042: (_TEXT, _exactly(str)),
    1043: (_TEXT, _exactly(str)),
    1082: (1082, _exactly(dt.date)),
    1114: (1114, lambda value: type(value) is dt.datetime and value.tzinfo is None),
    1184: (1184, lambda value: type(value) is dt.datetime and value.tzinfo is not None),
    1186: (1186, _exactly(dt.timedelta)),
    1700: (1700, _exactly(decimal.Decimal)),
    2950: (2950, _exactly(uuid.UUID)),
    3802: (3802, _exactly(Jsonb)),
}


def can_copy(connection: Connection) -> bool:
    """Return True if the driver is psycopg 3, sync or async."""
    driver = connection.connection.driver_connection
    return isinstance(driver, psycopg.Connection | psycopg.AsyncConnection)


def _name(connection: Connection, table: Table) -> str:
    """Return the quoted name of a table where this connection has it."""
    quote = connection.dialect.identifier_preparer
    schema = connection.schema_for_object(table)
    return f"{quote.quote_schema(schema)}.{quote.quote(table.name)}" if schema else quote.quote(table.name)


def copied(
    connection: Connection, table: Table, columns: dict[Column[Any], list[Any]]
) -> dict[Column[Any], Sent] | None:
    """Return columns as a COPY sends them; None if it might write another value than an INSERT, or refuse one."""
    oids = {str(row[0]): int(row[1]) for row in connection.execute(_TYPES, {"name": _name(connection, table)})}
    sent: dict[Column[Any], Sent] = {}
    for column, values in columns.items():
        kind, fits = _PROVEN.get(oids.get(column.name, 0), (0, None))
        impl: Any = column.type.dialect_impl(connection.dialect)
        if fits is None or impl._has_bind_expression:
            return None
        process = impl.bind_processor(connection.dialect)
        try:
            bound = values if process is None else [process(value) for value in values]
        except Exception:
            return None
        if not all(value is None or fits(value) for value in bound):
            return None
        sent[column] = kind, bound
    return sent


def copy(connection: Connection, table: Table, columns: dict[Column[Any], Sent]) -> None:
    """Send columns by one binary COPY. Raises DBAPIError, which shows no value."""
    driver = connection.connection.driver_connection
    name = _name(connection, table)
    types, data = [kind for kind, _ in columns.values()], [values for _, values in columns.values()]
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.SQL(name), sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    )
    try:
        if isinstance(driver, psycopg.AsyncConnection):
            await_only(_copy_async(driver, statement, types, data))
        elif isinstance(driver, psycopg.Connection):
            with driver.cursor() as cursor, cursor.copy(statement) as copying:
                copying.set_types(types)
                for row in zip(*data, strict=True):
                    copying.write_row(row)
    except psycopg.Error as error:
        raise DBAPIError.instance(
            f"COPY {name}", None, error, psycopg.Error, hide_parameters=True, dialect=connection.dialect
        ) from error


async def _copy_async(
    driver: psycopg.AsyncConnection[Any], statement: sql.Composed, types: list[int], data: Sequence[Sequence[Any]]
) -> None:
    async with driver.cursor() as cursor, cursor.copy(statement) as copying:
        copying.set_types(types)
        for row in zip(*data, strict=True):
            await copying.write_row(row)
