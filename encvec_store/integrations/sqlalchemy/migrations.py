"""Schema: the index on an encrypted column, and how Alembic writes the two columns; imports types, SQLAlchemy.

Alembic is not imported: `context.configure(..., render_item=render_item)` in env.py is all it needs.
"""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Column, Index

from .columns import column_of
from .types import EncryptedVector
from .values import SealedVector

__all__ = ["hnsw_index", "render_item"]


def hnsw_index(column: Any, name: str | None = None, *, m: int = 16, ef_construction: int = 64) -> Index:
    """Make the HNSW index of an encrypted column: by inner product, as ciphertexts of every metric rank.

    Args:
        column: `Model.embedding`, or the column of a table.
        name: of the index; made from table and column unless given.
        m: links of a node.
        ef_construction: candidates when it is built.
    """
    found: Column[Any] = column_of(column)
    return Index(
        name or f"ix_{found.table.name}_{found.name}_hnsw",
        found,
        postgresql_using="hnsw",
        postgresql_with={"m": m, "ef_construction": ef_construction},
        postgresql_ops={found.key: "vector_ip_ops"},
    )


def render_item(kind: str, item: Any, context: Any) -> str | Literal[False]:
    """Write both types in a migration as what they are in the database: a migration holds no keys."""
    if kind == "type" and isinstance(item, EncryptedVector):
        context.imports.add("import pgvector.sqlalchemy")
        return f"pgvector.sqlalchemy.VECTOR({item.index_dim})"
    if kind == "type" and isinstance(item, SealedVector):
        return "sa.LargeBinary()"
    return False
