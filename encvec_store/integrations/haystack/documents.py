"""Haystack's documents as records, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haystack.dataclasses import ByteStream, Document, SparseEmbedding

__all__ = ["BARE", "META", "document_of", "meta_of", "record_parts"]

BARE = "_no_embedding"
"""True in the metadata of a document without an embedding. It has a vector all the same, which no search returns."""
_REST = "_haystack"
"""What a record has no place for. It is a mapping, so the index makes no column of it."""
META = frozenset({BARE, _REST})


def record_parts(documents: Sequence[Document], dim: int) -> dict[str, Any]:
    """Return what `Collection.upsert` takes."""
    stand_in = [1.0, *[0.0] * (dim - 1)]
    metadata = []
    for document in documents:
        fields: dict[str, Any] = dict(document.meta)
        rest: dict[str, Any] = {}
        if document.embedding is None:
            fields[BARE] = True
        if document.blob is not None:
            rest["blob"] = {
                "data": document.blob.data,
                "meta": document.blob.meta,
                "mime_type": document.blob.mime_type,
            }
        if document.sparse_embedding is not None:
            rest["sparse_embedding"] = document.sparse_embedding.to_dict()
        if document.score is not None:
            rest["score"] = float(document.score)
        if rest:
            fields[_REST] = rest
        metadata.append(fields)
    return {
        "ids": [document.id for document in documents],
        "vectors": [stand_in if document.embedding is None else document.embedding for document in documents],
        "metadata": metadata,
        "documents": [document.content for document in documents],
    }


def meta_of(record: Any) -> dict[str, Any]:
    """Return the metadata of a record that is the caller's own."""
    return {name: value for name, value in record.metadata.items() if name not in META}


def document_of(record: Any, score: float | None = None) -> Document:
    """Make a document of a record or hit; its embedding comes if the record has its vector."""
    rest = record.metadata.get(_REST, {})
    blob, sparse = rest.get("blob"), rest.get("sparse_embedding")
    bare = record.vector is None or record.metadata.get(BARE)
    return Document(
        id=str(record.id),
        content=record.document,
        blob=None if blob is None else ByteStream(**blob),
        meta=meta_of(record),
        score=rest.get("score") if score is None else score,
        embedding=None if bare else record.vector.tolist(),
        sparse_embedding=None if sparse is None else SparseEmbedding.from_dict(sparse),
    )
