"""Changes a column in a migration: from the pair to the sealed column, and back. Every vector is encrypted anew.

The migration holds no keys. They come from the `EncryptedVector` of this column in `target_metadata`, which env.py
gives to `context.configure`. So the models must still have the column when the migration runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Connection, LargeBinary, MetaData, Table, bindparam, select, text, update

from ...errors import InputError
from .identity import namer
from .ranked import SUFFIX, RankedVector
from .triggers import remove_sql
from .types import EncryptedVector

__all__ = ["SAP", "to_pair", "to_sealed", "twin"]

SAP: Mapping[str, Any] = {"name": "sap", "beta": 2.0}
_BATCH = 1_000
_NEXT = "_next"


def twin(table: Table, column: Column[Any], **options: Any) -> Table:
    """Return a table apart with the same key, and this column as another kind of encrypted vector."""
    kind: EncryptedVector = column.type  # type: ignore[assignment]
    given = {"tenant": kind.tenant, "collection": kind.cipher.place, "metric": kind.metric, **options}
    keys = [Column(key.name, key.type, primary_key=True, autoincrement=False) for key in table.primary_key.columns]
    vector: Column[Any] = Column(
        column.name, EncryptedVector(kind.dim, kind._source, **given), nullable=column.nullable
    )
    return Table(table.name, MetaData(), *keys, vector, schema=table.schema)


def to_sealed(op: Any, table: str, column: str, schema: str | None = None) -> None:
    """Replace a pair by a sealed column. The companion tables must exist; their triggers come after this.

    Args:
        op: of the migration.
        table: its name.
        column: its name.
        schema: of the table; None for the default one.
    """
    declared = _declared(op, table, column, schema)
    options: dict[str, Any] = {"max_norm": None if declared.type.metric == "cosine" else 1.0}  # type: ignore[attr-defined]
    before, after = twin(declared.table, declared, scheme=SAP, **options), twin(declared.table, declared)
    _convert(op.get_bind(), before, after, column)


def to_pair(
    op: Any,
    table: str,
    column: str,
    schema: str | None = None,
    scheme: Mapping[str, Any] = SAP,
    max_norm: float | None = None,
) -> None:
    """Replace a sealed column by a pair. The companion tables must still exist.

    Args:
        op: of the migration.
        table: its name.
        column: its name.
        schema: of the table; None for the default one.
        scheme: of the index vectors.
        max_norm: the largest length of a vector; needed for l2 and ip.
    """
    declared = _declared(op, table, column, schema)
    before, after = twin(declared.table, declared), twin(declared.table, declared, scheme=scheme, max_norm=max_norm)
    bind = op.get_bind()
    companions = before.c[column].type.companions  # type: ignore[attr-defined]
    bind.execute(text(remove_sql(companions, schema)))
    _convert(bind, before, after, column)


def _declared(op: Any, table: str, column: str, schema: str | None) -> Column[Any]:
    metadata = op.get_context().opts.get("target_metadata")
    name = f"{schema}.{table}" if schema else table
    for each in metadata if isinstance(metadata, list | tuple) else [metadata]:
        found = None if each is None or name not in each.tables else each.tables[name].c.get(column)
        if found is not None and isinstance(found.type, EncryptedVector):
            column_found: Column[Any] = found
            return column_found
    raise InputError(
        f"target_metadata must have {name}.{column} as an EncryptedVector, whose keys this migration uses:"
        " give it to context.configure in env.py"
    )


def _convert(bind: Connection, before: Table, after: Table, name: str) -> None:
    """Encrypt all vectors of one table as another one has them, and put its columns in the place of the old ones."""
    old: EncryptedVector = before.c[name].type  # type: ignore[assignment]
    new: EncryptedVector = after.c[name].type  # type: ignore[assignment]
    column, fresh = before.c[name], name + _NEXT
    preparer = bind.dialect.identifier_preparer
    quoted, quote = preparer.format_table(before), preparer.quote
    made = {fresh: f"vector({new.index_dim})" if isinstance(new, RankedVector) else "bytea"}
    if new.paired:
        made[name + SUFFIX] = "bytea"

    def alter(*changes: str) -> None:
        for change in changes:
            bind.execute(text(f"ALTER TABLE {quoted} {change}"))

    alter(*(f"ADD COLUMN {quote(one)} {kind}" for one, kind in made.items()))
    keys = list(before.primary_key.columns)
    kinds: dict[str, Any] = {fresh: VECTOR() if new.paired else LargeBinary(), name + SUFFIX: LargeBinary()}
    plain = Table(
        before.name,
        MetaData(),
        *(Column(key.name, key.type, primary_key=True) for key in keys),
        *(Column(one, kinds[one]) for one in made),
        schema=before.schema,
    )
    places = [plain.c[key.name] == bindparam(f"at_{i}") for i, key in enumerate(keys)]
    put = update(plain).where(*places).values({plain.c[one]: bindparam(f"to_{one}") for one in made})
    identity, last = namer(before), None
    wanted = select(*keys, old.packed(column)).order_by(*keys).limit(_BATCH)
    while True:
        asked = wanted if last is None else wanted.where(_after(keys, last))
        rows = bind.execute(asked).all()
        if not rows:
            break
        last = tuple(rows[-1][:-1])
        full = [row for row in rows if row[-1] is not None]
        if not full:
            continue
        vectors = old.cipher.open([bytes(row[-1]) for row in full])
        names = [identity(dict(zip(keys, row, strict=False)).get) for row in full]
        if isinstance(new, RankedVector):
            pairs = zip(*new.pairs(new.cipher.checked(vectors), names), strict=True)
            cells = [{f"to_{fresh}": i, f"to_{name + SUFFIX}": e.tobytes()} for i, e in pairs]
        else:
            cells = [{f"to_{fresh}": cell.tobytes()} for cell in new.sealed_many(vectors, names, bind)]
        bind.execute(
            put,
            [
                {**{f"at_{i}": part for i, part in enumerate(row[:-1])}, **cell}
                for row, cell in zip(full, cells, strict=True)
            ],
        )
    gone = [name] if new.paired else [name, name + SUFFIX]
    alter(*(f"DROP COLUMN {quote(one)}" for one in gone), f"RENAME COLUMN {quote(fresh)} TO {quote(name)}")
    if not column.nullable:
        alter(*(f"ALTER COLUMN {quote(one)} SET NOT NULL" for one in ([name, name + SUFFIX] if new.paired else [name])))


def _after(keys: list[Column[Any]], last: tuple[Any, ...]) -> Any:
    """Return SQL for rows after a key, in the order of the keys."""
    from sqlalchemy import literal, tuple_

    if len(keys) == 1:
        return keys[0] > last[0]
    return tuple_(*keys) > tuple_(*(literal(value, key.type) for key, value in zip(keys, last, strict=True)))
