"""The columns of a plaintext table: what each one holds, and whether metadata can hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from ..errors import InputError
from . import metric_names

__all__ = ["Column", "Table", "extension_schema", "find_table"]

_IDS = ("text", "varchar", "uuid", "int2", "int4", "int8")
_VECTORS = ("vector", "halfvec")
_JSON = ("json", "jsonb")
_VALUES = (
    *("bool", "int2", "int4", "int8", "float4", "float8", "numeric", "text", "varchar", "bpchar", "name", "uuid"),
    *("date", "timestamp", "timestamptz", "bytea", *_JSON),
)
_COLUMNS = """
SELECT a.attname, a.attnum, base.oid, base.typname, base.typtype::text, item.typname, item.typtype::text,
       CASE WHEN base.typname IN ('vector', 'halfvec') THEN a.atttypmod ELSE -1 END,
       format_type(a.atttypid, NULL)
FROM pg_attribute a
JOIN pg_type declared ON declared.oid = a.atttypid
JOIN pg_type base ON base.oid = CASE declared.typtype WHEN 'd' THEN declared.typbasetype ELSE declared.oid END
LEFT JOIN pg_type item ON item.oid = base.typelem AND base.typcategory = 'A'
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_KEYS = """
SELECT indkey[0]::int, indisprimary FROM pg_index
WHERE indrelid = %s AND indisunique AND indisvalid AND indpred IS NULL AND indnkeyatts = 1
"""

_OPERATOR_CLASSES = """
SELECT DISTINCT opc.opcname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am am ON am.oid = c.relam JOIN pg_opclass opc ON opc.oid = ANY(i.indclass::oid[])
WHERE i.indrelid = %(table)s AND am.amname IN ('hnsw', 'ivfflat') AND (%(column)s = ANY(i.indkey::int[]) OR EXISTS (
    SELECT FROM pg_depend WHERE objid = i.indexrelid AND refobjid = i.indrelid AND refobjsubid = %(column)s))
"""


@dataclass(frozen=True)
class Column:
    """A column and its type. A domain has the type below it."""

    name: str
    number: int
    oid: int
    type: str
    kind: str
    item: str | None
    """Of an array: the type of its items."""
    item_kind: str | None
    dim: int
    """Dimension of a vector column, if the table fixes it; else -1."""
    shown: str

    @property
    def is_json(self) -> bool:
        """Whether it holds JSON, to be read as in files: with tags for types that JSON lacks."""
        return (self.item or self.type) in _JSON

    @property
    def is_date(self) -> bool:
        """Whether it holds dates. Those of PostgreSQL reach further than Python's."""
        return (self.item or self.type) in ("date", "timestamp", "timestamptz")

    @property
    def expression(self) -> sql.Composable:
        """The SQL to select it. Labels of an enumeration come as text."""
        name = sql.Identifier(self.name)
        if "e" in (self.kind, self.item_kind):
            return name + sql.SQL("::text[]" if self.item else "::text")
        return name

    def check_value(self) -> None:
        """Raise InputError where metadata cannot hold its values."""
        if "e" not in (self.kind, self.item_kind) and (self.item or self.type) not in _VALUES:
            raise InputError(
                f"column {self.name!r} is {self.shown}, which metadata cannot hold: leave it out by naming the others "
                "with --metadata-columns, or cast it in a view"
            )


@dataclass(frozen=True)
class Table:
    """A table, and the columns to import."""

    name: sql.Identifier
    shown: str
    id: Column
    vector: Column
    metadata: tuple[Column, ...]
    document: Column | None
    unique: bool
    """Whether the database guarantees that ids are distinct."""
    named: metric_names.Named
    """The metric of the vector column's indexes."""
    flatten: frozenset[str] = frozenset()
    """The metadata columns of JSON objects whose keys become metadata of their own."""


