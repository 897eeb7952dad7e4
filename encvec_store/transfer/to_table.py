"""Export to a plaintext pgvector table, in one transaction by binary COPY."""

from __future__ import annotations

import json
import math
import secrets
from typing import Any

import psycopg
from psycopg import sql

from ..collection import Collection
from ..data.records import Record
from ..errors import InputError, StoreUnreachableError
from ..storage.postgres.faults import translated
from ..storage.postgres.options import database_of
from ..storage.postgres.transport import parameters_for
from .catalog import extension_schema
from .typed import to_json
from .unload import Moment, Progress, moment

__all__ = ["to_table"]

_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TAIL = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"


def to_table(
    collection: Collection, url: str, table: str, *, replace: bool = False, progress: Progress | None = None
) -> int:
    """Write a collection, in clear, to a table (id text, embedding vector, metadata jsonb, document text).

    It is written as it is at one moment. The table appears, or replaces the old one, when it is complete. Types that
    JSON lacks carry tags, as in files.

    Args:
        collection: what to write.
        url: `postgresql://...`; without a password, better: PGPASSFILE, PGPASSWORD or a service give it.
        table: its name as in SQL, `schema.table`.
        replace: drop a table of that name.
        progress: called with (records done since the last call, records in all).

    Returns:
        How many records.

    Raises:
        InputError: the table exists, or a text cannot be kept by PostgreSQL.
        StoreUnreachableError: no connection, or the role may not create it.
    """
    target, place = database_of(url)
    with translated("write to", place):
        connection = psycopg.connect(
            "",
            fallback_application_name="encvec export",
            prepare_threshold=None,  # a pooler may stand before the server
            **{"connect_timeout": 10, **parameters_for(target, place)},
        )
        try:
            with moment(collection) as now:
                n = _write(connection, now, table, replace, progress)
            connection.commit()
        finally:
            connection.close()
    return n


def _write(
    connection: psycopg.Connection[Any], now: Moment, table: str, replace: bool, progress: Progress | None
) -> int:
    cursor = connection.cursor()
    cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    extension = extension_schema(cursor)
    if extension is None:
        raise StoreUnreachableError("that database has no pgvector: CREATE EXTENSION vector there first")
    parts = _parsed(cursor, table)
    name = sql.Identifier(*parts)
    there = _one(cursor, "SELECT to_regclass(%s)", [name.as_string(connection)])
    if there is not None and not replace:
        raise InputError(f"{'.'.join(parts)} exists already: name another table, or add --replace")
    fresh = sql.Identifier(*parts[:-1], f"encvec_export_{secrets.token_hex(6)}")
    cursor.execute(
        sql.SQL(
            "CREATE TABLE {} (id text NOT NULL, embedding {}({}) NOT NULL, metadata jsonb NOT NULL, document text)"
        ).format(fresh, sql.Identifier(extension, "vector"), sql.Literal(now.dim))
    )
    n = 0
    with cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(fresh)) as copy:
        copy.write(_HEAD)
        for chunk in now.chunks(progress, as_text=True):
            copy.write(b"".join(map(_packed, chunk)))
            n += len(chunk)
        copy.write(_TAIL)
    if there is not None:
        cursor.execute(sql.SQL("DROP TABLE {}").format(name))
    cursor.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(fresh, sql.Identifier(parts[-1])))
    cursor.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (id)").format(name))
    return n


def _parsed(cursor: psycopg.Cursor[Any], table: str) -> list[str]:
    try:
        parts: list[str] = _one(cursor, "SELECT parse_ident(%s)", [table])
    except psycopg.DataError:
        parts = []
    if not 1 <= len(parts) <= 2:
        raise InputError(f"{table!r} is no name of a table: give --table SCHEMA.TABLE")
    return parts


def _one(cursor: psycopg.Cursor[Any], query: Any, values: Any = None) -> Any:
    found = cursor.execute(query, values).fetchone()
    return None if found is None else found[0]


def _packed(record: Record) -> bytes:
    """Return a row of the binary COPY stream."""
    assert record.vector is not None  # noqa: S101 - asked for
    metadata = json.dumps(_exact(to_json(record.metadata)), ensure_ascii=False)
    name = str(record.id)
    if "\0" in (record.document or "") or "\0" in name or "\\u0000" in metadata:
        raise InputError(f"record {record.id!r} holds a NUL character, which PostgreSQL's texts cannot")
    vector = len(record.vector).to_bytes(2, "big") + b"\0\0" + record.vector.astype(">f4").tobytes()
    fields = [name.encode(), vector, b"\x01" + metadata.encode()]
    if record.document is not None:
        fields.append(record.document.encode())
    body = b"".join(part for field in fields for part in (len(field).to_bytes(4, "big"), field))
    return b"\0\x04" + body + (_NULL if record.document is None else b"")


def _exact(value: Any) -> Any:
    """Tag the floats that jsonb, whose numbers are decimal, would give back as whole numbers or without their sign."""
    match value:
        case float() if value.is_integer() and ("e" in repr(value) or (value == 0 and math.copysign(1, value) < 0)):
            return {"$float": repr(value)}
        case dict():
            return {key: _exact(item) for key, item in value.items()}
        case list():
            return [_exact(item) for item in value]
    return value
