"""Alembic's autogenerate over encrypted columns and their indexes.

In env.py. The import alone has pgvector's indexes compared by method, options and operator class; Alembic does not:

    from encvec_store.integrations.sqlalchemy.autogenerate import render_item

    context.configure(..., render_item=render_item)
"""

from __future__ import annotations

from typing import Any, Literal

from alembic.autogenerate import comparators
from alembic.operations.ops import CreateIndexOp, DropIndexOp
from alembic.util import DispatchPriority
from sqlalchemy import Index, text

from .types import EncryptedVector
from .values import SealedVector

__all__ = ["render_item"]

_DEFAULTS = {"hnsw": {"m": "16", "ef_construction": "64"}, "ivfflat": {"lists": "100"}}
"""What pgvector does where an index says nothing."""
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
    """Write both types in a migration as what they are in the database: a migration holds no keys."""
    if kind == "type" and isinstance(item, EncryptedVector):
        context.imports.add("import pgvector.sqlalchemy")
        return f"pgvector.sqlalchemy.VECTOR({item.index_dim})"
    if kind == "type" and isinstance(item, SealedVector):
        return "sa.LargeBinary()"
    return False


@comparators.dispatch_for("table", priority=DispatchPriority.LAST)
def _compare_indexes(context: Any, changes: Any, schema: str | None, name: str, found: Any, declared: Any) -> None:
    """Replace indexes of pgvector's that differ in what Alembic itself does not compare."""
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
    """Return what would make the index that is there, for the way back."""
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
