"""LangChain: a collection as a `VectorStore`.

    from encvec_store.integrations.langchain import EncvecVectorStore

    texts = EncvecVectorStore(store.collection("texts", dim=384), embedding)
    texts.add_documents(documents)
    retriever = texts.as_retriever(search_kwargs={"k": 5, "filter": {"lang": "de"}})

Needs the extra `langchain`.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
except ImportError as error:
    raise ImportError(f"this needs langchain-core ({error}): pip install 'encvec-store[langchain]'") from None

from .. import Collection, Hit, Store
from ..aio import AsyncCollection, AsyncStore
from ..errors import InputError
from .calls import Calls

__all__ = ["EncvecVectorStore"]

Where = Mapping[str, Any] | None


class EncvecVectorStore(VectorStore):
    """A LangChain vector store over one collection. Texts are documents, metadata is metadata, ids stay as given.

    Scores are those of the collection: cosine and inner product, larger is nearer; l2, smaller is nearer.

    Args:
        collection: a `Collection`, or an `AsyncCollection`, whose async methods alone can be used. With a `Collection`
            the async methods work too, in worker threads.
        embedding: makes vectors of texts, as long as the collection's `dim`.
        relevance_score_fn: turns a score into a relevance from 0 to 1, for score thresholds. By default a cosine is its
            own relevance (0 if it is negative), and a distance d under l2 has 1 - d / sqrt(2), at least 0.

    Every search takes `filter`, a mapping as `where` of `Collection.search`, and the options of that method:
    `offset`, `threshold`, `group_by`, `group_size`, `diversity`, `pool`.
    """

    def __init__(
        self,
        collection: Collection | AsyncCollection,
        embedding: Embeddings,
        *,
        relevance_score_fn: Callable[[float], float] | None = None,
    ) -> None:
        self._calls = Calls(collection)
        self._embedding = embedding
        self._relevance = relevance_score_fn

    @property
    def collection(self) -> Collection | AsyncCollection:
        """The collection."""
        return self._calls.of

    @property
    def embeddings(self) -> Embeddings:
        """What makes vectors of texts."""
        return self._embedding

    # write

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
    ) -> list[str]:
        """Embed and write texts, all or nothing. Returns their ids; a text without an id gets a random one.

        Args:
            texts: n texts.
            metadatas: n mappings.
            ids: n distinct ids. A record whose id exists is replaced.
            batch_size: not used: a write is one batch. LangChain's indexing API passes it, and splits by itself.

        Raises:
            InputError: lists of different lengths, an id given twice, a value that metadata cannot hold.
        """
        texts, names = _batch(texts, ids)
        if texts:
            self._calls.now("upsert", names, self._embedding.embed_documents(texts), metadatas, texts)
        return names

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
    ) -> list[str]:
        """Do what `add_texts` does, with await."""
        texts, names = _batch(texts, ids)
        if texts:
            await self._calls.wait("upsert", names, await self._embedding.aembed_documents(texts), metadatas, texts)
        return names

    def delete(self, ids: Sequence[str] | None = None, *, filter: Where = None) -> bool:
        """Delete by id or by filter; without both, everything. Unknown ids are no error."""
        self._calls.now("delete", **_chosen(ids, filter) or {"ids": self._calls.ids()})
        return True

    async def adelete(self, ids: Sequence[str] | None = None, *, filter: Where = None) -> bool:
        """Do what `delete` does, with await."""
        await self._calls.wait("delete", **_chosen(ids, filter) or {"ids": await self._calls.ids_later()})
        return True

    # read

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents of these ids, in this order. Unknown ids are left out."""
        return _documents(self._calls.now("get", list(ids), include_vectors=False))

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Do what `get_by_ids` does, with await."""
        return _documents(await self._calls.wait("get", list(ids), include_vectors=False))

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """Return the k documents nearest to a text, nearest first."""
        return _documents(self._search(self._embedding.embed_query(query), k, options))

    async def asimilarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """Do what `similarity_search` does, with await."""
        return _documents(await self._asearch(await self._embedding.aembed_query(query), k, options))

    def similarity_search_with_score(self, query: str, k: int = 4, **options: Any) -> list[tuple[Document, float]]:
        """Return the k documents nearest to a text, nearest first, with their scores."""
        return self.similarity_search_by_vector_with_score(self._embedding.embed_query(query), k, **options)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """Do what `similarity_search_with_score` does, with await."""
        vector = await self._embedding.aembed_query(query)
        return await self.asimilarity_search_by_vector_with_score(vector, k, **options)

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **options: Any) -> list[Document]:
        """Return the k documents nearest to a vector, nearest first."""
        return _documents(self._search(embedding, k, options))

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **options: Any) -> list[Document]:
        """Do what `similarity_search_by_vector` does, with await."""
        return _documents(await self._asearch(embedding, k, options))

    def similarity_search_by_vector_with_score(
        self, embedding: list[float], k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """Return the k documents nearest to a vector, nearest first, with their scores."""
        return _scored(self._search(embedding, k, options))

    async def asimilarity_search_by_vector_with_score(
        self, embedding: list[float], k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """Do what `similarity_search_by_vector_with_score` does, with await."""
        return _scored(await self._asearch(embedding, k, options))

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """Choose k of the `fetch_k` nearest documents, near the text and unlike each other.

        Args:
            query: a text.
            k: how many.
            fetch_k: the nearest to choose from.
            lambda_mult: from 0, most diverse, to 1, nearest.
            options: `filter`, and those of `Collection.search`.
        """
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **options)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """Do what `max_marginal_relevance_search` does, with await."""
        vector = await self._embedding.aembed_query(query)
        return await self.amax_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **options)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """Do what `max_marginal_relevance_search` does, near a vector."""
        return _documents(self._search(embedding, k, _diverse(k, fetch_k, lambda_mult, options)))

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """Do what `max_marginal_relevance_search_by_vector` does, with await."""
        return _documents(await self._asearch(embedding, k, _diverse(k, fetch_k, lambda_mult, options)))

    def _search(self, vector: list[float], k: int, options: dict[str, Any]) -> list[Hit]:
        hits: list[Hit] = self._calls.now("search", vector, k, options.pop("filter", None), **options)
        return hits

    async def _asearch(self, vector: list[float], k: int, options: dict[str, Any]) -> list[Hit]:
        hits: list[Hit] = await self._calls.wait("search", vector, k, options.pop("filter", None), **options)
        return hits

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self._relevance is not None:
            return self._relevance
        match self._calls.of.metric:
            case "cosine":
                return lambda score: max(0.0, score)
            case "l2":
                return lambda distance: max(0.0, 1 - distance / math.sqrt(2))
        raise InputError("inner products have no relevance from 0 to 1: give relevance_score_fn")

    # make

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        collection: Collection | None = None,
        store: Store | None = None,
        name: str = "langchain",
        relevance_score_fn: Callable[[float], float] | None = None,
        **options: Any,
    ) -> EncvecVectorStore:
        """Write texts to a collection, which is made if it does not exist, and return the vector store over it.

        Args:
            texts: n texts.
            embedding: makes vectors of texts.
            metadatas: n mappings.
            ids: n distinct ids.
            collection: where to write; or give `store`.
            store: the store that has the collection, or gets it.
            name: the collection's name in `store`.
            relevance_score_fn: as for the class.
            options: of `Store.collection`, such as `tenant`, `metric`, `fields`.
        """
        if collection is None:
            if not isinstance(store, Store):
                raise _nowhere("Store", store)
            dim = options.pop("dim", None) or len(embedding.embed_query("dim"))
            collection = store.collection(name, dim, **options)
            options = {}
        _none(options)
        made = cls(collection, embedding, relevance_score_fn=relevance_score_fn)
        made.add_texts(texts, metadatas, ids=ids)
        return made

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        collection: Collection | AsyncCollection | None = None,
        store: Store | AsyncStore | None = None,
        name: str = "langchain",
        relevance_score_fn: Callable[[float], float] | None = None,
        **options: Any,
    ) -> EncvecVectorStore:
        """Do what `from_texts` does, with await; also in an `AsyncStore`."""
        if collection is None:
            if not isinstance(store, Store | AsyncStore):
                raise _nowhere("Store or an AsyncStore", store)
            dim = options.pop("dim", None) or len(await embedding.aembed_query("dim"))
            if isinstance(store, AsyncStore):
                collection = await store.collection(name, dim, **options)
            else:
                collection = await asyncio.to_thread(store.collection, name, dim, **options)
            options = {}
        _none(options)
        made = cls(collection, embedding, relevance_score_fn=relevance_score_fn)
        await made.aadd_texts(texts, metadatas, ids=ids)
        return made


def _batch(texts: Iterable[str], ids: Sequence[str | None] | None) -> tuple[list[str], list[str]]:
    """Return the texts as a list, and an id for each."""
    texts = list(texts)
    given = [None] * len(texts) if ids is None else list(ids)
    if len(given) != len(texts):
        raise InputError(f"ids must be a list of {len(texts)} ids, one for each text, got {len(given)}")
    return texts, [str(uuid.uuid4()) if name is None else name for name in given]


def _none(options: dict[str, Any]) -> None:
    if options:
        raise TypeError(f"unknown options: {', '.join(sorted(options))}")


def _chosen(ids: Sequence[str] | None, filter: Where) -> dict[str, Any]:
    """Return what `Collection.delete` takes; nothing if neither is given."""
    given = {"ids": None if ids is None else list(ids), "where": filter}
    return {name: value for name, value in given.items() if value is not None}


def _diverse(k: int, fetch_k: int, lambda_mult: float, options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "diversity": 1 - lambda_mult, "pool": max(k, fetch_k)}


def _documents(records: Iterable[Any]) -> list[Document]:
    """Make documents of records or hits."""
    return [
        Document(id=str(record.id), page_content=record.document or "", metadata=record.metadata) for record in records
    ]


def _scored(hits: list[Hit]) -> list[tuple[Document, float]]:
    return list(zip(_documents(hits), [hit.score for hit in hits], strict=True))


def _nowhere(what: str, store: object) -> InputError:
    return InputError(f"give a collection, or a {what} of encvec_store as store, got {type(store).__name__}")
