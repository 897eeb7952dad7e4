"""The retriever: a component of a pipeline that finds documents by an embedding."""

from __future__ import annotations

from typing import Any

from haystack import component, default_from_dict, default_to_dict
from haystack.dataclasses import Document
from haystack.document_stores.types import FilterPolicy, apply_filter_policy

from ...errors import InputError
from .document_store import EncvecDocumentStore

__all__ = ["EncvecEmbeddingRetriever"]


@component
class EncvecEmbeddingRetriever:
    """Finds the documents whose embeddings are nearest to a query's.

    Args:
        document_store: where to search.
        filters: which documents count.
        top_k: how many to return at most.
        return_embedding: if True, documents come with their embeddings.
        filter_policy: whether filters of a run replace these, or are merged with them.
    """

    def __init__(
        self,
        document_store: EncvecDocumentStore,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        *,
        return_embedding: bool = False,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        if not isinstance(document_store, EncvecDocumentStore):
            raise InputError(f"document_store must be an EncvecDocumentStore, got {type(document_store).__name__}")
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.return_embedding = return_embedding
        self.filter_policy = FilterPolicy.from_str(filter_policy) if isinstance(filter_policy, str) else filter_policy

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a dictionary; see `EncvecDocumentStore.to_dict`."""
        saved: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            return_embedding=self.return_embedding,
            filter_policy=self.filter_policy.value,
        )
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EncvecEmbeddingRetriever:
        """Make the component of what `to_dict` returned."""
        parameters = dict(data["init_parameters"])
        if isinstance(parameters["document_store"], dict):
            parameters["document_store"] = EncvecDocumentStore.from_dict(parameters["document_store"])
        made: EncvecEmbeddingRetriever = default_from_dict(cls, {**data, "init_parameters": parameters})
        return made

    @component.output_types(documents=list[Document])
    def run(
        self, query_embedding: list[float], filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Return the nearest documents, as `EncvecDocumentStore.search_embedding` does.

        Args:
            query_embedding: the query's embedding.
            filters: of this run.
            top_k: of this run.
        """
        return {"documents": self.document_store.search_embedding(*self._given(query_embedding, filters, top_k))}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query_embedding: list[float], filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Do what `run` does, with await."""
        given = self._given(query_embedding, filters, top_k)
        return {"documents": await self.document_store.search_embedding_async(*given)}

    def _given(self, embedding: list[float], filters: dict[str, Any] | None, top_k: int | None) -> tuple[Any, ...]:
        return embedding, apply_filter_policy(self.filter_policy, self.filters, filters), top_k or self.top_k
