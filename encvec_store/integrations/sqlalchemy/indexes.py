"""The index on an encrypted column."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Index

from .columns import column_of

__all__ = ["hnsw_index"]


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
