"""SQLAlchemy: `EncryptedVector`, a column type that replaces pgvector's `Vector`, and helpers for many rows.

    from encvec_store.integrations.sqlalchemy import EncryptedVector, bulk_insert, hnsw_index, rerank

    class Item(Base):
        __tablename__ = "items"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        embedding: Mapped[npt.NDArray[np.float32]] = mapped_column(EncryptedVector(384, keyset=keyset))

    hnsw_index(Item.embedding)
    session.scalars(select(Item).order_by(Item.embedding.cosine_distance(query)).limit(10))
    rerank(session, select(Item), query, k=10)

Needs the extra `postgres`: psycopg and pgvector. docs/decisions/0011 describes the design of the column.
"""

from __future__ import annotations

from . import mapping, statements
from .bulk import bulk_insert, ciphertexts
from .indexes import hnsw_index
from .search import Ranked, reencrypt, rerank
from .types import EncryptedVector
from .values import SealedVector

__all__ = [
    "EncryptedVector",
    "Ranked",
    "SealedVector",
    "bulk_insert",
    "ciphertexts",
    "hnsw_index",
    "reencrypt",
    "rerank",
]

mapping.listen()
statements.listen()