def extension_schema(cursor: psycopg.Cursor[Any]) -> str | None:
    """Return the schema that pgvector is in, which need not be on the search path; None if it is not installed."""
    found = cursor.execute(
        "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    ).fetchone()
    return None if found is None else str(found[0])


def find_table(
    cursor: psycopg.Cursor[tuple[object, ...]],
    wanted: str,
    *,
    id: str | None = None,
    vector: str | None = None,
    metadata: Sequence[str] | None = None,
    document: str | None = None,
    flatten: Sequence[str] = (),
) -> Table:
    """Find a table or view, and choose its columns.

    Args:
        cursor: of a connection to its database.
        wanted: its name as in SQL: `schema.table`, in double quotes where it has capitals or dots.
        id: by default the primary key, or the column id.
        vector: by default the only column of a vector type.
        metadata: by default all columns that are nothing else.
        document: by default the column document, if it holds text.
        flatten: columns of JSON objects whose keys become metadata of their own; a JSON column `metadata` always does.

    Raises:
        InputError: no such table or column, or a type that cannot be taken.
    """
    try:
        found = cursor.execute("SELECT to_regclass(%s)::oid", [wanted]).fetchone()
    except (psycopg.errors.SyntaxError, psycopg.errors.InvalidName, psycopg.errors.FeatureNotSupported):
        raise InputError(f"{wanted!r} is no name of a table") from None
    if found is None or found[0] is None:
        raise InputError(
            f"no table {wanted!r} in the database, or it is not for this role to see: give --table SCHEMA.TABLE, "
            "in double quotes where a name has capitals"
        )
    oid = found[0]
    cursor.execute(
        "SELECT nspname, relname, quote_ident(nspname) || '.' || quote_ident(relname) FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = %s",
        [oid],
    )
    (schema, name, shown) = map(str, cursor.fetchall()[0])
    columns = {str(row[0]): Column(*row) for row in cursor.execute(_COLUMNS, [oid]).fetchall()}  # type: ignore[arg-type]
    keys = cursor.execute(_KEYS, [oid]).fetchall()

    def chosen(given: str, what: str) -> Column:
        if given not in columns:
            listed = ", ".join(columns)
            how = "" if what == "flatten" else f". Name it with --{what}-column"
            raise InputError(f"{shown} has no column {given!r}; it has: {listed}{how}")
        return columns[given]

    primary = [c.name for c in columns.values() if (c.number, True) in keys]
    the_id = chosen(id or (primary[0] if primary else "id"), "id")
    if the_id.type not in _IDS:
        raise InputError(f"column {the_id.name!r} is {the_id.shown}: an id must be text, uuid or an integer")
    the_vector = chosen(vector or _only_vector(list(columns.values()), shown), "vector")
    if the_vector.type not in _VECTORS:
        more = ": cast it to vector in a view" if the_vector.type in ("sparsevec", "bit") else ""
        raise InputError(f"column {the_vector.name!r} is {the_vector.shown}, not vector or halfvec{more}")
    texts = ("text", "varchar", "bpchar")
    the_document = chosen(document, "document") if document else columns.get("document")
    if the_document is not None and (the_document.type not in texts or the_document is the_id):
        if document:
            raise InputError(f"column {document!r} is {the_document.shown}: a document is text")
        the_document = None
    others = [c for c in columns.values() if c not in (the_id, the_vector, the_document)]
    taken = others if metadata is None else [chosen(each, "metadata") for each in metadata]
    for column in taken:
        column.check_value()
    for column in [chosen(each, "flatten") for each in flatten]:
        if not column.is_json or column.item is not None:
            raise InputError(f"column {column.name!r} is {column.shown}: only json and jsonb can be flattened")
        if column not in taken:
            raise InputError(f"column {column.name!r} is to be flattened, but it is not among the metadata columns")
    own = {column.name for column in taken if column.name == "metadata" and column.is_json and column.item is None}
    return Table(
        name=sql.Identifier(schema, name),
        shown=shown,
        id=the_id,
        vector=the_vector,
        metadata=tuple(taken),
        document=the_document,
        unique=(the_id.number, True) in keys or (the_id.number, False) in keys,
        named=_metric(cursor, oid, the_vector, shown),
        flatten=frozenset({*flatten, *own}),
    )


def _metric(cursor: psycopg.Cursor[tuple[object, ...]], oid: object, vector: Column, shown: str) -> metric_names.Named:
    """Return the metric of the indexes of a vector column; None where it has none."""
    cursor.execute(_OPERATOR_CLASSES, {"table": oid, "column": vector.number})
    found = sorted(str(name) for (name,) in cursor.fetchall())
    names = [name.removesuffix("_ops").partition("_")[2] for name in found]  # vector_cosine_ops
    if len(names) > 1:
        return metric_names.unclear(shown, f"has indexes of several metrics on {vector.name!r}: {', '.join(found)}")
    return metric_names.of_name(names[0], f"{shown}, by the index of {vector.name!r},") if names else None


def _only_vector(columns: list[Column], shown: str) -> str:
    found = [column.name for column in columns if column.type in (*_VECTORS, "sparsevec")]
    if len(found) == 1:
        return found[0]
    what = f"columns {', '.join(found)}: choose one" if found else "no column of the type vector or halfvec: name it"
    raise InputError(f"{shown} has {what} with --vector-column")
