"""Alembic's autogenerate with encrypted columns and their indexes, and beside the tables of a store.

In env.py:

    from encvec_store.integrations.sqlalchemy.autogenerate import include_name, render_item

    context.configure(..., render_item=render_item, include_name=include_name)

The import alone makes Alembic compare the method, options and operator class of pgvector's indexes, and makes it write
the triggers of sealed columns and the change from a pair to a sealed column, and back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from alembic.autogenerate import comparators
from alembic.operations.ops import CreateIndexOp, DropIndexOp
from alembic.util import DispatchPriority
from sqlalchemy import Index, text

from ...storage.postgres.tables import build_metadata, is_content_table
from ...storage.revisions import VERSION_TABLE
from . import comparing
from .ranked import RankedVector
from .types import EncryptedVector
from .values import SealedVector

__all__ = ["comparing", "include_name", "leave_out_stores", "render_item"]

_DEFAULTS = {"hnsw": {"m": "16", "ef_construction": "64"}, "ivfflat": {"lists": "100"}}
"""What pgvector uses if an index does not say it."""
_THERE = text(
    """
    SELECT i.relname AS name, a.amname AS method, x.indisunique AS is_unique, i.reloptions AS options,
        pg_get_expr(x.indpred, x.indrelid) AS predicate,
        ARRAY(SELECT o.opcname FROM unnest(x.indclass::oid[]) WITH ORDINALITY AS u(id, n)
            JOIN pg_opclass o ON o.oid = u.id ORDER BY u.n) AS classes,
        ARRAY(SELECT pg_get_indexdef(x.indexrelid, n, true) FROM generate_series(1, x.indnkeyatts) n) AS parts
    FROM pg_index x
        JOIN pg_class i ON i.oid = x.indexrelid
        JOIN pg_am a ON a.oid = i.relam
        JOIN pg_class t ON t.oid = x.indrelid
        JOIN pg_namespace s ON s.oid = t.relnamespace
    WHERE t.relname = :table_name AND s.nspname = :schema_name
    """
)


def render_item(kind: str, item: Any, context: Any) -> str | Literal[False]:
    """Write both types in a migration as the database has them, so that it needs no keys."""
    if kind == "type" and isinstance(item, RankedVector):
        context.imports.add("import pgvector.sqlalchemy")
        return f"pgvector.sqlalchemy.VECTOR({item.index_dim})"
    if kind == "type" and isinstance(item, SealedVector | EncryptedVector):
        return "sa.LargeBinary()"
    return False


Filter = Callable[[str | None, str, Mapping[str, Any]], bool]


def leave_out_stores(*schemas: str | None) -> Filter:
    """Return an `include_name` for `context.configure` that hides the tables of stores, so that nothing drops them.

    Args:
        schemas: the option `schema` of each store's URL; None for the connection's default schema, as Alembic has it.
    """
    names = {table.name for table in build_metadata().tables.values()} | {VERSION_TABLE}

    def include(name: str | None, kind: str, parents: Mapping[str, Any]) -> bool:
        if kind != "table" or parents.get("schema_name") not in schemas:
            return True
        return name not in names and not is_content_table(str(name))

    return include


include_name = leave_out_stores("encvec")
"""Hides the tables of a store in its default schema."""


@comparators.dispatch_for("table", priority=DispatchPriority.LAST)
def _compare_indexes(context: Any, changes: Any, schema: str | None, name: str, found: Any, declared: Any) -> None:
    """Replace pgvector indexes that differ in what Alembic itself does not compare."""
    if found is None or declared is None or context.dialect.name != "postgresql":
        return
    place = {"table_name": name, "schema_name": schema or context.dialect.default_schema_name}
    there = {row.name: row for row in context.connection.execute(_THERE, place)}
    done = {change.index_name for change in changes.ops if isinstance(change, DropIndexOp | CreateIndexOp)}
    for index in sorted(declared.indexes, key=lambda index: str(index.name)):
        old = there.get(index.name)
        if old is None or index.name in done or not _differ(index, old):
            continue
        filters = (index, index.name, "index", False, None)
        if context.run_object_filters(*filters):
            changes.ops += [_as_found(old, name, schema).reverse(), CreateIndexOp.from_index(index)]


def _differ(index: Index, old: Any) -> bool:
    said = index.dialect_options["postgresql"]
    method = said["using"] or "btree"
    if not {method, old.method} & _DEFAULTS.keys():
        return False
    defaults = _DEFAULTS.get(method, {})
    wanted = defaults | {option: str(value) for option, value in (said["with"] or {}).items()}
    classes = [said["ops"].get(getattr(part, "key", None)) for part in index.expressions]
    return (
        method != old.method
        or wanted != defaults | _options(old)
        or any(one and one != other for one, other in zip(classes, old.classes, strict=False))
    )


def _options(old: Any) -> dict[str, str]:
    return dict(option.split("=", 1) for option in old.options or ())


def _as_found(old: Any, table: str, schema: str | None) -> CreateIndexOp:
    """Return the operation that makes the existing index again, for the downgrade."""
    classes = dict(zip(old.parts, old.classes, strict=True))
    columns = {part: part.strip('"') for part in old.parts if part.replace('"', "").isidentifier()}
    return CreateIndexOp(
        old.name,
        table,
        [columns.get(part) or text(f"({part}) {opclass}") for part, opclass in classes.items()],
        schema=schema,
        unique=old.is_unique,
        postgresql_using=old.method,
        postgresql_with=_options(old),
        postgresql_ops={name: classes[part] for part, name in columns.items()},
        postgresql_where=text(old.predicate) if old.predicate else None,
    )
