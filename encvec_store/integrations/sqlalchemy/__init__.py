"""SQLAlchemy: `EncryptedVector`, a column type that replaces pgvector's `Vector`, and helpers for many rows.

    from encvec_store.integrations.sqlalchemy import EncryptedVector, bulk_insert, nearest

    class Item(Base):
        __tablename__ = "items"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        embedding: Mapped[npt.NDArray[np.float32]] = mapped_column(EncryptedVector(384, keyset=keyset))

    nearest(session, select(Item).where(Item.title != "draft"), Item.embedding, query, k=10)

Needs the extra `postgres`: psycopg and pgvector.
"""

from __future__ import annotations

from . import mapping, statements
from .building import follow, maintain
from .bulk import bulk_insert, ciphertexts
from .indexes import hnsw_index
from .nearest import nearest, nearest_async
from .search import Ranked, reencrypt, rerank
from .types import EncryptedVector
from .values import SealedVector

__all__ = [
    "EncryptedVector",
    "Ranked",
    "SealedVector",
    "bulk_insert",
    "ciphertexts",
    "follow",
    "hnsw_index",
    "maintain",
    "nearest",
    "nearest_async",
    "reencrypt",
    "rerank",
]

mapping.listen()
statements.listen()
