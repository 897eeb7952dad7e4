"""Half precision in PostgreSQL: a column of its own, which every way of searching reads, and every opening finds."""

import dataclasses

import numpy as np
import pytest

from encvec_store.data import Range, Term
from encvec_store.storage.postgres import PostgresStore
from tests.kits.postgres_store import SIZE, again, ask, batch, opened, spec

DIM, N = 32, 2_000
SOME = Range("n", "number", 0.0, 99.0)
HALF = dataclasses.replace(spec(dim=DIM), half=True)


def halved(seed, n, **more):
    some = batch(seed, n, dim=DIM, terms=[(i, "n", Term("number", float(i))) for i in range(n)], **more)
    some.index_vectors = some.index_vectors.astype(np.float16)
    return some


def exact(vectors, queries, limit):
    similar = queries.astype(np.float16).astype(np.float32) @ vectors.astype(np.float32).T
    return np.argsort(-similar, kind="stable")[:, :limit] + 1


def recall(found, truth):
    return np.mean([len(set(a.tolist()) & set(b.tolist())) / len(b) for a, b in zip(found, truth, strict=True)])


@pytest.fixture
def filled(pg_dsn):
    written = halved(1, N)
    backend = PostgresStore(pg_dsn, index="none")
    backend.create(HALF, b"settings").put(written, under=b"settings")
    backend.close()
    return pg_dsn, written.index_vectors


@pytest.mark.parametrize(
    ("options", "kind", "storage", "least"),
    [
        ({"index": "hnsw"}, "hnsw", "float16", 0.8),
        ({"index": "hnsw", "storage": "float32"}, "hnsw", "float16", 0.8),
        ({"index": "ivfflat", "lists": 20, "probes": 15}, "ivfflat", "float16", 0.8),
        ({"index": "bit", "bit_oversample": 50}, "bit", "bit", 0.8),
        ({"index": "none"}, "exact", "float32", 1),
    ],
    ids=str,
)
def test_every_way_of_searching_reads_it(filled, options, kind, storage, least):
    dsn, vectors = filled
    queries = batch(2, 20, dim=DIM).index_vectors
    with opened(dsn, dim=DIM, **options) as (_, collection):
        assert collection.spec.half, "found by the column that the tables have"
        collection.flush()
        assert recall(collection.candidates({1: queries}, 20), exact(vectors, queries, 20)) >= least
        one = collection.nearest({1: queries[:1]}, 20)
        assert recall(one.lists, exact(vectors, queries[:1], 20)) >= least - 0.2 * (kind != "exact")
        narrow = collection.candidates({1: queries}, 10, SOME)
        assert recall(narrow, exact(vectors[:100], queries, 10)) >= (1 if kind == "exact" else 0.8)
        assert (collection.stats()["index"], collection.stats()["partitions"]["1"]["storage"]) == (kind, storage)
        plan = collection.explain(1, queries[0], 1)  # fifty times 20 are half of them: a scan may be cheaper
        assert "index_half" in plan
        if kind != "exact":
            assert f"records_1_s1_{kind}" in plan
        rows, kept = collection.index_vectors(np.array([N, 1, N + 1]))
        assert (rows.tolist(), kept.dtype) == ([N, 1], np.float32)
        np.testing.assert_array_equal(kept, vectors[[N - 1, 0]])
        assert collection.check() == []


def test_it_outlives_replacing_and_other_dimensions(filled):
    dsn, _ = filled
    with opened(dsn, dim=DIM) as (_, collection):
        nothing = again(halved(3, 0))
        nothing.index_vectors = np.empty((0, 0), np.float16)
        collection.replace([nothing], b"sealed", under=b"settings", index_dim=0)
        assert collection.count() == 0
    with opened(dsn, dim=DIM) as (_, collection):
        assert (collection.spec.half, collection.spec.index_dim) == (True, 0)
        fresh = again(halved(4, 20))
        collection.replace([fresh], b"settings", under=b"sealed", index_dim=DIM)
        np.testing.assert_array_equal(collection.index_vectors(collection.rows())[1], fresh.index_vectors)
    ((column, kind),) = ask(
        dsn,
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = to_regclass(%s)"
        " AND attname = 'index_half'",
        f"encvec.records_{ask(dsn, 'SELECT content FROM encvec.collections')[0][0]}",
    )
    assert (column, kind) == ("index_half", "halfvec")


def test_damage_shows_without_keys(filled):
    dsn, _ = filled
    with opened(dsn, dim=DIM) as (_, collection):
        ask(dsn, "ALTER TABLE encvec.records_1 DROP CONSTRAINT records_1_check")
        ask(dsn, "UPDATE encvec.records_1 SET index_half = NULL WHERE row = 5")
        assert collection.check() == ["1 records have a part of the wrong size"]


def test_single_has_no_such_column(pg_dsn):
    with opened(pg_dsn, dim=DIM) as (backend, collection):
        assert not collection.spec.half
        assert not ask(pg_dsn, "SELECT 1 FROM pg_attribute WHERE attname = 'index_half'")
        assert not backend.open("tenant", "things").spec.half
        assert collection.spec.envelope_size == SIZE
