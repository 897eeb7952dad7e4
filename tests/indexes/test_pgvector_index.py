"""pgvector indexes: when they are built, what they find, and that nothing depends on them."""

import re

import numpy as np
import pytest

from encvec_store import errors
from encvec_store.data.fields import Term
from encvec_store.data.filters import AllOf, Match, Range
from encvec_store.indexes.pgvector import searching
from encvec_store.storage.protocol import EncryptedBatch
from tests.kits.postgres_store import again, ask, batch, both, opened, spec
from tests.kits.threads import guarded

DIM, N = 32, 6_000
BROAD = Range("n", "number", 0.0, 3000.0)
NARROW = Range("n", "number", 100.0, 119.0)


def numbered(seed, n, **more):
    return batch(seed, n, dim=DIM, terms=[(i, "n", Term("number", float(i))) for i in range(n)], **more)


def exact(vectors, queries, limit, chosen=None):
    """Rows nearest by inner product, where row i + 1 has vector i."""
    similar = queries @ vectors.T
    if chosen is not None:
        similar[:, ~chosen] = -np.inf
    return np.argsort(-similar, kind="stable")[:, :limit] + 1


def recall(found, truth):
    return np.mean([len(set(a.tolist()) & set(b.tolist())) / len(b) for a, b in zip(found, truth, strict=True)])


@pytest.fixture(scope="module")
def big(pg_server, pg_template):
    """A database with 6,000 records, and their vectors."""
    name = f"{pg_template}_index"
    pg_server.execute("CREATE DATABASE {} TEMPLATE {}", name, pg_template)
    written = numbered(1, N)
    with opened(pg_server.dsn(name), dim=DIM, index="none") as (_, collection):
        collection.put(written, under=b"settings")
    yield name, written.index_vectors
    pg_server.drop(name)


@pytest.fixture
def filled(big, pg_server, pg_template):
    """A copy of it."""
    name, vectors = big
    copy = f"{name}_copy"
    pg_server.execute("CREATE DATABASE {} TEMPLATE {}", copy, name)
    yield pg_server.dsn(copy), vectors
    pg_server.drop(copy)


QUERIES = batch(2, 20, dim=DIM).index_vectors


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


@pytest.mark.parametrize("index", ["auto", "bit", "ivfflat", "none"])
def test_nearest_brings_what_is_read_of_candidates(filled, index):
    """The same rows as `candidates`, each with its envelope; small payloads come along, whatever the filter."""
    dsn, _ = filled
    with opened(dsn, dim=DIM, index=index) as (_, collection):
        collection.flush()
        for predicate in (None, NARROW, BROAD, Match("n", (Term("number", -1.0),))):
            for queries in (QUERIES[:1], QUERIES[:3], QUERIES[:0]):
                found = collection.nearest({1: queries}, 30, predicate)
                lists = collection.candidates({1: queries}, 30, predicate)
                assert [sorted(rows.tolist()) for rows in found.lists] == [sorted(rows.tolist()) for rows in lists]
                rows, envelopes = collection.vectors(found.rows)
                assert sorted(rows.tolist()) == sorted({int(row) for some in lists for row in some})
                np.testing.assert_array_equal(found.vectors, envelopes)
                chosen = np.array(sorted(found.payloads), np.int64)
                assert collection.payloads(chosen)[1] == [found.payloads[row] for row in chosen.tolist()]
                assert len(chosen) == (len(rows) if len(queries) == 1 else 0)


def test_large_payloads_stay_where_they_are(pg_dsn):
    with opened(pg_dsn, index="none") as (_, collection):
        some = batch(1, 3)
        some.payloads[:] = [b"s" * 400, b"l" * 401, b"x" * 100_000]
        collection.put(some, under=b"settings")
        found = collection.nearest({1: some.index_vectors[:1]}, 3)
        assert found.payloads == {1: some.payloads[0]}
        assert sorted(found.rows.tolist()) == [1, 2, 3]


