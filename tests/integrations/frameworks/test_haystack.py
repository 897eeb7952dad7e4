"""Haystack: its own suites, whole, over every kind of store; the retriever in pipelines; what the adapter adds."""

import datetime as dt

import numpy as np
import pytest
from haystack import Pipeline
from haystack.dataclasses import ByteStream, Document, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.testing import document_store as suite
from haystack.testing import document_store_async as async_suite

import encvec_store as ev
from encvec_store.integrations.haystack import EncvecDocumentStore, EncvecEmbeddingRetriever
from tests.kits.adapters import async_fresh, embedded, fresh, place, stores  # noqa: F401

pytestmark = pytest.mark.peers
DIM = 768  # as in the suites


class Equal:
    """Documents come in any order, with embeddings as float32: the suites leave this to each store."""

    @staticmethod
    def assert_documents_are_equal(received, expected):
        def plain(documents):
            found = {document.id: {**document.to_dict(flatten=False), "embedding": None} for document in documents}
            assert len(found) == len(documents)
            return found

        assert plain(received) == plain(expected)
        vectors = {document.id: document.embedding for document in expected}
        for document in received:
            if document.embedding is None or vectors[document.id] is None:
                assert document.embedding is vectors[document.id]
            else:
                np.testing.assert_allclose(document.embedding, vectors[document.id], rtol=1e-6)


class Sync(
    Equal,
    suite.DocumentStoreBaseExtendedTests,
    suite.CountDocumentsByFilterTest,
    suite.CountUniqueMetadataByFilterTest,
    suite.GetMetadataFieldsInfoTest,
    suite.GetMetadataFieldMinMaxTest,
    suite.GetMetadataFieldUniqueValuesTest,
):
    kind = None

    @pytest.fixture
    def document_store(self, fresh):  # noqa: F811
        return EncvecDocumentStore(fresh(self.kind, DIM))

    def test_write_documents(self, document_store):
        """The suite leaves the default policy to each store: here it is FAIL."""
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])
        self.assert_documents_are_equal(document_store.filter_documents(), [document])


class Async(
    Equal,
    async_suite.CountDocumentsAsyncTest,
    async_suite.CountDocumentsByFilterAsyncTest,
    async_suite.CountUniqueMetadataByFilterAsyncTest,
    async_suite.DeleteAllAsyncTest,
    async_suite.DeleteByFilterAsyncTest,
    async_suite.DeleteDocumentsAsyncTest,
    async_suite.FilterDocumentsAsyncTest,
    async_suite.GetMetadataFieldMinMaxAsyncTest,
    async_suite.GetMetadataFieldUniqueValuesAsyncTest,
    async_suite.GetMetadataFieldsInfoAsyncTest,
    async_suite.UpdateByFilterAsyncTest,
    async_suite.WriteDocumentsAsyncTest,
):
    kind = None

    @pytest.fixture
    async def document_store(self, async_fresh):  # noqa: F811
        return EncvecDocumentStore(await async_fresh(self.kind, DIM))

    async def test_write_documents_async(self, document_store):
        """As in `Sync`."""
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document])
        self.assert_documents_are_equal(await document_store.filter_documents_async(), [document])


class TestMemory(Sync):
    kind = "memory"


class TestFaiss(Sync):
    kind = "faiss"


class TestPostgres(Sync):
    kind = "postgresql"


class TestAsyncPostgres(Async):
    kind = "postgresql"


class TestAsyncInThreads(Async):
    @pytest.fixture
    def document_store(self, fresh):  # noqa: F811
        return EncvecDocumentStore(fresh("memory", DIM))


# ---------------------------------------------------------------------------------- beside the suites


TEXTS = ["the card was lost", "the card is blocked", "a transfer is late", "my card again"]


def written():
    return [
        Document(
            id=f"d{at}",
            content=text,
            meta={"year": 2023 + at, "odd": at % 2 == 1},
            embedding=embedded([text])[0].tolist(),
        )
        for at, text in enumerate(TEXTS)
    ]


QUERY = embedded(["the card"])[0].tolist()


