"""Damage that shows without keys, and sizes; imports records, source."""

from __future__ import annotations

from typing import Any, LiteralString

from psycopg.sql import SQL

from .names import kept
from .records import Records
from .source import Cursor

__all__ = ["check_content", "sizes"]

_CHECKS: tuple[tuple[LiteralString, str], ...] = (
    (
        "SELECT count(*) FROM {records} WHERE octet_length(envelope) <> {envelope_size}"
        " OR coalesce({vector_dims}({column}), 0) <> {index_dim} OR octet_length(token) <> 16",
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
        "SELECT count(*) FROM (SELECT space, count(*) AS n FROM {records} GROUP BY space) h FULL JOIN"
        " (SELECT space, records AS n FROM {spaces} WHERE collection = {id} AND records <> 0) s USING (space)"
        " WHERE h.n IS DISTINCT FROM s.n",
        "the count of records is wrong for {} groups",
    ),
)
_SIZES: LiteralString = (
    "SELECT pg_total_relation_size(to_regclass({records_name})) - pg_indexes_size(to_regclass({records_name})),"
    " pg_total_relation_size(to_regclass({terms_name})), coalesce(sum(pg_relation_size(i.indexrelid))"
    " FILTER (WHERE i.indpred IS NULL), 0)::int8, coalesce(sum(pg_relation_size(i.indexrelid))"
    " FILTER (WHERE i.indpred IS NOT NULL), 0)::int8 FROM pg_index i WHERE i.indrelid = to_regclass({records_name})"
)


def check_content(cursor: Cursor, content: int, records: Records) -> list[str]:
    """Return descriptions of damage; empty when sound."""
    spec = records.spec
    found = []
    for template, text in _CHECKS:
        sql = records.names.sql(
            template,
            content,
            id=records.collection,
            envelope_size=spec.envelope_size,
            index_dim=records.dim_of(content),
            column=SQL(kept(spec.half)[0]),
        )
        (n,) = cursor.execute(sql).fetchone() or (0,)
        if n:
            found.append(text.format(n))
    return found


def sizes(cursor: Cursor, content: int, records: Records) -> dict[str, Any]:
    """Return bytes by part."""
    heap, terms, keys, index = cursor.execute(records.names.sql(_SIZES, content)).fetchone() or (0, 0, 0, 0)
    return {"records": heap, "keys": keys, "terms": terms, "index": index}
