"""LangChain: its own suite, whole, over every kind of store; the indexing API; what the adapter adds."""

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests.vectorstores import EMBEDDING_SIZE, VectorStoreIntegrationTests

import encvec_store as ev
from encvec_store.integrations.langchain import EncvecVectorStore
from tests.kits.adapters import async_fresh, embedded, fresh, place, stores  # noqa: F401

pytestmark = pytest.mark.peers
TEXTS = ["the cat sat", "the cat ran", "a dog ran", "stars are far", "the cat sat down"]
DOCUMENTS = [Document(id=f"d{n}", page_content=text, metadata={"n": n, "tags": ["x"]}) for n, text in enumerate(TEXTS)]


class Words(Embeddings):
    """Vectors of words, without a model."""

    def embed_documents(self, texts):
        return embedded(texts).tolist()

    def embed_query(self, text):
        return self.embed_documents([text])[0]


class OverCollection(VectorStoreIntegrationTests):
    kind = None

    @pytest.fixture
    def vectorstore(self, fresh):  # noqa: F811
        return EncvecVectorStore(fresh(self.kind, EMBEDDING_SIZE), self.get_embeddings())


class TestMemory(OverCollection):
    kind = "memory"


class TestFaiss(OverCollection):
    kind = "faiss"


class TestPostgres(OverCollection):
    kind = "postgresql"


class OverAsyncCollection(VectorStoreIntegrationTests):
    kind, has_sync = None, False

    @pytest.fixture
    async def vectorstore(self, async_fresh):  # noqa: F811
        return EncvecVectorStore(await async_fresh(self.kind, EMBEDDING_SIZE), self.get_embeddings())


class TestAsyncFaiss(OverAsyncCollection):
    kind = "faiss"


class TestAsyncPostgres(OverAsyncCollection):
    kind = "postgresql"


@pytest.fixture
def filled(fresh):  # noqa: F811
    made = EncvecVectorStore(fresh("memory", 64), Words())
    assert made.add_documents(DOCUMENTS) == [document.id for document in DOCUMENTS]
    return made


@pytest.fixture
async def filled_async(async_fresh):  # noqa: F811
    made = EncvecVectorStore(await async_fresh("postgresql", 64), Words())
    await made.aadd_documents(DOCUMENTS)
    return made


@pytest.fixture
def plain():
    """LangChain's own store in memory, with the same documents."""
    made = InMemoryVectorStore(Words())
    made.add_documents(DOCUMENTS)
    return made


async def test_answers_are_those_of_the_store_in_memory(filled, filled_async, plain):
    """Scores, vectors, filters and MMR, called in every way."""
    vector = Words().embed_query("the cat ran")
    expected = plain.similarity_search_with_score("the cat ran", k=4)

    def same(found):
        assert [(document, round(score, 5)) for document, score in found] == [
            (document, round(score, 5)) for document, score in expected
        ]

    same(filled.similarity_search_with_score("the cat ran", k=4))
    same(filled.similarity_search_by_vector_with_score(vector, k=4))
    same(await filled.asimilarity_search_with_score("the cat ran", k=4))
    same(await filled_async.asimilarity_search_by_vector_with_score(vector, k=4))
    same(await filled_async.asimilarity_search_with_relevance_scores("the cat ran", k=4))
    nearest = [document for document, _ in expected]
    assert filled.similarity_search_by_vector(vector) == nearest == await filled.asimilarity_search_by_vector(vector)
    odd = plain.similarity_search("the cat ran", filter=lambda document: document.metadata["n"] in (1, 3))
    where = {"n": {"$in": [1, 3]}, "tags": {"any": ["x"]}}
    assert filled.similarity_search("the cat ran", filter=where) == odd
    assert await filled_async.asimilarity_search("the cat ran", filter=where) == odd
    for share in (0.0, 0.3, 0.7, 1.0):
        how = {"k": 3, "fetch_k": 5, "lambda_mult": share}
        diverse = plain.max_marginal_relevance_search("the cat ran", **how)
        assert filled.max_marginal_relevance_search("the cat ran", **how) == diverse
        assert await filled_async.amax_marginal_relevance_search("the cat ran", **how) == diverse
        assert filled.max_marginal_relevance_search_by_vector(vector, **how) == diverse


async def test_retrievers(filled, filled_async):
    wanted = {"filter": {"n": {"lt": 3}}, "k": 2}
    found = filled.as_retriever(search_kwargs=wanted).invoke("a dog")
    assert [document.id for document in found] == ["d2", "d1"] or found[0].id == "d2"
    assert found == await filled_async.as_retriever(search_kwargs=wanted).ainvoke("a dog")
    strict = {"search_type": "similarity_score_threshold", "search_kwargs": {"score_threshold": 0.9}}
    assert [document.id for document in filled.as_retriever(**strict).invoke("stars are far")] == ["d3"]
    varied = {"search_type": "mmr", "search_kwargs": {"k": 2, "lambda_mult": 0.1}}
    first, second = await filled_async.as_retriever(**varied).ainvoke("the cat sat")
    assert first.id == "d0"
    assert second.id in ("d2", "d3"), "the most different ones"