def test_filters_go_the_way_that_suits_them(filled):
    dsn, vectors = filled
    with opened(dsn, dim=DIM) as (_, collection):
        collection.flush()
        numbers = np.arange(N)
        narrow = exact(vectors, QUERIES, 20, (numbers >= 100) & (numbers < 120))
        for limit in (5, 20, 50):
            found = collection.candidates({1: QUERIES}, limit, NARROW)
            np.testing.assert_array_equal(np.stack(found), narrow[:, : min(limit, 20)])
        assert collection.stats()["searches"] == {"narrow": 3}
        found = collection.candidates({1: QUERIES}, 10, BROAD)
        assert recall(found, exact(vectors, QUERIES, 10, numbers <= 3000)) >= 0.9
        assert collection.stats()["searches"] == {"narrow": 3, "hnsw": 1}
        assert all((rows <= 3001).all() for rows in found)
        both = AllOf((BROAD, NARROW))
        np.testing.assert_array_equal(np.stack(collection.candidates({1: QUERIES}, 20, both)), narrow)
        nothing = collection.candidates({1: QUERIES}, 20, Match("n", (Term("number", -1.0),)))
        assert [len(rows) for rows in nothing] == [0] * 20


def test_deleted_records_do_not_shorten_answers(filled):
    """Nine of ten records near the queries are deleted: the dead nodes of the graph must not use up the search."""
    dsn, vectors = filled
    with opened(dsn, dim=DIM) as (_, collection):
        collection.flush()
        order = exact(vectors, QUERIES[:1], N)[0]
        assert collection.remove(order[:5400]) == 5400
        for limit in (10, 300, 1000):
            found = collection.candidates({1: QUERIES[:1]}, limit)[0]
            assert len(found) == min(limit, 600)
            assert recall([found], [order[5400 : 5400 + limit]]) >= 0.8
            assert set(found.tolist()) <= set(order[5400:].tolist())


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


def test_many_queries_at_once(filled):
    dsn, vectors = filled
    queries = batch(7, 500, dim=DIM).index_vectors
    with opened(dsn, dim=DIM) as (_, collection):
        found = collection.candidates({1: queries}, 50)
        assert recall(found, exact(vectors, queries, 50)) >= 0.9
        asked = np.concatenate(found)
        rows, envelopes = collection.vectors(asked)
        np.testing.assert_array_equal(rows, asked)
        np.testing.assert_array_equal(envelopes, numbered(1, N).vectors[asked - 1])


def test_vectors_of_a_record_deleted_meanwhile(filled):
    dsn, _ = filled
    with opened(dsn, dim=DIM) as (_, mine), opened(dsn, dim=DIM) as (_, theirs):
        (rows,) = mine.candidates({1: QUERIES[:1]}, 10)
        theirs.remove(rows[:3])
        np.testing.assert_array_equal(mine.vectors(rows)[0], rows[3:])


def test_batches_with_equal_vectors(pg_dsn):
    with opened(pg_dsn, index="hnsw") as (_, collection):
        some = batch(1, 300)
        vectors = np.repeat(some.index_vectors[:3], 100, axis=0)
        collection.put(
            EncryptedBatch(some.partitions, some.tokens, vectors, some.vectors, some.payloads), under=b"settings"
        )
        found = collection.candidates({1: vectors[:1]}, 150)[0]
        assert len(found) == 150
        assert set(range(1, 101)) <= set(found.tolist())


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


def test_a_shortfall_is_made_up_for_counted_and_told_once(filled, caplog):
    """An index that stops before it has found enough, here because the server forbids it to look further."""
    dsn, vectors = filled
    ((name,),) = ask(dsn, "SELECT quote_ident(current_database())")
    ask(dsn, f"ALTER DATABASE {name} SET ivfflat.max_probes = 1")
    with opened(dsn, dim=DIM, index="ivfflat", lists=16, probes=1) as (_, collection):
        collection.flush()
        for _ in range(2):
            found = collection.candidates({1: QUERIES}, 900)
            assert recall(found, exact(vectors, QUERIES, 900)) == 1
        searches = collection.stats()["searches"]
        assert (searches["ivfflat"], searches["short"], searches["exact"]) == (2, 2, 2)
        (told,) = [record.getMessage() for record in caplog.records]
        assert "collection 'things': its ivfflat index gave fewer candidates" in told
        assert "Raise probes" in told


