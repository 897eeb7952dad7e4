"""Many rows at once: encryption in batches and binary COPY. Also the values that encrypt a vector in an UPDATE."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Column, Connection, LargeBinary, Table, bindparam, cast, insert, inspect
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.elements import ClauseElement, ColumnElement

from ...errors import InputError
from ..cipher import plain_array
from .columns import column_of, encrypted_columns, table_of
from .context import Bind, connection_of
from .copying import BYTEA, can_copy, copied, copy
from .identity import identity_of, namer
from .ranked import SUFFIX, RankedVector
from .sealing import NeedsStatementError, made_by, stacked
from .types import EncryptedVector
from .values import Cell, IndexText, IndexVector, Unsealed, text_of

__all__ = ["bulk_insert", "ciphertexts"]

_BATCH = 4096


def bulk_insert(bind: Bind, model: Any, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows, with their vectors encrypted in batches. Returns the number of rows.

    It takes the values that `session.add` takes, and writes all rows or none, in the transaction of `bind`. Nothing is
    put in the session, and no event of the ORM fires. Rows go by one binary COPY if psycopg 3 is the driver and COPY
    writes every value exactly as an INSERT would; else by INSERT, which is slower. COPY takes numbers, text, bytes,
    booleans, dates, times with a date, intervals, UUIDs, enums, JSON and lists of text.
    With an async session: `await session.run_sync(bulk_insert, Model, rows)`.

    Args:
        bind: a session or connection.
        model: a mapped class of one table, or a Table.
        rows: dicts by attribute name (column name for a Table), with the same names in each. Columns that are left out
            get their default.

    Raises:
        InputError: a value that cannot be encrypted, or a name that does not exist; nothing was sent.
        sqlalchemy.exc.DBAPIError: the server refused; as after any statement, roll the transaction back.
    """
    connection = connection_of(bind, model)
    rows = list(rows)
    if not rows:
        return 0
    table, names = table_of(model)
    given = _from_mapper(model, table, len(rows)) | _columns(rows, names)
    _check_values(table, given)
    if bind is not connection:
        bind.flush()  # type: ignore[union-attr]
    columns = _with_defaults(table, given, len(rows))
    if columns is None:
        _insert(connection, table, given)
        return len(rows)
    made = dict(_encrypted(connection, table, columns, len(rows)))
    plain = {column: values for column, values in columns.items() if column not in made}
    sent = copied(connection, table, plain) if can_copy(connection) else None
    if sent is None:
        encrypted = {column: [_sendable(column, value) for value in values] for column, values in made.items()}
        _insert(connection, table, plain | encrypted)
    else:
        copy(connection, table, sent | {column: (BYTEA, values) for column, values in made.items()})
    return len(rows)


