"""pgvector indexes: when they are built, and that nothing depends on them."""

import re

import numpy as np
import pytest

from encvec_store import errors
from encvec_store.indexes.pgvector import searching
from tests.kits.pgvector import DIM, QUERIES, N, exact, numbered, recall
from tests.kits.postgres_store import again, ask, batch, both, opened, spec
from tests.kits.threads import guarded


@pytest.mark.parametrize(
    ("options", "kind", "least"),
    [
        ({}, "hnsw", 0.9),
        ({"storage": "float16"}, "hnsw", 0.9),
        # lists differ from one build to the next: a nearest one may be in a list that is not probed
        ({"index": "ivfflat", "lists": 20, "probes": 15}, "ivfflat", 0.7),
        ({"index": "ivfflat", "storage": "float16"}, "ivfflat", 0.6),
        ({"pooler": True}, "hnsw", 0.9),
        ({"index": "none"}, "exact", 1),
        ({"index_above": N}, "exact", 1),
    ],
    ids=str,
)
def test_searches_build_and_use_the_index(filled, options, kind, least):
    dsn, vectors = filled
    with opened(dsn, dim=DIM, **options) as (_, collection):
        assert collection.stats()["index"] == "exact"
        for limit in (1, 10, 100, 900):
            found = collection.candidates({1: QUERIES}, limit)
            assert [len(rows) for rows in found] == [limit] * 20
            assert recall(found, exact(vectors, QUERIES, limit)) >= least
            single = [collection.candidates({1: query[None]}, limit)[0] for query in QUERIES]
            assert recall(single, exact(vectors, QUERIES, limit)) >= least
        assert collection.stats()["index"] == kind
        assert set(collection.stats()["searches"]) == {kind if kind != "exact" else "exact"}
        if kind != "exact":
            plan = collection.explain(1, QUERIES[0], 10)
            assert f"records_1_s1_{kind}" in plan
        found = collection.candidates({1: QUERIES}, 1001)
        assert recall(found, exact(vectors, QUERIES, 1001)) == 1  # as sets: sums in float32 may trade places
        if kind != "exact":
            plan = collection.explain(1, QUERIES[0], 1001)
            assert "records_1_s1" not in plan
        assert collection.check() == []


def test_signs_are_compared_again_by_whole_vectors(filled):
    """More of them, better answers: 32 signs say little."""
    dsn, vectors = filled
    recalls = []
    for wide in (1, 5, 50):
        with opened(dsn, dim=DIM, index="bit", bit_oversample=wide) as (_, collection):
            found = collection.candidates({1: QUERIES}, 20)
            recalls.append(recall(found, exact(vectors, QUERIES, 20)))
            sums = [(vectors[rows - 1] @ query).tolist() for rows, query in zip(found, QUERIES, strict=True)]
            assert all(line == pytest.approx(sorted(line, reverse=True)) for line in sums)
            assert collection.stats()["partitions"]["1"]["storage"] == "bit"
            assert set(collection.stats()["searches"]) == {"bit"}
            assert "binary_quantize" in collection.explain(1, QUERIES[0], 20)
    assert recalls[0] < recalls[1] < recalls[2]
    assert recalls[2] > 0.8


def test_key_versions_have_indexes_of_their_own(filled):
    dsn, vectors = filled
    with opened(dsn, dim=DIM) as (_, collection):
        other = numbered(3, N, partition=2)
        collection.put(other, under=b"settings")
        collection.flush()
        for partition, data, first in ((1, vectors, 0), (2, other.index_vectors, N)):
            found = collection.candidates({partition: QUERIES}, 10)
            assert recall([rows - first for rows in found], exact(data, QUERIES, 10)) >= 0.9
        names = {
            name for (name,) in ask(dsn, "SELECT indexrelid::regclass::text FROM pg_index WHERE indpred IS NOT NULL")
        }
        assert names == {"encvec.records_1_s1_hnsw", "encvec.records_1_s2_hnsw"}
        assert [len(rows) for rows in collection.candidates({3: QUERIES}, 10)] == [0] * 20


@pytest.mark.parametrize("later", [False, True])
def test_replacement_comes_indexed(filled, later, monkeypatch):
    """Another process looks for it at once, or when what it knew of the indexes has grown old."""
    if later:
        monkeypatch.setattr(searching, "_LOOK_AGAIN", 0)
    dsn, _ = filled
    with opened(dsn, dim=DIM) as (_, mine), opened(dsn, dim=DIM) as (_, theirs):
        theirs.flush()
        new = numbered(4, N, partition=2)
        mine.replace([again(new)], b"new", under=b"settings")
        assert mine.stats()["index"] == "hnsw"
        theirs.index._searcher._seen = float("-inf")  # as if time had passed: looked for on the tables that are gone
        found = theirs.candidates({2: QUERIES}, 10)
        assert recall(found, exact(new.index_vectors, QUERIES, 10)) >= 0.9


