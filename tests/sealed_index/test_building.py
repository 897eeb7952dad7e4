"""What a build tells while it runs, and what a process says that leaves records unindexed."""

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import low_level
from encvec_store.maintenance import indexing
from encvec_store.sealed_index import builder, growth, hnsw, ivf, kinds, lease

DIM = 8


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(builder, "FIRST", 50)
    monkeypatch.setattr(indexing, "FIRST", 50)
    monkeypatch.setattr(hnsw, "_PIECE", 64)
    monkeypatch.setattr(ivf, "_PIECE", 64)
    monkeypatch.setattr(growth, "PIECE", 64)


def vectors(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def filled(url, n=200, **how):
    store = ev.connect(url, keyset=ev.Keyset.create("memory:"), **how)
    things = store.collection("things", dim=DIM, scheme="sealed")
    things.upsert([f"{i}" for i in range(n)], vectors(n))
    return store, things


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_graphs_take_vectors_in_pieces(small, kind):
    given = vectors(220)
    growing = kinds.begin(kind, "l2", given, 220)
    for start in range(0, 150, 70):
        growing.add(given[start : min(start + 70, 150)])
    graph = growing.finished()
    whole = graph.extended(given[150:])
    assert (graph.count, whole.count) == (150, 220)
    for position in (0, 69, 70, 149, 150, 219):
        assert whole.search(given[position : position + 1], 1)[0][0][0] == position


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_decoded_vectors_are_near_the_exact_ones(kind):
    exact = vectors(300)
    graph = kinds.build(kind, "l2", exact)
    places = np.array([299, 0, 17])
    assert np.abs(graph.decoded(places)[:, :DIM] - exact[places]).max() < 0.5


def test_a_build_reports_progress_and_renews_its_lease(small, monkeypatch, tmp_path):
    asked = []
    taken = lease.Lease.taken
    monkeypatch.setattr(lease.Lease, "due", property(lambda self: True))
    monkeypatch.setattr(lease.Lease, "taken", lambda self: asked.append(1) or taken(self))
    told = []
    store, things = filled(f"faiss://{tmp_path}?index=hnsw", maintenance="manual")
    with store:
        assert things.maintain(progress=lambda *steps: told.append(steps)) == ["index 200 new records"]
    assert told == [(64, 200), (64, 200), (64, 200), (8, 200)]
    assert len(asked) >= 4


def test_who_leaves_records_unindexed_is_told_once(small, tmp_path, caplog):
    store, things = filled(f"faiss://{tmp_path}?index=hnsw", maintenance="manual")
    things.search(vectors(1)[0], k=1)
    store.close()
    hints = [record.message for record in caplog.records if "not indexed" in record.message]
    assert hints == ["200 records are not indexed: run `encvec maintain`"]


@pytest.mark.parametrize("case", ["indexed", "flat", "inline"])
def test_others_are_not(small, tmp_path, caplog, case):
    url = f"faiss://{tmp_path}?index={'flat' if case == 'flat' else 'hnsw'}"
    store, things = filled(url, maintenance="inline" if case == "inline" else "manual")
    if case == "indexed":
        things.flush()
    store.close()
    assert "not indexed" not in caplog.text


def test_stats_tell_what_is_stored_before_it_is_loaded(small, tmp_path):
    keyset, url = ev.Keyset.create("memory:"), f"faiss://{tmp_path}?index=hnsw"
    with ev.connect(url, keyset=keyset, maintenance="manual") as store:
        things = store.collection("things", dim=DIM, scheme="sealed")
        things.upsert([f"{i}" for i in range(200)], vectors(200))
        things.flush()
        built = things.stats()["sealed_index"]
        assert (built["kind"], built["rows"], built["stored_rows"], built["segments"]) == ("hnsw", 200, 200, 3)
        assert built["loaded"]
        sizes = [size for _, size in low_level.session(things).records.blobs("index.").values()]
        assert built["stored_bytes"] == sum(sizes)
        assert built["columns"]["segments"] == 1
        assert built["columns"]["stored_bytes"] in sizes
    del things, store
    with ev.connect(url, keyset=keyset) as store:
        found = store.collection("things").stats()["sealed_index"]
        assert not found["loaded"]
        assert found["stored_bytes"] == built["stored_bytes"] > 0
        assert (found["kind"], found["stored_rows"], found["segments"]) == ("hnsw", 200, 3)


def test_a_failed_build_is_in_the_stats(small, monkeypatch, tmp_path):
    def broken(*given, **named):
        raise MemoryError("no room")

    monkeypatch.setattr(growth, "begin", broken)
    store, things = filled(f"faiss://{tmp_path}?index=hnsw", maintenance="inline")
    with store:
        index = things.stats()["sealed_index"]
        assert (index["failed"], index["building"]) == ("MemoryError: no room", False)
        assert things.search(vectors(1)[0], k=1)[0].id == "0"


def test_an_index_that_was_deleted_is_stored_again(small, tmp_path):
    """As when another process changed the scheme, and changed it back."""
    store, things = filled(f"faiss://{tmp_path}?index=hnsw", maintenance="manual")
    with store:
        things.flush()
        session = low_level.session(things)
        there = session.records.blobs("index.")
        session.records.keep(drop=there)
        things.flush()
        assert len(session.records.blobs("index.")) == len(there)
        assert things.verify().ok
        assert things.stats()["sealed_index"]["stored_rows"] == 200