async def test_the_indexing_api(fresh, async_fresh):  # noqa: F811
    """A record manager, with every cleanup: what is gone from the source goes from the store."""
    managed = InMemoryRecordManager("docs")
    managed.create_schema()

    def documents(*texts):
        return [Document(page_content=text, metadata={"source": text.split()[0]}) for text in texts]

    stored = EncvecVectorStore(fresh("faiss", 64), Words())
    awaited = EncvecVectorStore(await async_fresh("postgresql", 64), Words())
    steps = [
        (documents("a one", "a two", "b one"), "incremental", (3, 0, 0)),
        (documents("a one", "a two", "b one"), "incremental", (0, 3, 0)),
        (documents("a one", "a three"), "incremental", (1, 1, 1)),
        (documents("c one"), "full", (1, 0, 3)),
        ([], "full", (0, 0, 1)),
    ]
    for given, cleanup, counts in steps:
        told = index(given, managed, stored, cleanup=cleanup, source_id_key="source", key_encoder="sha256")
        assert (told["num_added"], told["num_skipped"], told["num_deleted"]) == counts
    assert stored.collection.count() == 0
    later = InMemoryRecordManager("later")
    for given, cleanup, counts in steps:
        told = await aindex(given, later, awaited, cleanup=cleanup, source_id_key="source", key_encoder="sha256")
        assert (told["num_added"], told["num_skipped"], told["num_deleted"]) == counts
    assert await awaited.collection.count() == 0


async def test_made_from_texts(stores, place):  # noqa: F811
    """In a store: the collection is made with the embedding's dimension, and found again."""
    store = stores("memory")
    made = EncvecVectorStore.from_texts(
        TEXTS[:2], Words(), [{"n": 0}, {"n": 1}], ids=["a", "b"], store=store, name="made", tenant="acme"
    )
    assert (made.collection.dim, made.collection.tenant) == (64, "acme")
    again = EncvecVectorStore.from_documents(DOCUMENTS, Words(), collection=made.collection)
    assert again.collection.count() == 7
    more = await EncvecVectorStore.afrom_texts(["new"], Words(), store=store, name="made", tenant="acme")
    assert (await more.aget_by_ids(["a"]))[0].page_content == TEXTS[0]
    async with ev.aio.connect(**place("faiss")) as other:
        found = await EncvecVectorStore.afrom_documents(DOCUMENTS, Words(), store=other, name="awaited")
        assert await found.collection.count() == 5
        with pytest.raises(ev.errors.InputError, match="await the async methods"):
            found.similarity_search("cat")
    with pytest.raises(ev.errors.InputError, match="give a collection, or a Store"):
        EncvecVectorStore.from_texts(["a"], Words())
    with pytest.raises(ev.errors.InputError, match="must be a Collection or an AsyncCollection, got Store"):
        EncvecVectorStore(store, Words())


async def test_ids_and_deletes(filled, filled_async):
    """Ids stay as given and random ones are given to the rest; unknown ids are no error."""
    names = filled.add_texts(["x", "y"], ids=["mine", None])
    assert names[0] == "mine"
    assert [document.id for document in filled.get_by_ids([names[1], "unknown", "mine"])] == [names[1], "mine"]
    with pytest.raises(ev.errors.DuplicateIdError):
        filled.add_texts(["x", "y"], ids=["same", "same"])
    with pytest.raises(ev.errors.InputError, match="one for each text, got 1"):
        filled.add_texts(["x", "y"], ids=["same"])
    with pytest.raises(TypeError, match="colour"):
        filled.add_texts(["x"], colour=7)
    assert filled.add_texts([]) == []
    assert filled.delete(filter={"n": {"gte": 3}})
    assert filled.collection.count() == 5
    assert filled.delete(["unknown", "mine"])
    assert filled.delete([])
    assert filled.collection.count() == 4
    assert filled.delete()
    assert filled.collection.count() == 0
    assert await filled_async.adelete(filter={"n": 0})
    assert await filled_async.adelete(["unknown"])
    assert await filled_async.collection.count() == 4
    assert await filled_async.adelete()
    assert await filled_async.collection.count() == 0


def test_relevance_of_every_metric(fresh):  # noqa: F811
    by_l2 = EncvecVectorStore(fresh("memory", 64, metric="l2"), Words())
    by_l2.add_texts(["the cat", "the cat and moon"])
    (_, near), (_, far) = by_l2.similarity_search_with_relevance_scores("the cat", k=2)
    distance = np.linalg.norm(np.subtract(*embedded(["the cat", "the cat and moon"])))
    assert (near, far) == (1.0, pytest.approx(1 - distance / 2**0.5, abs=1e-6))
    by_ip = EncvecVectorStore(fresh("memory", 64, metric="ip"), Words())
    by_ip.add_texts(["the cat"])
    with pytest.raises(ev.errors.InputError, match="give relevance_score_fn"):
        by_ip.similarity_search_with_relevance_scores("the cat")
    own = EncvecVectorStore(by_ip.collection, Words(), relevance_score_fn=lambda score: score / 2)
    assert own.similarity_search_with_relevance_scores("the cat")[0][1] == pytest.approx(0.5)


def test_records_of_other_writers(fresh):  # noqa: F811
    """An id that is no text is shown as text; no document is an empty text."""
    collection = fresh("memory", 64)
    collection.upsert([7], embedded(["the cat"]), [{"n": 1}])
    (found,) = EncvecVectorStore(collection, Words()).similarity_search("the cat")
    assert found == Document(id="7", page_content="", metadata={"n": 1})