def _insert(connection: Connection, table: Table, columns: dict[Column[Any], list[Any]]) -> None:
    keys = [column.key for column in columns]
    connection.execute(
        insert(table), [dict(zip(keys, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    )


def _columns(rows: list[Mapping[str, Any]], names: dict[str, Column[Any]]) -> dict[Column[Any], list[Any]]:
    first = rows[0].keys()
    for number, row in enumerate(rows):
        if row.keys() != first:
            raise InputError(f"rows[{number}] must have the same names as rows[0]")
    unknown = sorted(set(first) - set(names))
    if unknown:
        raise InputError(f"rows must name columns, got the unknown {', '.join(map(repr, unknown))}")
    return {names[name]: [row[name] for row in rows] for name in first}


def _check_values(table: Table, given: dict[Column[Any], list[Any]]) -> None:
    for column in encrypted_columns(table):
        if isinstance(column.type, RankedVector) and table.c[column.key + SUFFIX] in given:
            raise InputError(f"{column.key + SUFFIX!r} must be left out: it is made from the vector")
    for column, values in given.items():
        if any(isinstance(value, ClauseElement) for value in values):
            raise InputError(f"{column.key!r} must be a value in every row, got a SQL expression")


def _from_mapper(model: Any, table: Table, n: int) -> dict[Column[Any], list[Any]]:
    """Return what a mapper adds to every row: the discriminator of a subclass, the first version."""
    mapper = inspect(model, raiseerr=False)
    added: dict[Column[Any], list[Any]] = {}
    if isinstance(mapper, Mapper):
        discriminator, version = mapper.polymorphic_on, mapper.version_id_col
        if isinstance(discriminator, Column) and discriminator.table is table:
            added[discriminator] = [mapper.polymorphic_identity] * n
        if isinstance(version, Column) and callable(mapper.version_id_generator):
            added[version] = [mapper.version_id_generator(None) for _ in range(n)]
    return added


def _with_defaults(table: Table, given: dict[Column[Any], list[Any]], n: int) -> dict[Column[Any], list[Any]] | None:
    """Add the defaults that Python makes; None if one of them needs a statement: SQL, or the rest of the row."""
    columns = dict(given)
    pairs = [column for column in encrypted_columns(table) if isinstance(column.type, RankedVector)]
    companions = {table.c[column.key + SUFFIX] for column in pairs}
    for column in table.c:
        default: Any = column.default
        if default is None or column in companions or column in given:
            continue
        if not (default.is_callable or default.is_scalar):
            return None
        try:
            columns[column] = [made_by(default, None) for _ in range(n)]
        except NeedsStatementError:
            return None
    return columns


def _encrypted(
    connection: Connection, table: Table, columns: dict[Column[Any], list[Any]], n: int
) -> Iterator[tuple[Column[Any], list[bytes | None]]]:
    """Yield what COPY sends for every encrypted column given, index vectors in pgvector's binary form."""
    identity = namer(table)
    identities = [identity(lambda key, i=i: columns[key][i] if key in columns else None) for i in range(n)]  # type: ignore[misc]
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
            vectors = stacked(kind, column, [values[i] for i in places])
            named = [identities[i] for i in places]
            if isinstance(kind, RankedVector):
                points, envelopes = kind.pairs(vectors, named)
                head = np.frombuffer(struct.pack(">HH", kind.index_dim, 0), np.uint8)
                packed = np.hstack([np.broadcast_to(head, (len(places), 4)), points.astype(">f4").view(np.uint8)])
                for i, one in zip(places, packed, strict=True):
                    index[i] = one.tobytes()
            else:
                envelopes = kind.sealed_many(vectors, named, connection)
            for i, one in zip(places, envelopes, strict=True):
                sealed[i] = one.tobytes()
        if kind.paired:
            yield column, index
        yield (table.c[column.key + SUFFIX] if kind.paired else column), sealed


def _sendable(column: Column[Any], value: bytes | None) -> IndexText | bytes | None:
    """Return ciphertext as an INSERT takes it."""
    if value is None or not isinstance(column.type, EncryptedVector):
        return value
    return text_of(np.frombuffer(value, ">f4", offset=4)) if column.type.paired else Cell(value)


def ciphertexts(column: Any, vector: Any, key: Any = None) -> dict[str, ColumnElement[Any]]:
    """Encrypt a vector for `update(Model).values(**ciphertexts(...))` or `on_conflict_do_update(set_=...)`.

    Args:
        column: `Model.embedding`, or the column of a table.
        vector: (dim,), or None.
        key: primary key of the row: a value, or a tuple of values. Without it the vector is not bound to the row.

    Returns:
        The values by name: of the column, or of both columns of a pair. A sealed vector is encrypted when the
        statement runs.
    """
    found = column_of(column)
    table: Table = found.table
    kind: EncryptedVector = found.type  # type: ignore[assignment]
    checked, identity = None, None
    if vector is not None:
        parts = key if isinstance(key, tuple) else (key,) * (key is not None)
        keys = dict(zip(table.primary_key.columns, parts, strict=bool(parts)))
        identity = identity_of(table, keys.get)
        checked = kind.cipher.checked(plain_array(vector, found.key)[None], found.key)
        kind.require_known([identity])
    # The ORM cannot evaluate casts, so it expires what a session holds of the row.
    if not isinstance(kind, RankedVector):
        cell = None if checked is None else Unsealed(checked, identity)
        return {found.key: cast(bindparam(None, cell, type_=LargeBinary(), unique=True), LargeBinary())}
    index, sealed = (None, None) if checked is None else kind.pair(checked, identity)
    return {
        found.key: cast(bindparam(None, index, type_=IndexVector(), unique=True), IndexVector()),
        found.key + SUFFIX: cast(bindparam(None, sealed, type_=LargeBinary(), unique=True), LargeBinary()),
    }
