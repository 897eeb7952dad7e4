"""The document store: each method is written once, as steps, and taken with and without await."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from haystack import default_from_dict, default_to_dict
from haystack.dataclasses import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.utils import deserialize_callable, serialize_callable

from ... import Collection, errors
from ...aio import AsyncCollection
from ..calls import Calls, Steps
from .documents import BARE, document_of, meta_of, record_parts
from .filters import field_of, where_of
from .summaries import kinds, least_and_most, unique

__all__ = ["EncvecDocumentStore"]

Filters = dict[str, Any] | None


class EncvecDocumentStore:
    """A Haystack document store over one collection. Content is the document, meta is metadata, ids stay as given.

    Args:
        collection: a `Collection`; or an `AsyncCollection`, whose async methods alone can be used; or a function that
            opens a `Collection`. A store is saved in a pipeline's YAML by the name of that function, which must be
            importable: no address and no key is written there. With a `Collection` the async methods work too, in
            worker threads.

    Documents may lack an embedding. Searches leave those out. Filters name fields of `meta`.
    """

    def __init__(self, collection: Collection | AsyncCollection | Callable[[], Collection]) -> None:
        self._opens = collection if callable(collection) else None
        self._opened = None if callable(collection) else Calls(collection)

    @property
    def _calls(self) -> Calls:
        if self._opened is None:
            assert self._opens is not None  # noqa: S101
            self._opened = Calls(self._opens())
        return self._opened

    @property
    def collection(self) -> Collection | AsyncCollection:
        """The collection."""
        return self._calls.of

    def to_dict(self) -> dict[str, Any]:
        """Return the name of the function that opens the collection.

        Raises:
            InputError: the store was made of an open collection.
        """
        if self._opens is None:
            raise errors.InputError(
                "only a store that was made of a function can be saved: EncvecDocumentStore(open_documents), where"
                " open_documents() returns a Collection"
            )
        saved: dict[str, Any] = default_to_dict(self, collection=serialize_callable(self._opens))
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EncvecDocumentStore:
        """Make the store of what `to_dict` returned."""
        parameters = {"collection": deserialize_callable(data["init_parameters"]["collection"])}
        made: EncvecDocumentStore = default_from_dict(cls, {**data, "init_parameters": parameters})
        return made

    # count

    def count_documents(self) -> int:
        """Count the documents."""
        return self._calls.take(_count(None))

    async def count_documents_async(self) -> int:
        """Do what `count_documents` does, with await."""
        return await self._calls.take_later(_count(None))

    def count_documents_by_filter(self, filters: Filters) -> int:
        """Count the documents that satisfy a filter."""
        return self._calls.take(_count(filters))

    async def count_documents_by_filter_async(self, filters: Filters) -> int:
        """Do what `count_documents_by_filter` does, with await."""
        return await self._calls.take_later(_count(filters))

    # write

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Write documents, all or nothing, and return how many. The policy NONE means FAIL.

        Between the look for ids that exist and the write, another writer may write them; under FAIL and SKIP they are
        then replaced.

        Raises:
            ValueError: not a list of documents, or a value that metadata cannot hold.
            DuplicateDocumentError: under FAIL, an id exists or is given twice. Nothing was written.
        """
        return self._calls.take(_write(documents, policy, lambda: self.collection.dim))

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Do what `write_documents` does, with await."""
        return await self._calls.take_later(_write(documents, policy, lambda: self.collection.dim))

    def update_by_filter(self, filters: Filters, meta: dict[str, Any]) -> int:
        """Set keys of the meta of all documents that satisfy a filter, and return how many."""
        return self._calls.take(_update(filters, meta))

    async def update_by_filter_async(self, filters: Filters, meta: dict[str, Any]) -> int:
        """Do what `update_by_filter` does, with await."""
        return await self._calls.take_later(_update(filters, meta))

    # delete

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents by id. Unknown ids are no error."""
        self._calls.now("delete", list(document_ids))

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """Do what `delete_documents` does, with await."""
        await self._calls.wait("delete", list(document_ids))

    def delete_by_filter(self, filters: Filters) -> int:
        """Delete the documents that satisfy a filter, which must not be empty, and return how many."""
        return self._calls.take(_delete(filters))

    async def delete_by_filter_async(self, filters: Filters) -> int:
        """Do what `delete_by_filter` does, with await."""
        return await self._calls.take_later(_delete(filters))

    def delete_all_documents(self) -> None:
        """Delete all documents."""
        self._calls.take(_delete_all())

    async def delete_all_documents_async(self) -> None:
        """Do what `delete_all_documents` does, with await."""
        await self._calls.take_later(_delete_all())

    # read

    def filter_documents(self, filters: Filters = None) -> list[Document]:
        """Return the documents that satisfy a filter, with their embeddings (as float32), oldest writes first.

        Those of one write come in any order: a store must not learn the order they were given in.

        Raises:
            FilterError: malformed filter.
        """
        return self._calls.take(_filter(filters))

    async def filter_documents_async(self, filters: Filters = None) -> list[Document]:
        """Do what `filter_documents` does, with await."""
        return await self._calls.take_later(_filter(filters))

    def search_embedding(
        self, query_embedding: list[float], filters: Filters = None, top_k: int = 10, *, return_embedding: bool = False
    ) -> list[Document]:
        """Return the `top_k` documents nearest to an embedding, nearest first.

        Scores are cosines or inner products; under l2, 1 / (1 + distance), so that larger is nearer.
        """
        steps = _search(query_embedding, filters, top_k, self.collection.metric, return_embedding=return_embedding)
        return self._calls.take(steps)

    async def search_embedding_async(
        self, query_embedding: list[float], filters: Filters = None, top_k: int = 10, *, return_embedding: bool = False
    ) -> list[Document]:
        """Do what `search_embedding` does, with await."""
        steps = _search(query_embedding, filters, top_k, self.collection.metric, return_embedding=return_embedding)
        return await self._calls.take_later(steps)

    # metadata

    def count_unique_metadata_by_filter(self, filters: Filters, metadata_fields: list[str]) -> dict[str, int]:
        """Count the distinct values of fields, over the documents that satisfy a filter."""
        return self._calls.take(_count_unique(filters, metadata_fields))

    async def count_unique_metadata_by_filter_async(
        self, filters: Filters, metadata_fields: list[str]
    ) -> dict[str, int]:
        """Do what `count_unique_metadata_by_filter` does, with await."""
        return await self._calls.take_later(_count_unique(filters, metadata_fields))

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """Return the kind of values of each field, by name: {"type": ...}."""
        return self._calls.take(_info())

    async def get_metadata_fields_info_async(self) -> dict[str, dict[str, str]]:
        """Do what `get_metadata_fields_info` does, with await."""
        return await self._calls.take_later(_info())

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """Return the least and the largest value of a field: numbers if it has any, else text. None if it has none."""
        return self._calls.take(_min_max(metadata_field))

    async def get_metadata_field_min_max_async(self, metadata_field: str) -> dict[str, Any]:
        """Do what `get_metadata_field_min_max` does, with await."""
        return await self._calls.take_later(_min_max(metadata_field))

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int | None = 10,
        filters: Filters = None,
    ) -> tuple[list[Any], int]:
        """Return a page of the distinct values of a field, sorted, and how many there are.

        Args:
            metadata_field: its name, with or without "meta.".
            search_term: only values with this in their text, whatever the case.
            from_: how many to skip.
            size: how many to return; None means all.
            filters: only of documents that satisfy this filter.
        """
        return self._calls.take(_unique_values(metadata_field, search_term, from_, size, filters))

    async def get_metadata_field_unique_values_async(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int | None = 10,
        filters: Filters = None,
    ) -> tuple[list[Any], int]:
        """Do what `get_metadata_field_unique_values` does, with await."""
        return await self._calls.take_later(_unique_values(metadata_field, search_term, from_, size, filters))