def test_a_large_index_is_not_built_by_a_search(filled, caplog):
    dsn, vectors = filled
    with opened(dsn, dim=DIM, index_in_search=N - 1) as (_, collection):
        for _ in range(2):
            np.testing.assert_array_equal(np.stack(collection.candidates({1: QUERIES}, 5)), exact(vectors, QUERIES, 5))
        assert [record.message.count("call flush()") for record in caplog.records] == [1]
        collection.flush()
        assert collection.stats()["index"] == "hnsw"
        collection.candidates({1: QUERIES}, 5)
        assert collection.stats()["searches"] == {"exact": 2, "hnsw": 1}


@pytest.mark.parametrize("pooler", [False, True])
def test_a_graph_that_outgrows_its_memory_is_told(filled, caplog, pooler):
    dsn, _ = filled
    with opened(dsn, dim=DIM, build_memory="1MB", pooler=pooler) as (_, collection):
        collection.flush()
        assert collection.stats()["index"] == "hnsw"
        collection.replace([again(numbered(4, N, partition=1))], b"new", under=b"settings")
    told = [record.message for record in caplog.records if "does not fit in build_memory=1MB" in record.message]
    assert len(told) == 2
    assert f"the graph of {N} records" in told[0]
    enough = re.search(r"build_memory=(\d+MB) would hold it", told[0])
    caplog.clear()
    with opened(dsn, dim=DIM, build_memory=enough[1], pooler=pooler) as (_, collection):
        collection.replace([again(numbered(5, N, partition=1))], b"newer", under=b"new")
        assert collection.stats()["index"] == "hnsw"
    assert not caplog.records


def test_what_an_interrupted_build_left_is_built_anew(filled):
    dsn, _ = filled
    with opened(dsn, dim=DIM) as (_, collection):
        collection.flush()
        ask(dsn, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'encvec.records_1_s1_hnsw'::regclass")
        assert collection.stats()["index"] == "exact"
        np.testing.assert_array_equal(np.stack(collection.candidates({1: QUERIES}, 5)).shape, (20, 5))
        assert collection.stats()["index"] == "hnsw"


def test_one_builds_while_others_search_and_write(filled):
    dsn, _ = filled
    failed = []
    with opened(dsn, dim=DIM) as (_, mine), opened(dsn, dim=DIM) as (_, theirs):

        def write():
            for seed in range(10):
                theirs.put(batch(100 + seed, 20, dim=DIM), under=b"settings")
                theirs.candidates({1: QUERIES}, 10)

        threads = [guarded(failed, work) for work in (mine.flush, theirs.flush, write)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert mine.stats()["index"] == "hnsw"
        assert mine.count() == N + 200
        assert mine.check() == []


def test_above_two_thousand_coordinates_the_index_halves(pg_dsn):
    dim = 2_100
    with opened(pg_dsn, dim=dim, index="hnsw") as (store, collection):
        written = batch(1, 200, dim=dim)
        collection.put(written, under=b"settings")
        found = collection.candidates({1: written.index_vectors[:5]}, 3)
        np.testing.assert_array_equal([rows[0] for rows in found], np.arange(1, 6))
        assert collection.stats()["partitions"]["1"]["storage"] == "float16"
        assert ask(pg_dsn, "SELECT indisvalid FROM pg_index WHERE indexrelid::regclass::text ~ 'hnsw_half$'")
        np.testing.assert_array_equal(collection.index_vectors(np.arange(1, 201))[1], written.index_vectors)
        wide = both(store.create(spec("wide", 5_000), b"settings"))
        wide.put(batch(2, 20, dim=5_000), under=b"settings")
        assert wide.candidates({1: batch(2, 20, dim=5_000).index_vectors[3:4]}, 1)[0].tolist() == [4]
        assert wide.stats()["index"] == "exact", "beyond what pgvector indexes"
        with pytest.raises(errors.InputError, match="16000"):
            store.create(spec("wider", 16_001), b"settings")


def test_tables_replaced_while_their_index_is_built(pg_dsn, monkeypatch):
    """The new ones bring their own."""
    with opened(pg_dsn, index="hnsw") as (_, mine), opened(pg_dsn, index="hnsw") as (_, theirs):
        mine.put(batch(1, 50), under=b"settings")
        build = mine.index._searcher._indexer.build

        def late(*arguments):
            theirs.replace([again(batch(2, 50))], b"settings", under=b"settings")
            return build(*arguments)

        monkeypatch.setattr(mine.index._searcher._indexer, "build", late)
        mine.flush()
        assert mine.stats()["index"] == "hnsw"
        assert len(mine.candidates({1: batch(2, 1).index_vectors}, 5)[0]) == 5
