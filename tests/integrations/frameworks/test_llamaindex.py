"""LlamaIndex: beside its own store in memory, over every operator, condition and query mode."""

import itertools

import numpy as np
import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import ImageNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from llama_index.core.vector_stores.simple import SimpleVectorStore
from llama_index.core.vector_stores.types import VectorStoreQueryMode

import encvec_store as ev
from encvec_store.integrations.llamaindex import EncvecNodeStore
from tests.kits.adapters import async_fresh, embedded, fresh, place, stores  # noqa: F401

pytestmark = pytest.mark.peers
N, DIM = 60, 16
KEYS = ("n", "share", "word", "tags", "odd", "absent")
VALUES = (3, -2, 0.5, "red", "RE", "e%_", "", ["red", "a"], [], [3, 4], [0.5], None)


def some_nodes():
    rng = np.random.default_rng(1)
    for at in range(N):
        metadata = {
            "n": int(rng.integers(-3, 5)),
            "share": float(rng.integers(0, 4)) / 4,
            "word": str(rng.choice(["red", "Red wine", "blue", "e%_x", "", "exy"])),
            "tags": [str(tag) for tag in rng.choice(["a", "b", "red"], int(rng.integers(0, 3)))],
            "odd": [None, "red", 3, [], [3, 4]][at % 5],
        }
        metadata = {key: value for key, value in metadata.items() if rng.random() < 0.8}
        source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{at % 7}")}
        vector = rng.standard_normal(DIM).tolist()
        yield TextNode(id_=f"node-{at}", text=f"text {at}", metadata=metadata, embedding=vector, relationships=source)


NODES = list(some_nodes())
QUERY = np.random.default_rng(2).standard_normal(DIM).tolist()


@pytest.fixture
def both(fresh):  # noqa: F811
    ours, theirs = EncvecNodeStore(fresh("memory", DIM)), SimpleVectorStore()
    assert ours.add(NODES) == theirs.add(NODES) == [node.id_ for node in NODES]
    return ours, theirs


def found_by(store, filters, **query):
    result = store.query(VectorStoreQuery(query_embedding=QUERY, similarity_top_k=N, filters=filters, **query))
    return result.ids, result.similarities


def same(ours, theirs):
    assert ours[0] == theirs[0]
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-6)


_ORDERED = (FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE)
_LISTS = (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL)
_TEXTS = (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE)


def malformed(operator, value):
    """Say whether a value does not fit an operator: an error here; there, only if a record has the field."""
    a_list, a_text = isinstance(value, list), isinstance(value, str)
    unordered = operator in _ORDERED and (a_list or value is None)
    return unordered or (operator in _LISTS and not a_list) or (operator in _TEXTS and not a_text)


def test_every_operator(both):
    ours, theirs = both
    compared = set()
    for key, operator, value in itertools.product(KEYS, FilterOperator, VALUES):
        filters = MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])
        if malformed(operator, value):
            with pytest.raises(ev.errors.FilterError, match="must be a"):
                found_by(ours, filters)
            continue
        found = found_by(ours, filters)
        try:
            expected = found_by(theirs, filters)
        except TypeError:  # it compares text with a number: an error there, no match here
            continue
        same(found, expected)
        compared.add((operator, 0 < len(expected[0]) < N))
    assert {operator for operator, some in compared if some} == set(FilterOperator)


PARTS = [
    MetadataFilter(key="n", operator=FilterOperator.GTE, value=0),
    MetadataFilter(key="word", operator=FilterOperator.TEXT_MATCH_INSENSITIVE, value="RED"),
    MetadataFilter(key="tags", operator=FilterOperator.ANY, value=["a", "b"]),
    MetadataFilter(key="odd", operator=FilterOperator.IS_EMPTY, value=None),
]


