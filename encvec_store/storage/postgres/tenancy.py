"""Row-level security: PostgreSQL shows each tenant only its own collections.

`collections` shows the rows of the tenant that the setting `encvec.tenant` names. A collection's tables are open to
those who can see its row there. So no tenant's name is in the catalog, and one policy of the administrator's on
`collections` (which role may be which tenant) covers all tables. The parents `records` and `terms` have no policy, so
nobody can read through them: otherwise a read of a parent would read every tenant's tables, past their policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

from psycopg.sql import SQL, Composable

from ...data.arrays import Rows
from ...runtime.concurrency import offload
from ..protocol import EncryptedBatch
from .names import Names, kept
from .source import Cursor, Source
from .wire import byte_arrays, int8_array, numbered, packed_tokens, split_value, typed_kind, vector_array

__all__ = ["bypasses", "for_tenant", "insert_batch", "is_protected", "protect", "protect_content"]

_PART = 1 << 24
"""About how many bytes one INSERT sends."""

_FORCED: LiteralString = "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
_COLLECTIONS: LiteralString = (
    "CREATE POLICY tenant ON {collections} USING (current_setting('encvec.tenant', true) = '=' || tenant)"
)
_BESIDES: tuple[LiteralString, ...] = ("{partitions}", "{blobs}", "{changes}")
"""Tables that hold rows of all collections."""


_BESIDE: LiteralString = "CREATE POLICY tenant ON {table} USING (collection IN (SELECT id FROM {collections}))"
_CONTENT: LiteralString = (
    "CREATE POLICY tenant ON {table} USING (EXISTS (SELECT FROM {collections} WHERE content = {number}))"
)
_OPEN: LiteralString = (
    "SELECT c.content FROM {collections} c JOIN pg_class r ON r.oid ="
    " to_regclass(format('%%I.%%I', %s::text, 'records_' || c.content)) WHERE NOT r.relforcerowsecurity ORDER BY 1"
)
# COPY is refused on a table with row-level security.
_RECORDS: LiteralString = (
    "INSERT INTO {records} (row, partition, token, envelope, payload{column}) SELECT * FROM ROWS FROM"
    " (unnest(%b::int8[]), unnest(%b::int8[]), unnest(%b::bytea[]), unnest(%b::bytea[]), unnest(%b::bytea[]){vectors})"
)
_TERMS: LiteralString = (
    "INSERT INTO {terms} (row, n, field, kind, key, rest) SELECT row, n, field, convert_from(kind, 'UTF8'), key,"
    " nullif(rest, '') FROM unnest(%b::int8[], %b::int8[], %b::bytea[], %b::bytea[], %b::bytea[], %b::bytea[])"
    " AS t (row, n, field, kind, key, rest)"
)


def for_tenant(source: Source, tenant: str) -> Source:
    """Return a source that sets the tenant in each of its transactions."""
    # a local setting is empty after its transaction, not unset: the "=" tells that from the tenant ""
    return source.with_settings({"encvec.tenant": f"={tenant}"})


def is_protected(cursor: Cursor, names: Names) -> bool:
    """Return True if the schema has row-level security."""
    sql = names.sql("SELECT relforcerowsecurity FROM pg_class WHERE oid = {collections_name}::regclass")
    return cursor.execute(sql).fetchone() == (True,)


def bypasses(cursor: Cursor) -> bool:
    """Return True if row-level security does not apply to our role."""
    sql = b"SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
    return cursor.execute(sql).fetchone() == (True,)


def protect(source: Source, names: Names) -> None:
    """Turn row-level security on for a schema; only the owner of its tables may. If interrupted, it can be run again.

    From its end on, sessions that set no tenant see nothing.
    """

    def open_(cursor: Cursor) -> list[int]:
        return [number for (number,) in cursor.execute(names.sql(_OPEN), (names.schema,)).fetchall()]

    # one collection at a time: the server may not have enough locks for all
    for content in source.read(open_):
        with source.write() as cursor:
            used = names.sql("SELECT FROM {collections} WHERE content = {number} FOR UPDATE", number=content)
            if cursor.execute(used).fetchone() is not None:  # otherwise it was replaced or dropped meanwhile
                protect_content(cursor, names, content)
    with source.write() as cursor:
        cursor.execute(names.sql("LOCK TABLE {collections}"))
        if is_protected(cursor, names):
            return
        for content in open_(cursor):
            protect_content(cursor, names, content)
        for table in ("{all_records}", "{all_terms}", *_BESIDES, "{collections}"):
            cursor.execute(names.sql(_FORCED, table=names.part(table)))
        cursor.execute(names.sql(_COLLECTIONS))
        for table in _BESIDES:
            cursor.execute(names.sql(_BESIDE, table=names.part(table)))


def protect_content(cursor: Cursor, names: Names, content: int) -> None:
    """Close one collection's tables to other tenants."""
    for table in (names.records(content), names.terms(content)):
        cursor.execute(names.sql(_FORCED, table=table))
        cursor.execute(names.sql(_CONTENT, table=table, number=content))


def insert_batch(
    cursor: Cursor, names: Names, content: int, batch: EncryptedBatch, rows: Rows, vector_oid: int
) -> None:
    """Insert a batch under these rows by INSERT, where COPY is refused."""
    with_vector = batch.index_vectors.shape[1] > 0
    column, type_, _ = kept(batch.index_vectors.dtype.itemsize == 2)
    vectors: Composable = names.part(", unnest(%b::{type}[])", type=names.part(type_)) if with_vector else SQL("")
    sql = names.sql(_RECORDS, content, column=SQL(f", {column}" if with_vector else ""), vectors=vectors)
    for part in _parts(batch):
        cursor.execute(sql, offload(len(rows[part]), _packed, batch, rows, part, vector_oid if with_vector else None))
    terms = list(numbered(batch.terms))
    for start in range(0, len(terms), 10_000):
        some = terms[start : start + 10_000]
        keys = [split_value(term.value) for _, (_, _, term) in some]
        arrays = (
            int8_array([rows[position] for _, (position, _, _) in some]),
            int8_array([n for n, _ in some]),
            byte_arrays([name.encode("utf-8", "surrogatepass") for _, (_, name, _) in some]),
            byte_arrays([typed_kind(*term).encode() for _, (_, _, term) in some]),
            byte_arrays([key for key, _ in keys]),
            byte_arrays([rest or b"" for _, rest in keys]),
        )
        cursor.execute(names.sql(_TERMS, content), arrays)


def _packed(batch: EncryptedBatch, rows: Rows, part: slice, vector_oid: int | None) -> list[Any]:
    """Return the parameters of `_RECORDS` for a part of a batch; without vectors if their type is None."""
    values: list[Any] = [
        int8_array(rows[part]),
        int8_array(batch.partitions[part]),
        packed_tokens(batch.tokens[part]),
        packed_tokens(batch.vectors[part]),
        byte_arrays(batch.payloads[part]),
    ]
    if vector_oid is None:
        return values
    number = kept(batch.index_vectors.dtype.itemsize == 2)[-1]
    return [*values, vector_array(batch.index_vectors[part], vector_oid, number)]


def _parts(batch: EncryptedBatch) -> Iterator[slice]:
    """Cut a batch into parts of about `_PART` bytes."""
    each = 64 + batch.vectors.shape[1] + 4 * batch.index_vectors.shape[1]
    start = size = 0
    for end, payload in enumerate(batch.payloads, 1):
        size += each + len(payload)
        if size >= _PART or end == len(batch.payloads):
            yield slice(start, end)
            start, size = end, 0