def test_fewer_records_than_asked_for_are_no_shortfall_to_tell(pg_dsn, caplog):
    with opened(pg_dsn, index="hnsw") as (_, collection):
        collection.put(batch(1, 50), under=b"settings")
        collection.flush()
        assert len(collection.candidates({1: batch(2, 1).index_vectors}, 80)[0]) == 50
        assert caplog.records == []


def test_explain_tells_the_way_of_the_search(filled):
    dsn, _ = filled
    query = QUERIES[0]
    with opened(dsn, dim=DIM, index="none") as (_, collection):
        assert collection.explain(1, query, 10).startswith("scan, 6,000 records\n")
        assert collection.explain(9, query, 10) == "nothing to compare"
    with opened(dsn, dim=DIM, index="hnsw") as (_, collection):
        assert collection.explain(1, query, 10).startswith("scan, 6,000 records"), "explaining builds nothing"
        collection.flush()
        for predicate, way, passing, node in (
            (None, "hnsw index", "", "_s1_hnsw"),
            (BROAD, "hnsw index", "3,001 of ", "_s1_hnsw"),
            (NARROW, "filter first, which at most 1,000 records pass", "20 of ", "Sort Key"),
        ):
            before = dict(collection.stats()["searches"])
            told = collection.explain(1, query, 10, predicate)
            assert told.startswith(f"{way}, {passing}6,000 records\n")
            assert node in told
            assert f"'[{DIM} numbers]'::vector" in told
            assert max(map(len, told.splitlines())) < 200, "plans are for people to read"
            assert collection.stats()["searches"] == before, "nor is it counted as a search"
            collection.candidates({1: query[None]}, 10, predicate)
            (ran,) = {name for name, n in collection.stats()["searches"].items() if n > before.get(name, 0)}
            assert ran in way or (ran, predicate) == ("narrow", NARROW)
        assert "filter" not in collection.explain(1, query, 1001), "more than an index gives out"


@pytest.mark.parametrize("index", ["none", "hnsw", "bit", "ivfflat"])
def test_partitions_are_searched_together(pg_dsn, index):
    """One statement for all partitions, each with a query of its own, whether indexed, scanned or both."""
    partitions = (1, 1 << 32 | 1, 2 << 32 | 1)
    probes = {partition: batch(90 + i, 3, dim=DIM).index_vectors for i, partition in enumerate((*partitions, 9))}
    options = {} if index == "none" else {"lists": 5, "probes": 5, "bit_oversample": 50}
    with opened(pg_dsn, dim=DIM, index=index, **options) as (_, collection):
        truth = []
        for i, partition in enumerate(partitions):
            # the last arrives after the indexes were built, so it is scanned beside them at first
            some = numbered(20 + i, 400, partition=partition)
            collection.put(some, under=b"settings")
            truth.append(probes[partition] @ some.index_vectors.T)
            if i == 1:
                collection.flush()
        products = np.concatenate(truth, axis=1)
        for limit in (1, 30, 900, 1300):
            found = collection.candidates(probes, limit)
            one = collection.nearest({partition: part[:1] for partition, part in probes.items()}, limit)
            assert sorted(one.lists[0].tolist()) == sorted(one.rows.tolist())
            assert len(one.rows) == min(limit, 1200)
            for rows, line in zip(found, products, strict=True):
                assert len(set(rows.tolist())) == min(limit, 1200)
                assert line[rows - 1].tolist() == pytest.approx(sorted(line[rows - 1], reverse=True))
                wanted = np.sort(line)[-min(limit, 1200) :]
                assert line[rows - 1].mean() >= wanted.mean() - 0.05
        few = Match("n", (Term("number", 7.0),))
        for some in (probes, {partition: part[:1] for partition, part in probes.items()}):
            for rows in collection.candidates(some, 50, few):
                assert len(rows) == len(collection.rows(few)), "however few there are"
