"""Many rows at once: encryption in batches and binary COPY. Also the values that encrypt a vector in an UPDATE."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Column, Connection, LargeBinary, Table, bindparam, cast, insert, inspect
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.elements import ClauseElement, ColumnElement

from ...errors import InputError, ShapeError
from .cipher import plain_array
from .columns import column_of, encrypted_columns, table_of
from .context import Bind, connection_of
from .copying import BYTEA, can_copy, copied, copy
from .identity import identity_of, namer
from .types import SUFFIX, EncryptedVector
from .values import IndexText, IndexVector, text_of

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
    made = dict(_encrypted(table, columns, len(rows)))
    plain = {column: values for column, values in columns.items() if column not in made}
    sent = copied(connection, table, plain) if can_copy(connection) else None
    if sent is None:
        pairs = {column: [_text(column, value) for value in values] for column, values in made.items()}
        _insert(connection, table, plain | pairs)
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
        if table.c[column.key + SUFFIX] in given:
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


class _NoContext:
    """Stands for the context of a statement that does not exist yet."""

    def __getattr__(self, name: str) -> Any:
        raise _NeedsContextError


class _NeedsContextError(Exception):
    """A default looks at the other values of its row."""


def _with_defaults(table: Table, given: dict[Column[Any], list[Any]], n: int) -> dict[Column[Any], list[Any]] | None:
    """Add the defaults that Python makes; None if one of them needs a statement: SQL, or the rest of the row."""
    columns = dict(given)
    companions = {table.c[column.key + SUFFIX] for column in encrypted_columns(table)}
    for column in table.c:
        default: Any = column.default
        if default is None or column in companions or column in given:
            continue
        if default.is_callable:
            try:
                columns[column] = [default.arg(_NoContext()) for _ in range(n)]
            except _NeedsContextError:
                return None
        elif default.is_scalar:
            columns[column] = [default.arg] * n
        else:
            return None
    return columns


def _encrypted(
    table: Table, columns: dict[Column[Any], list[Any]], n: int
) -> Iterator[tuple[Column[Any], list[bytes | None]]]:
    """Yield the index vectors, in pgvector's binary form, and the envelopes of every encrypted column given."""
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
            vectors = _stacked(kind, column, [values[i] for i in places])
            one, two = kind.sealed_many(vectors, [identities[i] for i in places])
            head = np.frombuffer(struct.pack(">HH", kind.index_dim, 0), np.uint8)
            packed = np.hstack([np.broadcast_to(head, (len(places), 4)), one.astype(">f4").view(np.uint8)])
            for i, left, right in zip(places, packed, two, strict=True):
                index[i], sealed[i] = left.tobytes(), right.tobytes()
        yield column, index
        yield table.c[column.key + SUFFIX], sealed


def _stacked(kind: EncryptedVector, column: Column[Any], vectors: list[Any]) -> npt.NDArray[np.float32]:
    arrays = [plain_array(vector, column.key) for vector in vectors]
    wrong = next((array.shape for array in arrays if array.shape != (kind.dim,)), None)
    if wrong is not None:
        raise ShapeError(f"{column.key}: expected shape ({kind.dim},), got {wrong}")
    return kind.cipher.checked(np.stack(arrays), column.key)


def _text(column: Column[Any], value: bytes | None) -> IndexText | bytes | None:
    """Return an index vector as an INSERT takes it; envelopes stay as they are."""
    if value is None or not isinstance(column.type, EncryptedVector):
        return value
    return text_of(np.frombuffer(value, ">f4", offset=4))


def ciphertexts(column: Any, vector: Any, key: Any = None) -> dict[str, ColumnElement[Any]]:
    """Encrypt a vector for `update(Model).values(**ciphertexts(...))` or `on_conflict_do_update(set_=...)`.

    Args:
        column: `Model.embedding`, or the column of a table.
        vector: (dim,), or None.
        key: primary key of the row: a value, or a tuple of values. Without it the vector is not bound to the row.

    Returns:
        The values of both columns, by name.
    """
    found = column_of(column)
    table: Table = found.table
    kind: EncryptedVector = found.type  # type: ignore[assignment]
    index = sealed = None
    if vector is not None:
        parts = key if isinstance(key, tuple) else (key,) * (key is not None)
        keys = dict(zip(table.primary_key.columns, parts, strict=bool(parts)))
        index, sealed = kind.sealed(
            kind.cipher.checked(plain_array(vector, found.key)[None], found.key), identity_of(table, keys.get)
        )
    # The ORM cannot evaluate casts, so it expires what a session holds of the row.
    return {
        found.key: cast(bindparam(None, index, type_=IndexVector(), unique=True), IndexVector()),
        found.key + SUFFIX: cast(bindparam(None, sealed, type_=LargeBinary(), unique=True), LargeBinary()),
    }
