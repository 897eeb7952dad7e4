"""Haystack: a collection as a document store, and a retriever by embedding.

    from encvec_store.integrations.haystack import EncvecDocumentStore, EncvecEmbeddingRetriever

    documents = EncvecDocumentStore(store.collection("documents", dim=768))
    retriever = EncvecEmbeddingRetriever(documents, top_k=5)

Needs the extra `haystack`.
"""

from __future__ import annotations

try:
    import haystack  # noqa: F401 - what is missing is told once, here
except ImportError as error:
    raise ImportError(f"this needs haystack-ai ({error}): pip install 'encvec-store[haystack]'") from None

from .document_store import EncvecDocumentStore
from .retriever import EncvecEmbeddingRetriever

__all__ = ["EncvecDocumentStore", "EncvecEmbeddingRetriever"]