def _filtered(filters: Filters, verb: str, **options: Any) -> Steps[Any]:
    """Call a verb with a filter. Raises Haystack's FilterError also for what the collection refuses."""
    try:
        return (yield verb, {"where": where_of(filters), **options})
    except errors.FilterError as error:
        raise FilterError(str(error)) from error


def _count(filters: Filters) -> Steps[int]:
    return int((yield from _filtered(filters, "count")))


def _write(documents: Any, policy: DuplicatePolicy, dim: Callable[[], int]) -> Steps[int]:
    if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
        raise ValueError("documents must be a list of Documents")
    if not documents:
        return 0
    chosen: dict[str, Document] = {}
    known: set[Any] = set()
    if policy is not DuplicatePolicy.OVERWRITE:
        ids = list({document.id: None for document in documents})
        known = {record.id for record in (yield "get", {"ids": ids, "include_vectors": False})}
    for document in documents:
        if policy is DuplicatePolicy.OVERWRITE or document.id not in known | chosen.keys():
            chosen[document.id] = document
        elif policy is not DuplicatePolicy.SKIP:
            raise DuplicateDocumentError(f"a document with the id {document.id!r} exists already")
    if chosen:
        yield "upsert", record_parts(list(chosen.values()), dim())
    return len(documents) if policy is DuplicatePolicy.OVERWRITE else len(chosen)


