"""What a server sees of searches of a sealed collection, and that answers stay right."""

import pytest

import encvec_store as ev
from encvec_store import low_level
from encvec_store.engine import parts
from encvec_store.sealed_index import BUDGET
from tests.kits import sealed
from tests.kits.sealed import DIM, Answers, vectors_of
from tests.kits.watched import rows_read, watch

K, FEW = 5, 200


@pytest.fixture(autouse=True)
def small(monkeypatch):
    sealed.small(monkeypatch)


def filled(store, metric="cosine", seed=0, n=FEW, **more):
    things = store.collection("things", dim=DIM, metric=metric, scheme="sealed", **more)
    vectors = vectors_of(n, seed)
    names = [f"{i}" for i in range(n)]
    things.upsert(names, vectors, [{"n": i % 4} for i in range(n)], [f"text {name}" for name in names])
    things.maintain()
    return things, dict(zip(names, vectors, strict=True))


def test_bad_values():
    keyset = ev.Keyset.create("memory:")
    with pytest.raises(ev.errors.InputError, match="reads must be one of candidates, hits, got 'all'"):
        ev.connect("memory:", keyset=keyset, reads="all")


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_only_hits_are_read_and_in_random_order(tmp_path, monkeypatch, metric):
    log = watch(monkeypatch)
    monkeypatch.setattr(parts, "_MOST", 0)  # remember nothing
    with ev.connect(f"faiss://{tmp_path}?index=hnsw", keyset=ev.Keyset.create("memory:"), reads="hits") as store:
        things, stored = filled(store, metric)
        answers, ranks = Answers(metric, stored=stored), []
        things.search(vectors_of(1, 1)[0], K)
        for query in vectors_of(40, 2):
            log.clear()
            hits = things.search(query, k=K, include_vectors=True)
            answers.check(hits, query, K)
            (read,) = rows_read(log)
            order = low_level.places(things, [hit.id for hit in hits]).tolist()
            assert sorted(read) == sorted(order)
            ranks.append([read.index(row) for row in order])
        answers.enough()
        assert len(set(map(tuple, ranks))) > 20, "the order of reading must not be the order of hits"
        log.clear()
        things.search(vectors_of(6, 3), k=K)
        assert sum(map(len, rows_read(log))) <= 6 * K


def test_candidates_are_more_rows(tmp_path, monkeypatch):
    log = watch(monkeypatch)
    with ev.connect(f"faiss://{tmp_path}?index=hnsw", keyset=ev.Keyset.create("memory:"), reads="candidates") as store:
        things, _ = filled(store)
        things.search(vectors_of(1, 1)[0], K)
        log.clear()
        things.search(vectors_of(1, 2)[0], K)
        assert sum(map(len, rows_read(log))) > K
        assert "every search: the rows of its candidates" in things.stats()["server_sees"]
        assert "the rows of its candidates" in things.explain(vectors_of(1, 2)[0])


def test_what_was_read_is_remembered(tmp_path, monkeypatch):
    log = watch(monkeypatch)
    with ev.connect(f"faiss://{tmp_path}?index=hnsw", keyset=ev.Keyset.create("memory:"), reads="hits") as store:
        things, _ = filled(store)
        things.upsert(["long"], vectors_of(1, 8), documents=["a long text " * 1_000])
        query = vectors_of(1, 8)[0]
        first = things.search(query, K)
        assert first[0].id == "long"
        log.clear()
        again = things.search(query, K)
        assert again == first
        assert rows_read(log) == []
        assert things.stats()["remembered_bytes"] > 12_000
        # a hit belongs to the caller: what he does to it stays with him
        again[1].metadata["n"] = "changed"
        assert things.search(query, K) == first
        things.delete([first[1].id])
        assert first[1].id not in [hit.id for hit in things.search(query, K)]
        things.upsert([first[2].id], -query[None], [{"n": 9}])
        assert first[2].id not in [hit.id for hit in things.search(query, K)]


def test_what_is_remembered_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_MOST", 20_000)
    with ev.connect(f"faiss://{tmp_path}?index=hnsw", keyset=ev.Keyset.create("memory:"), reads="hits") as store:
        things, stored = filled(store)
        for query in vectors_of(30, 4):
            things.search(query, K)
            assert things.stats()["remembered_bytes"] <= 20_000
        assert things.stats()["remembered_bytes"] > 10_000
        Answers("cosine", stored=stored).search(things, vectors_of(5, 5))