def test_conditions_and_nested_ones(both):
    """Their store refuses nested ones: there, sets of what each part finds are combined."""
    ours, theirs = both
    combine = {
        FilterCondition.AND: lambda sets: set.intersection(*sets),
        FilterCondition.OR: lambda sets: set.union(*sets),
        FilterCondition.NOT: lambda sets: {node.id_ for node in NODES} - set.union(*sets),
    }
    for condition, size in itertools.product(FilterCondition, (1, 2, 3)):
        for parts in itertools.combinations(PARTS, size):
            filters = MetadataFilters(filters=list(parts), condition=condition)
            same(found_by(ours, filters), found_by(theirs, filters))
            for outer, last in itertools.product(FilterCondition, PARTS):
                nested = MetadataFilters(filters=[filters, last], condition=outer)
                alone = MetadataFilters(filters=[last])
                expected = combine[outer]([set(found_by(theirs, each)[0]) for each in (filters, alone)])
                assert {node.id_ for node in ours.get_nodes(filters=nested)} == expected
    empty = MetadataFilters(filters=[])
    assert len(found_by(ours, empty)[0]) == N
    assert len(found_by(ours, MetadataFilters(filters=[empty, PARTS[0]]))[0]) < N


async def test_query_modes(both, async_fresh):  # noqa: F811
    ours, theirs = both
    awaited = EncvecNodeStore(await async_fresh("postgresql", DIM))
    await awaited.async_add(NODES)
    filters = MetadataFilters(filters=PARTS[:1])
    for top, given in itertools.product((1, 7, N), ({}, {"filters": filters}, {"node_ids": ["node-3", "node-9"]})):
        query = VectorStoreQuery(query_embedding=QUERY, similarity_top_k=top, **given)
        expected = theirs.query(query)
        for result in (ours.query(query), await awaited.aquery(query), await ours.aquery(query)):
            same((result.ids, result.similarities), (expected.ids, expected.similarities))
            assert [node.text for node in result.nodes] == [f"text {name[5:]}" for name in result.ids]
        query.mode = VectorStoreQueryMode.MMR
        for threshold in (0.2, 0.5, 0.9):
            expected = theirs.query(query, mmr_threshold=threshold)
            for store in (ours, awaited):
                how = {"mmr_threshold": threshold, "mmr_prefetch_k": N}
                # theirs avoids only the last one chosen, so from the third on they may differ
                assert (await store.aquery(query, **how)).ids[:2] == expected.ids[:2]
    doc_ids = await awaited.aquery(VectorStoreQuery(query_embedding=QUERY, similarity_top_k=N, doc_ids=["doc-1"]))
    assert set(doc_ids.ids) == {node.id_ for node in NODES if node.ref_doc_id == "doc-1"}
    with pytest.raises(ev.errors.InputError, match=r"mode must be one of default, .*, got hybrid"):
        ours.query(VectorStoreQuery(query_embedding=QUERY, mode=VectorStoreQueryMode.HYBRID))
    with pytest.raises(ev.errors.InputError, match="query_embedding must be"):
        ours.query(VectorStoreQuery(query_str="text"))
    with pytest.raises(ImportError, match="scikit-learn"):  # LlamaIndex's own learners are asked
        ours.query(VectorStoreQuery(query_embedding=QUERY, mode=VectorStoreQueryMode.SVM))


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_similarities_of_other_metrics(fresh, metric):  # noqa: F811
    """Larger is nearer, and the same whether the collection ranks or LlamaIndex does."""
    store = EncvecNodeStore(fresh("memory", DIM, metric=metric))
    store.add(NODES)
    names, similarities = found_by(store, None)
    assert similarities == sorted(similarities, reverse=True)
    same(found_by(store, None, node_ids=names), (names, similarities))


