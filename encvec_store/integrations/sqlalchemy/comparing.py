"""What Alembic's autogenerate does for sealed columns: triggers, and the change from the pair and back.

Companion tables are tables of the metadata, so Alembic itself compares and makes them.
"""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import comparators, renderers
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    DropColumnOp,
    DropTableOp,
    ExecuteSQLOp,
    MigrateOperation,
    ModifyTableOps,
)
from alembic.util import DispatchPriority
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import LargeBinary, Table, text

from .columns import encrypted_columns
from .companions import Companions
from .converting import twin
from .ranked import SUFFIX
from .triggers import FOLLOWED_NAME, KINDS, install_sql, remove_sql

__all__ = ["ConvertOp", "FollowOp"]

_MODULE = "from encvec_store.integrations.sqlalchemy import converting"
_THERE = """
    SELECT count(*) FROM pg_trigger
    WHERE tgrelid = to_regclass(:table) AND tgname = ANY(:names) AND tgenabled IN ('O', 'A')
    AND xmin::text = (SELECT convert_from(content, 'UTF8') FROM {blobs} WHERE name = '{followed}' AND part = 0)
"""


class FollowOp(ExecuteSQLOp):
    """Makes the triggers of a sealed column, or drops them."""

    def __init__(self, companions: Companions, schema: str | None, *, makes: bool = True) -> None:
        self._given = companions, schema
        self._makes = makes
        super().__init__((install_sql if makes else remove_sql)(companions, schema))

    def reverse(self) -> FollowOp:
        """Return the operation that undoes this one."""
        return FollowOp(*self._given, makes=not self._makes)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `compare_metadata` shows."""
        return ("add_triggers" if self._makes else "remove_triggers", self._given[0].base)


class ConvertOp(MigrateOperation):
    """Changes a pair to a sealed column, or back."""

    def __init__(self, table: str, column: str, schema: str | None, *, seals: bool, max_norm: float | None) -> None:
        self.table, self.column, self.schema, self.seals, self.max_norm = table, column, schema, seals, max_norm

    def reverse(self) -> ConvertOp:
        """Return the operation that undoes this one."""
        return ConvertOp(self.table, self.column, self.schema, seals=not self.seals, max_norm=self.max_norm)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `compare_metadata` shows."""
        return ("seal_column" if self.seals else "pair_column", self.schema, self.table, self.column)


@renderers.dispatch_for(ConvertOp)
def _render(context: Any, op: ConvertOp) -> str:
    context.imports.add(_MODULE)
    name = "to_sealed" if op.seals else "to_pair"
    more = "" if op.seals or op.max_norm is None else f", max_norm={op.max_norm!r}"
    return f"converting.{name}(op, {op.table!r}, {op.column!r}, schema={op.schema!r}{more})"


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST)
def _compare_sealed(context: Any, upgrade: Any, schemas: Any) -> None:
    if context.dialect.name != "postgresql" or context.connection is None:
        return
    last: list[Any] = []
    for table in context.sorted_tables:
        for column in encrypted_columns(table):
            kind: Any = column.type
            changes = _changes_of(upgrade, table)
            change = None if changes is None else _type_change(changes, column.name)
            if change is not None and isinstance(change.existing_type, VECTOR) and not kind.paired:
                _drop(changes, change, column.name + SUFFIX)
                changes.ops.append(ConvertOp(table.name, column.name, table.schema, seals=True, max_norm=kind.max_norm))
                last.append(FollowOp(kind.companions, table.schema))
            elif change is not None and isinstance(change.existing_type, LargeBinary) and kind.paired:
                companions: Companions = twin(table, column).c[column.name].type.companions  # type: ignore[attr-defined]
                _drop(changes, change, column.name + SUFFIX)
                back = ConvertOp(table.name, column.name, table.schema, seals=False, max_norm=kind.max_norm)
                changes.ops.insert(0, back)
                upgrade.ops.insert(0, FollowOp(companions, table.schema, makes=False))
                last += _taken(upgrade, {companions.rows.name, companions.blobs.name})
            elif not kind.paired and not _is_followed(context, kind.companions, table.schema):
                last.append(FollowOp(kind.companions, table.schema))
    upgrade.ops += last


def _changes_of(upgrade: Any, table: Table) -> Any:
    for op in upgrade.ops:
        if isinstance(op, ModifyTableOps) and (op.table_name, op.schema) == (table.name, table.schema):
            return op
    return None


def _type_change(changes: Any, name: str) -> AlterColumnOp | None:
    for op in changes.ops:
        if isinstance(op, AlterColumnOp) and op.column_name == name and op.modify_type is not None:
            return op
    return None


def _drop(changes: Any, change: AlterColumnOp, companion: str) -> None:
    """Leave out what a conversion does itself."""

    def stays(op: Any) -> bool:
        if isinstance(op, DropColumnOp):
            return bool(op.column_name != companion)
        return op is not change and not (isinstance(op, AddColumnOp) and op.column.name == companion)

    changes.ops[:] = [op for op in changes.ops if stays(op)]


def _taken(upgrade: Any, names: set[str]) -> list[Any]:
    """Take the operations that drop companion tables out of an upgrade: they come last."""

    def drops(op: Any) -> bool:
        return isinstance(op, DropTableOp | ModifyTableOps) and op.table_name in names

    found = [op for op in upgrade.ops if drops(op)]
    upgrade.ops[:] = [op for op in upgrade.ops if not drops(op)]
    return found


def _is_followed(context: Any, companions: Companions, schema: str | None) -> bool:
    quote = context.dialect.identifier_preparer.quote
    table, blobs = (
        f"{quote(schema)}.{quote(one.name)}" if schema else quote(one.name)
        for one in (companions.table, companions.blobs)
    )
    if context.connection.execute(text("SELECT to_regclass(:name)"), {"name": blobs}).scalar() is None:
        return False
    asked = text(_THERE.format(blobs=blobs.replace(":", "\\:"), followed=FOLLOWED_NAME))
    names = [f"{companions.base}_{part}" for part in KINDS]
    return bool(context.connection.execute(asked, {"table": table, "names": names}).scalar() == len(KINDS))