def test_filters_find_what_the_store_in_memory_finds(fresh):  # noqa: F811
    documents = [
        Document(
            id=str(at),
            meta={
                key: value
                for key, value in {
                    "n": at % 5,
                    "word": ["a", "b", None][at % 3],
                    "day": f"20{20 + at % 4}-01-0{1 + at % 7}",
                    "nested": {"n": at % 4},
                }.items()
                if (at + len(key)) % 4
            },
        )
        for at in range(40)
    ]
    ours, theirs = EncvecDocumentStore(fresh("memory", 8)), InMemoryDocumentStore()
    for store in (ours, theirs):
        store.write_documents(documents)
    fields = {
        "meta.n": [0, 3, 2.5, None, [1, 2], [1, None]],
        "meta.word": ["a", None, ["a", "c"], [None], []],
        "meta.day": ["2021-01-03", None, ["2020-01-01"]],
        "meta.nested.n": [1, [2, 3]],
        "meta.absent": [1, None, [None]],
        "n": [1],
    }
    compared = 0
    comparisons = [
        {"field": field, "operator": operator, "value": value}
        for field, values in fields.items()
        for operator in ("==", "!=", ">", ">=", "<", "<=", "in", "not in")
        for value in values
    ]
    for filters in comparisons:
        try:
            expected = {document.id for document in theirs.filter_documents(filters)}
        except FilterError:
            if filters["field"] != "meta.day":  # what a collection holds does not decide there what is malformed here
                with pytest.raises(FilterError):
                    ours.filter_documents(filters)
            continue
        if filters["operator"] in (">", ">=", "<", "<=") and isinstance(filters["value"], list):
            with pytest.raises(FilterError):
                ours.filter_documents(filters)
            continue
        assert {document.id for document in ours.filter_documents(filters)} == expected, filters
        compared += 0 < len(expected) < 40
    assert compared > 40
    for operator in ("AND", "OR", "NOT"):
        for at in range(0, len(comparisons) - 40, 7):
            parts = [comparisons[at], {"operator": "NOT", "conditions": [comparisons[at + 24], comparisons[at + 33]]}]
            filters = {"operator": operator, "conditions": parts}
            try:
                expected = {document.id for document in theirs.filter_documents(filters)}
                found = {document.id for document in ours.filter_documents(filters)}
            except FilterError:
                continue
            assert found == expected, filters


@pytest.mark.parametrize(
    ("filters", "match"),
    [
        ("text", "must be a dictionary, got str"),
        ({"operator": "AND", "conditions": []}, "not empty"),
        ({"operator": "XOR", "conditions": [{"field": "meta.a", "operator": "==", "value": 1}]}, "AND, OR or NOT"),
        ({"field": "meta.a", "operator": "like", "value": "x"}, "must be one of ==, .* got 'like'"),
        ({"field": "content", "operator": "==", "value": "x"}, "must be a field of the metadata"),
        ({"field": "meta.a", "operator": ">", "value": True}, "got bool"),
        ({"field": "meta.a", "operator": "==", "value": object()}, "object"),
    ],
)
def test_malformed_filters(fresh, filters, match):  # noqa: F811
    store = EncvecDocumentStore(fresh("memory", 8))
    for call in (store.filter_documents, store.delete_by_filter, store.count_documents_by_filter):
        with pytest.raises(FilterError, match=match):
            call(filters)
    with pytest.raises(FilterError, match=match):
        store.search_embedding([1.0] * 8, filters)


def test_dates_have_an_order(fresh):  # noqa: F811
    store = EncvecDocumentStore(fresh("memory", 8))
    day, moment = dt.date(2024, 5, 1), dt.datetime(2024, 5, 2, 12)
    store.write_documents([Document(id="date", meta={"at": day}), Document(id="time", meta={"at": moment})])
    store.write_documents([Document(id="text", meta={"at": "2024-05-03"})])
    after = [
        [found.id for found in store.filter_documents({"field": "meta.at", "operator": ">=", "value": value})]
        for value in ("2024-05-02", dt.date(2024, 5, 2), "2024-05-01")
    ]
    assert [sorted(names) for names in after] == [["text", "time"], ["text", "time"], ["date", "text", "time"]]


