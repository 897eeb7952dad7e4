"""The two tables beside a table with a sealed vector: which rows it has, and what is kept of the index over them.

`<table>_<column>_rows` has an entry for each write of a vector. The table's triggers write it (`triggers`). Its number,
`row`, is never used again. When the vector is replaced or deleted, the entry is marked as gone and loses its key.
`<table>_<column>_blobs` has the table's incarnation and the sealed segments of the index.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeEngine

from ...errors import InputError
from .errors import unwrapped

__all__ = ["INCARNATION_NAME", "Companions", "declared", "is_companion"]

INCARNATION_NAME = "incarnation"
"""The blob that holds the incarnation, in clear."""
_LONGEST = 44
"""PostgreSQL cuts names at 63 bytes, and suffixes follow."""
_MARK = "encvec_companion"


@dataclass(frozen=True, eq=False)
class Companions:
    """The companion tables of one sealed column."""

    table: Table
    column: Column[Any]
    rows: Table
    blobs: Table
    keys: tuple[Column[Any], ...]
    """Columns of `rows` that hold the primary key, in its order."""
    base: str
    """Names of triggers and functions begin with it."""
    searched: dict[Any, Any] = field(default_factory=dict, repr=False)
    """SQL that searches use again."""


def is_companion(table: Table) -> bool:
    """Return True for a companion table."""
    return _MARK in table.info


class _KeyColumn(Column[Any]):
    """A column with the type of a key column, also where a foreign key brings that type later."""

    inherit_cache = True
    _like: Column[Any] | None = None
    _own: TypeEngine[Any]

    @property
    def type(self) -> TypeEngine[Any]:
        return self._own if self._like is None else self._like.type

    @type.setter
    def type(self, value: TypeEngine[Any]) -> None:
        self._own = value

    @classmethod
    def of(cls, key: Column[Any]) -> _KeyColumn:
        """Return the column for a column of the primary key."""
        made = cls(f"key_{key.name}", key.type, nullable=True)
        made._like = key
        return made


def declared(table: Table, column: Column[Any]) -> Companions:
    """Add the companion tables of a sealed column to the metadata of its table. Raises InputError."""
    if not table.primary_key.columns:
        raise unwrapped(InputError(f"{table.fullname} must have a primary key: {column.name!r} is a sealed vector"))
    base = f"{table.name}_{column.name}"
    if len(base.encode()) > _LONGEST:
        base = f"{base[: _LONGEST // 4 - 9]}_{hashlib.sha256(base.encode()).hexdigest()[:8]}"
    metadata, schema = table.metadata, table.schema
    keys = tuple(_KeyColumn.of(key) for key in table.primary_key.columns)
    rows = Table(
        f"{base}_rows",
        metadata,
        Column("row", BigInteger, Identity(), primary_key=True),
        Column("xid", BigInteger, nullable=False),
        Column("gone", Boolean, nullable=False, server_default=text("false")),
        Column("version", BigInteger, nullable=False),
        *keys,
        Index(f"ix_{base}_rows_xid", "xid"),
        Index(f"ix_{base}_rows_key", *(key.name for key in keys)),
        schema=schema,
        info={_MARK: True},
        comment=f"Writes of {table.name}.{column.name}, written by triggers. xid is the transaction, version the key's",
    )
    blobs = Table(
        f"{base}_blobs",
        metadata,
        Column("name", Text(collation="C"), primary_key=True),
        Column("part", Integer, primary_key=True, autoincrement=False),
        Column("key_version", BigInteger, nullable=False),
        Column("content", LargeBinary, nullable=False),
        schema=schema,
        info={_MARK: True},
        comment=f"The incarnation of {table.name}.{column.name}, and the sealed index over its vectors",
    )
    rows.add_is_dependent_on(table)
    blobs.add_is_dependent_on(rows)
    return Companions(table, column, rows, blobs, keys, base)