def test_keys_that_die_take_everything_with_them(tmp_path):
    keyset = ev.Keyset.create("memory:")
    with ev.connect(f"faiss://{tmp_path}?index=hnsw", keyset=keyset, maintenance="manual", reads="hits") as store:
        things, _ = filled(store)
        query = vectors_of(1, 1)[0]
        things.search(query, K)
        stats = things.stats()
        assert stats["remembered_bytes"] > 0 < stats["sealed_index"]["half_bytes"]
        assert stats["sealed_index"]["memory_bytes"] > stats["sealed_index"]["half_bytes"]
        keyset.rotate()
        things.upsert(["new"], vectors_of(1, 7))
        keyset.destroy(1)
        assert [hit.id for hit in things.search(query, K)] == ["new"]
        assert things.stats()["sealed_index"]["half_bytes"] == 0
        assert things.stats()["remembered_bytes"] < 2_000


def test_without_memory_for_vectors_candidates_are_read(tmp_path, monkeypatch):
    log = watch(monkeypatch)
    with ev.connect(f"faiss://{tmp_path}?index=hnsw", keyset=ev.Keyset.create("memory:"), reads="hits") as store:
        things, stored = filled(store)
        things.search(vectors_of(1, 1)[0], K)
        index = things._sources._sealed._indexes.current.sealed
        index.halves.forget()
        BUDGET.set(index.bytes + 100)
        log.clear()
        Answers("cosine", stored=stored).search(things, vectors_of(1, 2))
        assert max(map(len, rows_read(log))) > K
        assert index.halves.bytes == 0
        assert "do not fit in index_memory" in things.explain(vectors_of(1, 2)[0])


def test_filters_and_batches(tmp_path, monkeypatch):
    log = watch(monkeypatch)
    with ev.connect(f"faiss://{tmp_path}?index=hnsw", keyset=ev.Keyset.create("memory:"), reads="hits") as store:
        things, stored = filled(store)
        answers = Answers("cosine", stored=stored)
        answers.search(things, vectors_of(20, 1))
        passing = {name: vector for name, vector in stored.items() if int(name) % 4 == 2}
        answers.search(things, vectors_of(8, 2), stored=passing, where={"n": 2})
        log.clear()
        answers.search(things, vectors_of(1, 3), stored=passing, where={"n": 2})
        assert max(map(len, rows_read(log)), default=0) <= 10
        answers.enough()


def test_one_damaged_record_does_not_stop_all_searches(tmp_path):
    with ev.connect(f"faiss://{tmp_path}?index=hnsw", keyset=ev.Keyset.create("memory:"), reads="hits") as store:
        things, stored = filled(store)
        records = low_level.records(things)
        row = low_level.places(things, ["17"])
        reading = records.vectors

        def damaged(rows):
            found, envelopes = reading(rows)
            envelopes = envelopes.copy()
            envelopes[found == row[0], -1] ^= 1
            return found, envelopes

        records.vectors = damaged
        hits = things.search(-stored["17"], K)
        assert len(hits) == K
        assert things.stats()["sealed_index"]["half_bytes"] > 0


def test_dials_stand_in_the_url(tmp_path):
    keyset, url = ev.Keyset.create("memory:"), f"faiss://{tmp_path}"
    with ev.connect(f"{url}?reads=hits&index=hnsw&index_memory=50000000", keyset=keyset) as store:
        things, stored = filled(store)
        assert BUDGET.limit == 50_000_000
        assert things.stats()["reads"] == "hits"
        assert "reads" not in store.url
    hidden = f"?threat=watching-server&cache={tmp_path}/a%20cache"
    with ev.connect(url + hidden, keyset=keyset) as store:
        things = store.collection("things")
        assert things.search(stored["7"], 1)[0].id == "7"
        assert things.stats()["threat"] == "watching-server"
        assert things._sources._sealed._hidden._folder == tmp_path / "a cache"
    with ev.connect(f"{url}?reads=hits", keyset=keyset, reads="candidates") as store:  # what is passed wins
        assert store.collection("things").stats()["reads"] == "candidates"
    with ev.connect("memory:?reads=hits", keyset=keyset) as store:
        assert store.url == "memory:"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("reads=all", "reads must be one of candidates, hits, got 'all'"),
        ("threat=thief", "threat must be one of watching-server"),
        ("reads=hits&threat=watching-server", "not both"),
        ("cache=/x", "give the threat too"),
        ("threat=watching-server&cache=", "cache must be the path of a folder"),
        ("index_memory=256MB", "index_memory must be a number of bytes >= 1, got '256MB'"),
        ("reads=hits&reads=hits", "gives reads twice"),
        ("read=hits", "unknown option 'read'"),
    ],
)
def test_bad_values_in_the_url(tmp_path, query, message):
    with pytest.raises(ev.errors.InputError, match=message):
        ev.connect(f"faiss://{tmp_path}?{query}", keyset=ev.Keyset.create("memory:"))


def test_a_password_with_a_question_mark_is_not_shown():
    with pytest.raises(ev.errors.UriError) as raised:
        ev.connect("postgresql://u:secret?reads=hunter2@host/db", keyset=ev.Keyset.create("memory:"))
    assert "hunter2" not in str(raised.value)
