"""Searches in pgvector: which way a filter or a limit takes, what `nearest` brings along, what `explain` tells."""

import numpy as np
import pytest

from encvec_store.data import AllOf, Match, Term
from encvec_store.storage import EncryptedBatch
from tests.kits.pgvector import BROAD, DIM, NARROW, QUERIES, N, exact, numbered, recall
from tests.kits.postgres_store import ask, batch, opened


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
