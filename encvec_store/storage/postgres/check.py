"""Finds the damage that shows without keys, and sizes."""

from __future__ import annotations

from typing import Any, LiteralString

from psycopg.sql import SQL, Composable

from .names import kept
from .reading import RecordsReader
from .source import Cursor

__all__ = ["check_content", "sizes"]

_CHECKS: tuple[tuple[LiteralString, str], ...] = (
    (
        "SELECT count(*) FROM {records} WHERE octet_length(envelope) <> {envelope_size}"
        " OR octet_length(token) <> 16{or_vector}",
        "{} records have a part of the wrong size",
    ),
    (
        "SELECT count(*) FROM {terms} t WHERE NOT EXISTS (SELECT FROM {records} r WHERE r.row = t.row)",
        "{} filter terms belong to no record",
    ),
    (
        "SELECT count(*) FROM {records} WHERE row < 1 OR row >= (SELECT next_row FROM {collections} WHERE id = {id})",
        "{} records have a row number that was never given out",
    ),
    (
        "SELECT count(*) FROM (SELECT partition, count(*) AS n FROM {records} GROUP BY partition) h FULL JOIN"
        " (SELECT partition, records AS n FROM {partitions} WHERE collection = {id} AND records <> 0) s"
        " USING (partition) WHERE h.n IS DISTINCT FROM s.n",
        "the count of records is wrong for {} partitions",
    ),
)
# indexes with a condition are those of vectors; the others are keys
_SIZES: LiteralString = (
    "SELECT pg_total_relation_size(to_regclass({records_name})) - pg_indexes_size(to_regclass({records_name})),"
    " pg_total_relation_size(to_regclass({terms_name})),"
    " (SELECT coalesce(sum(pg_relation_size(indexrelid)), 0)::int8 FROM pg_index"
    " WHERE indrelid = to_regclass({records_name}) AND indpred IS NULL),"
    " (SELECT coalesce(sum(octet_length(content)), 0)::int8 FROM {blobs} WHERE collection = {id}),"
    " (SELECT coalesce(sum(octet_length(rows)), 0)::int8 FROM {changes} WHERE collection = {id})"
)


def check_content(cursor: Cursor, content: int, records: RecordsReader) -> list[str]:
    """Return descriptions of damage; empty if there is none."""
    spec, dim = records.spec, records.dim_of(content)
    wrong: Composable = SQL("")
    if dim:
        wrong = records.names.part(
            " OR coalesce({vector_dims}({column}), 0) <> {dim}", column=SQL(kept(spec.half)[0]), dim=dim
        )
    found = []
    for template, text in _CHECKS:
        sql = records.names.sql(
            template,
            content,
            id=records.collection,
            envelope_size=spec.envelope_size,
            or_vector=wrong,
        )
        (n,) = cursor.execute(sql).fetchone() or (0,)
        if n:
            found.append(text.format(n))
    return found


def sizes(cursor: Cursor, content: int, records: RecordsReader) -> dict[str, Any]:
    """Return bytes by part."""
    found = cursor.execute(records.names.sql(_SIZES, content, id=records.collection)).fetchone() or (0,) * 5
    return dict(zip(("records", "terms", "keys", "blobs", "changes"), found, strict=True))