def _update(filters: Filters, meta: dict[str, Any]) -> Steps[int]:
    if not isinstance(meta, dict) or not meta:
        raise ValueError("meta must be a dictionary of the keys to set")
    return int((yield from _filtered(filters or None, "update", metadata=meta)))


def _delete(filters: Filters) -> Steps[int]:
    if not filters:
        raise FilterError("the filter must not be empty; delete_all_documents() deletes everything")
    return int((yield from _filtered(filters, "delete")))


def _delete_all() -> Steps[None]:
    records = yield "records", {"include_vectors": False}
    yield "delete", {"ids": [record.id for record in records]}


def _filter(filters: Filters) -> Steps[list[Document]]:
    return [document_of(record) for record in (yield from _filtered(filters, "get"))]


def _search(
    embedding: Sequence[float], filters: Filters, top_k: int, metric: str, *, return_embedding: bool
) -> Steps[list[Document]]:
    given: dict[str, Any] = {"queries": embedding, "k": top_k, "include_vectors": return_embedding}
    hits = yield from _filtered(filters, "search", **given)
    if any(hit.metadata.get(BARE) for hit in hits):  # rare: so the filter is added only then
        both = {"and": [{"not": {BARE: True}}, *([where_of(filters)] if filters else [])]}
        hits = yield "search", {"where": both, **given}
    return [document_of(hit, 1 / (1 + hit.score) if metric == "l2" else hit.score) for hit in hits]


def _metas(filters: Filters) -> Steps[list[dict[str, Any]]]:
    return [meta_of(record) for record in (yield from _filtered(filters, "records", include_vectors=False))]


def _count_unique(filters: Filters, fields: list[str]) -> Steps[dict[str, int]]:
    metas = yield from _metas(filters)
    return {name: len(unique(metas, field_of(name))) for name in fields}


def _info() -> Steps[dict[str, dict[str, str]]]:
    return kinds((yield from _metas(None)))


def _min_max(field: str) -> Steps[dict[str, Any]]:
    least, most = least_and_most((yield from _metas(None)), field_of(field))
    return {"min": least, "max": most}


def _unique_values(
    field: str, term: str | None, skip: int, size: int | None, filters: Filters
) -> Steps[tuple[list[Any], int]]:
    values = unique((yield from _metas(filters)), field_of(field))
    if term:
        values = [value for value in values if term.lower() in str(value).lower()]
    return values[skip : None if size is None else skip + size], len(values)