def test_what_is_given_comes_back(fresh):  # noqa: F811
    """Bytes, sparse embeddings, scores, types; the caller's documents are not changed."""
    store = EncvecDocumentStore(fresh("faiss", 8))
    documents = [
        Document(
            id="full",
            content="x",
            blob=ByteStream(b"\0\xff", meta={"a": 1}, mime_type="image/png"),
            meta={"n": 1, "x": 1.0, "list": [1, "a"], "dict": {"a": None}, "none": None},
            score=0.5,
            embedding=[1.0] * 8,
            sparse_embedding=SparseEmbedding(indices=[1, 5], values=[0.25, 2.0]),
        ),
        Document(id="bare", blob=ByteStream(b"only")),
    ]
    before = [document.to_dict() for document in documents]
    store.write_documents(documents)
    assert [document.to_dict() for document in documents] == before
    assert sorted(store.filter_documents(), key=lambda document: document.id)[::-1] == documents
    assert store.get_metadata_fields_info().keys() == {"n", "x", "list", "dict"}


def test_policies_within_a_batch(fresh):  # noqa: F811
    store = EncvecDocumentStore(fresh("memory", 8))
    twice = [Document(id="a", content="first"), Document(id="a", content="last"), Document(id="b")]
    with pytest.raises(DuplicateDocumentError, match="'a' exists already"):
        store.write_documents(twice)
    assert store.count_documents() == 0
    assert store.write_documents(twice, DuplicatePolicy.SKIP) == 2
    assert store.collection.get(["a"])[0].document == "first"
    assert store.write_documents(twice, DuplicatePolicy.OVERWRITE) == 3
    assert store.collection.get(["a"])[0].document == "last"
    assert store.write_documents([]) == 0


async def test_the_retriever(fresh, async_fresh):  # noqa: F811
    """As the store in memory finds; documents without an embedding are left out, also where they would be nearest."""
    ours, awaited, theirs = (
        EncvecDocumentStore(fresh("memory", 64)),
        EncvecDocumentStore(await async_fresh("postgresql", 64)),
        InMemoryDocumentStore(embedding_similarity_function="cosine"),
    )
    for store in (ours, theirs):
        store.write_documents(written())
    await awaited.write_documents_async(written())
    recent = {"field": "meta.year", "operator": ">", "value": 2023}
    retriever = EncvecEmbeddingRetriever(ours, filters=recent, top_k=3, filter_policy="merge")
    pipeline = Pipeline()
    pipeline.add_component("retriever", retriever)
    for filters in (None, {"field": "meta.odd", "operator": "==", "value": True}):
        both = recent if filters is None else {"operator": "AND", "conditions": [recent, filters]}
        expected = theirs.embedding_retrieval(QUERY, both, top_k=3, return_embedding=False)
        given = {"retriever": {"query_embedding": QUERY, "filters": filters}}
        found = pipeline.run(given)["retriever"]["documents"]
        assert [document.id for document in found] == [document.id for document in expected]
        np.testing.assert_allclose([each.score for each in found], [each.score for each in expected], atol=1e-6)
        assert found[0].embedding is None
        later = EncvecEmbeddingRetriever(awaited, filters=recent, top_k=3, filter_policy="merge")
        assert (await later.run_async(QUERY, filters))["documents"] == found
        assert (await pipeline.run_async(given))["retriever"]["documents"] == found
    ours.write_documents([Document(id=f"bare{at}", content="no embedding", meta={"year": 2030}) for at in range(5)])
    stand_in = [1.0, *[0.0] * 63]
    found = ours.search_embedding(stand_in, recent, top_k=4, return_embedding=True)
    assert {document.id for document in found} == {"d1", "d2", "d3"}
    assert len(found[0].embedding) == 64
    l2 = EncvecDocumentStore(fresh("memory", 64, metric="l2"))
    l2.write_documents(written())
    scores = [document.score for document in l2.search_embedding(QUERY)]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] < scores[0] <= 1
    with pytest.raises(ev.errors.InputError, match="must be an EncvecDocumentStore, got InMemoryDocumentStore"):
        EncvecEmbeddingRetriever(theirs)


OPENED = {}


def open_documents():
    """Open the collection of a saved pipeline."""
    return OPENED["collection"]


def test_a_pipeline_is_saved_without_address_and_keys(fresh):  # noqa: F811
    OPENED["collection"] = fresh("memory", 64)
    pipeline = Pipeline()
    pipeline.add_component("retriever", EncvecEmbeddingRetriever(EncvecDocumentStore(open_documents), top_k=2))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["encvec_store.integrations.haystack.*", __name__])
    retriever = again.get_component("retriever")
    assert retriever.top_k == 2
    assert retriever.document_store.collection is OPENED["collection"]
    with pytest.raises(ev.errors.InputError, match="made of a function can be saved"):
        EncvecDocumentStore(OPENED["collection"]).to_dict()
