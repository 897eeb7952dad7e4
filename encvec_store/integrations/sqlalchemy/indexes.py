"""The vector index of an encrypted column."""

from __future__ import annotations

from typing import Any

from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import Column, Index, cast, type_coerce

from ...errors import InputError
from .columns import column_of, ranked_kind
from .values import HALF_FROM, HALF_TO

__all__ = ["hnsw_index"]


def hnsw_index(column: Any, name: str | None = None, *, m: int = 16, ef_construction: int = 64) -> Index:
    """Make the HNSW index of a column with scheme="sap". It ranks by inner product, as ciphertexts of every metric do.

    pgvector indexes vectors of up to 2,000 dimensions. From there to 4,000 the index holds them in half precision, and
    the distances of the column rank in half precision too; `rerank` is exact all the same.

    Args:
        column: `Model.embedding`, or the column of a table.
        name: of the index; the default is made from table and column.
        m: links of a node.
        ef_construction: candidates while the index is built.

    Raises:
        InputError: more dimensions than pgvector can index, or a sealed column.
    """
    found: Column[Any] = column_of(column)
    dim = ranked_kind(found, "`nearest` has an index of its own").index_dim
    if dim > HALF_TO:
        raise InputError(
            f"{found.table.name}.{found.name}: pgvector's HNSW takes at most {HALF_TO} dimensions, and the index"
            f" vectors of this column have {dim}; without an index all rows are compared"
        )
    part: Any = found
    if dim > HALF_FROM:
        part = cast(type_coerce(found, VECTOR()), HALFVEC(dim)).label(f"{found.key}_half")
    return Index(
        name or f"ix_{found.table.name}_{found.name}_hnsw",
        part,
        postgresql_using="hnsw",
        postgresql_with={"m": m, "ef_construction": ef_construction},
        postgresql_ops={part.key: "vector_ip_ops" if part is found else "halfvec_ip_ops"},
    )
