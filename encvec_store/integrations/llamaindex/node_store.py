"""The vector store of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.indices.query.embedding_utils import (
    get_top_k_embeddings,
    get_top_k_embeddings_learner,
    get_top_k_mmr_embeddings,
)
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from ... import Collection
from ...aio import AsyncCollection
from ...errors import InputError
from ..calls import Calls
from .filters import where_of

__all__ = ["EncvecNodeStore"]

_NODE = "_node"
"""The key that holds the rest of a node. It is a mapping, so the index makes no column of it."""
_LEARNERS = {
    VectorStoreQueryMode.SVM,
    VectorStoreQueryMode.LINEAR_REGRESSION,
    VectorStoreQueryMode.LOGISTIC_REGRESSION,
}
_POOL = 4
"""Times the nodes asked for: what MMR chooses from."""


class EncvecNodeStore(BasePydanticVectorStore):
    """A LlamaIndex vector store over one collection. Texts are documents, metadata is metadata, ids stay as given.

    Args:
        collection: a `Collection`, or an `AsyncCollection`, whose async methods alone can be used. With a `Collection`
            the async methods work too, in worker threads.

    Filters may be nested and take every operator. Query modes: `default`; `mmr`, which chooses among `mmr_prefetch_k`
    nodes, by default four times as many as asked for; and `svm`, `linear_regression` and `logistic_regression`, which
    open all nodes that pass the filter. Similarities are cosines or inner products; under l2, 1 / (1 + distance).
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    _calls: Calls = PrivateAttr()

    def __init__(self, collection: Collection | AsyncCollection) -> None:
        super().__init__()
        self._calls = Calls(collection)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex shows."""
        return "EncvecNodeStore"

    @property
    def client(self) -> Collection | AsyncCollection:
        """The collection."""
        return self._calls.of

    # write

    def add(self, nodes: Sequence[BaseNode], **options: Any) -> list[str]:
        """Write nodes that have embeddings, all or nothing. Returns their ids; nodes whose ids exist are replaced."""
        if nodes:
            self._calls.now("upsert", *_records(nodes))
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **options: Any) -> list[str]:
        """Do what `add` does, with await."""
        if nodes:
            await self._calls.wait("upsert", *_records(nodes))
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **options: Any) -> None:
        """Delete the nodes that were made of a document."""
        self._calls.now("delete", where={"ref_doc_id": ref_doc_id})

    async def adelete(self, ref_doc_id: str, **options: Any) -> None:
        """Do what `delete` does, with await."""
        await self._calls.wait("delete", where={"ref_doc_id": ref_doc_id})

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **options: Any
    ) -> None:
        """Delete nodes by id, by filter, or by both. Unknown ids are no error."""
        if (given := _doomed(node_ids, filters)) is None:
            found = self._calls.now("get", node_ids, where_of(filters), include_vectors=False)
            given = {"ids": [record.id for record in found]}
        self._calls.now("delete", **given)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **options: Any
    ) -> None:
        """Do what `delete_nodes` does, with await."""
        if (given := _doomed(node_ids, filters)) is None:
            found = await self._calls.wait("get", node_ids, where_of(filters), include_vectors=False)
            given = {"ids": [record.id for record in found]}
        await self._calls.wait("delete", **given)

    def clear(self) -> None:
        """Delete all nodes."""
        self._calls.now("delete", self._calls.ids())

    async def aclear(self) -> None:
        """Do what `clear` does, with await."""
        await self._calls.wait("delete", await self._calls.ids_later())

    # read

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Return nodes by id, by filter, by both, or all of them, without embeddings. Unknown ids are left out."""
        return [_node(record) for record in self._calls.now("get", node_ids, where_of(filters), include_vectors=False)]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Do what `get_nodes` does, with await."""
        found = await self._calls.wait("get", node_ids, where_of(filters), include_vectors=False)
        return [_node(record) for record in found]

    def query(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """Return the nodes nearest to a query's embedding, nearest first.

        Args:
            query: its embedding, how many, filters, `doc_ids`, `node_ids`, mode.
            options: `mmr_threshold`, from 0, most diverse, to 1, nearest; `mmr_prefetch_k`.

        Raises:
            InputError: a mode that needs keywords, or no embedding.
            FilterError: a filter whose value does not fit its operator.
        """
        verb, given = _asked(query, options)
        return self._result(query, self._calls.now(verb, **given), options)

    async def aquery(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """Do what `query` does, with await."""
        verb, given = _asked(query, options)
        return self._result(query, await self._calls.wait(verb, **given), options)

    def _result(self, query: VectorStoreQuery, found: list[Any], options: dict[str, Any]) -> VectorStoreQueryResult:
        l2 = self._calls.of.metric == "l2"
        if _by_search(query):
            similarities = [1 / (1 + hit.score) if l2 else hit.score for hit in found]
        else:
            similarities, found = _ranked(query, found, self._calls.of.metric, options)
        return VectorStoreQueryResult(
            nodes=[_node(record) for record in found],
            similarities=similarities,
            ids=[str(record.id) for record in found],
        )


def _records(nodes: Sequence[BaseNode]) -> tuple[Any, ...]:
    """Return what `Collection.upsert` takes: ids, vectors, metadata, documents."""
    metadata = []
    for node in nodes:
        fields = node_to_metadata_dict(node, remove_text=True)
        fields[_NODE] = {"content": fields.pop("_node_content"), "type": fields.pop("_node_type")}
        metadata.append(fields)
    texts = [node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
    return [node.node_id for node in nodes], [node.get_embedding() for node in nodes], metadata, texts


def _node(record: Any) -> BaseNode:
    kept = record.metadata.get(_NODE)
    if not isinstance(kept, dict):
        raise InputError(f"record {record.id!r} is no node: it was not written by LlamaIndex")
    return metadata_dict_to_node(
        {"_node_content": kept["content"], "_node_type": kept["type"]}, text=record.document or None
    )


def _doomed(node_ids: list[str] | None, filters: MetadataFilters | None) -> dict[str, Any] | None:
    """Return what `Collection.delete` takes; None if the ids must be found first."""
    where = where_of(filters)
    if node_ids is None and where is None:
        raise InputError("give node_ids or filters; clear() deletes everything")
    if node_ids is not None and where is not None:
        return None
    return {"where": where} if node_ids is None else {"ids": node_ids}


# queries


def _by_search(query: VectorStoreQuery) -> bool:
    """Say whether a search of the collection answers a query; otherwise LlamaIndex ranks opened records.

    Retrievers give an empty list of ids where they mean any.
    """
    return not query.node_ids and query.mode not in _LEARNERS


def _asked(query: VectorStoreQuery, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the verb that answers a query, and its arguments."""
    known = {VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR, *_LEARNERS}
    if query.mode not in known:
        names = ", ".join(sorted(mode.value for mode in known))
        raise InputError(f"mode must be one of {names}, got {query.mode.value}")
    if query.query_embedding is None:
        raise InputError("query_embedding must be the query's embedding, got None")
    parts = [where_of(query.filters), {"ref_doc_id": {"in": query.doc_ids}} if query.doc_ids else None]
    parts = [part for part in parts if part is not None]
    where = {"and": parts} if parts else None
    if not _by_search(query):
        return "get", {"ids": query.node_ids or None, "where": where}
    given: dict[str, Any] = {"queries": query.query_embedding, "k": query.similarity_top_k, "where": where}
    if query.mode == VectorStoreQueryMode.MMR:
        given["diversity"] = 1 - _threshold(query, options)
        given["pool"] = options.get("mmr_prefetch_k") or _POOL * query.similarity_top_k
    return "search", given