async def test_deletes(fresh, async_fresh):  # noqa: F811
    ours, awaited = EncvecNodeStore(fresh("faiss", DIM)), EncvecNodeStore(await async_fresh("faiss", DIM))
    theirs = SimpleVectorStore()
    filters = MetadataFilters(filters=PARTS[1:2])
    ours.add(NODES)
    theirs.add(NODES)
    await awaited.async_add(NODES)
    for verb, given in (
        ("delete", ("doc-1",)),
        ("delete", ("unknown",)),
        ("delete_nodes", (["node-0", "unknown"],)),
        ("delete_nodes", (None, filters)),
        ("delete_nodes", ([f"node-{at}" for at in range(20)], MetadataFilters(filters=PARTS[:1]))),
        ("clear", ()),
    ):
        for store in (ours, theirs):
            getattr(store, verb)(*given)
        await getattr(awaited, f"a{verb}")(*given)
        left = set(theirs.data.embedding_dict)
        assert {node.id_ for node in ours.get_nodes()} == left
        assert {node.id_ for node in await awaited.aget_nodes()} == left
    with pytest.raises(ev.errors.InputError, match="give node_ids or filters"):
        ours.delete_nodes()


def test_nodes_come_back_whole(fresh):  # noqa: F811
    """Types, relations, excluded keys, values; the caller's nodes are not changed."""
    store = EncvecNodeStore(fresh("memory", DIM))
    picture = ImageNode(id_="p", image_url="https://example.org/p.png", text="a card", embedding=QUERY)
    rich = TextNode(
        id_="r",
        text="long\ntext",
        metadata={"n": 1, "x": 1.0, "doc_id": "mine", "nested": {"a": [1]}},
        excluded_llm_metadata_keys=["n"],
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(node_id="d"),
            NodeRelationship.NEXT: picture.as_related_node_info(),
        },
        embedding=QUERY,
        start_char_idx=3,
    )
    before = [node.model_dump() for node in (picture, rich)]
    store.add([picture, rich])
    assert [node.model_dump() for node in (picture, rich)] == before
    for node, back in zip((picture, rich), store.get_nodes(["p", "r"]), strict=True):
        assert type(back) is type(node)
        assert back.model_dump() == {**node.model_dump(), "embedding": None}
    assert store.get_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="nested.a", value=[1])])) != []
    store.client.upsert(["raw"], [QUERY])
    with pytest.raises(ev.errors.InputError, match="'raw' is no node"):
        store.get_nodes(["raw"])
    assert store.add([]) == []


class Words(BaseEmbedding):
    """Vectors of words, without a model."""

    def _get_text_embedding(self, text):
        return embedded([text])[0].tolist()

    def _get_query_embedding(self, query):
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query):
        return self._get_text_embedding(query)


async def test_an_index_and_its_retrievers(fresh, async_fresh):  # noqa: F811
    texts = ["the card was lost", "the card is blocked", "a transfer is late"]
    documents = [Document(id_=f"d{at}", text=text, metadata={"year": 2024 + at}) for at, text in enumerate(texts)]
    recent = MetadataFilters(filters=[MetadataFilter(key="year", operator=FilterOperator.GT, value=2024)])
    awaited = EncvecNodeStore(await async_fresh("postgresql", 64))
    pipeline = IngestionPipeline(transformations=[SentenceSplitter(), Words()], vector_store=awaited)
    await pipeline.arun(documents=documents)
    stored = EncvecNodeStore(fresh("postgresql", 64))
    IngestionPipeline(transformations=[SentenceSplitter(), Words()], vector_store=stored).run(documents=documents)
    for store in (stored, awaited):
        index = VectorStoreIndex.from_vector_store(store, embed_model=Words())
        found = await index.as_retriever(similarity_top_k=2, filters=recent).aretrieve("my card")
        assert [each.text for each in found] == texts[1:]
    index = VectorStoreIndex.from_vector_store(stored, embed_model=Words())
    assert index.as_retriever(similarity_top_k=1).retrieve("the card was lost")[0].score == pytest.approx(1, abs=0.3)
    index.delete_ref_doc("d1")
    assert {node.ref_doc_id for node in stored.get_nodes()} == {"d0", "d2"}