def _threshold(query: VectorStoreQuery, options: dict[str, Any]) -> float:
    given = options.get("mmr_threshold", query.mmr_threshold)
    return 0.5 if given is None else float(given)


def _ranked(
    query: VectorStoreQuery, records: list[Any], metric: str, options: dict[str, Any]
) -> tuple[list[float], list[Any]]:
    """Rank opened records as LlamaIndex does."""

    def similarity(one: Any, other: Any) -> float:
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        match metric:
            case "l2":
                return float(1 / (1 + np.linalg.norm(one - other)))
            case "ip":
                return float(one @ other)
        return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))

    if not records:
        return [], []
    vectors = [record.vector.tolist() for record in records]
    given: dict[str, Any] = {
        "similarity_top_k": query.similarity_top_k,
        "embedding_ids": list(range(len(records))),
    }
    match query.mode:
        case VectorStoreQueryMode.DEFAULT:
            scores, places = get_top_k_embeddings(query.query_embedding, vectors, similarity, **given)
        case VectorStoreQueryMode.MMR:
            given["mmr_threshold"] = _threshold(query, options)
            scores, places = get_top_k_mmr_embeddings(query.query_embedding, vectors, similarity, **given)
        case mode:
            scores, places = get_top_k_embeddings_learner(query.query_embedding, vectors, query_mode=mode, **given)
    return [float(score) for score in scores], [records[place] for place in places]
