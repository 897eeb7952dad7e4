"""Graphs searched on a GPU, with FAISS's GPU calls kept to the CPU: when a copy is made, used, and left out.

No test here has seen a GPU.
"""

import logging

import faiss
import pytest

import encvec_store as ev
from encvec_store.sealed_index import gpu as gpus
from tests.kits import sealed
from tests.kits.gpu import cagra, fresh, gpu  # noqa: F401

DIM = 12


@pytest.fixture
def opened(tmp_path, monkeypatch, request):
    """Return what opens a collection of 400 records with a graph of a kind, and its vectors."""
    monkeypatch.setattr(gpus, "_LEAST", 100)
    sealed.small(monkeypatch)

    def opened(kind, metric="cosine", device="cuda"):
        url = f"faiss:{tmp_path}?device={device}&index={kind}"
        store = ev.connect(url, keyset=ev.Keyset.create("memory:"), maintenance="manual")
        request.addfinalizer(store.close)
        things = store.collection("things", DIM, metric=metric, scheme="sealed", fields={"n": "plain"})
        vectors = sealed.vectors_of(400, 1)
        things.upsert([str(i) for i in range(400)], vectors)
        things.flush()
        return things, vectors

    return opened


def firsts(things, vectors):
    return [hits[0].id for hits in things.search(vectors, k=5)]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_a_copy_is_searched(opened, cagra, kind, metric):  # noqa: F811
    things, vectors = opened(kind, metric)
    assert things.stats()["sealed_index"]["on_gpu"] == 0
    assert firsts(things, vectors[:50]) == [str(i) for i in range(50)]
    assert (cagra["copies"], cagra["searches"]) == (1, 1)
    assert things.search(vectors[7], k=3)[0].id == "7"
    assert (cagra["copies"], cagra["searches"]) == (1, 2)
    assert things.stats()["sealed_index"]["on_gpu"] == 400
    assert "searched on a GPU" in things.explain(vectors[0])


def test_filters_stay_on_the_cpu(opened, cagra):  # noqa: F811
    things, vectors = opened("hnsw")
    things.upsert(["odd"], vectors[:1] * 1.5, [{"n": 1}])
    assert [hit.id for hit in things.search(vectors[0], k=1, where={"n": 1})] == ["odd"]
    assert cagra["searches"] == 0


def test_dead_rows_are_left_out(opened, cagra):  # noqa: F811
    things, vectors = opened("hnsw")
    things.delete([str(i) for i in range(0, 40, 2)])
    assert firsts(things, vectors[:40])[1::2] == [str(i) for i in range(1, 40, 2)]
    assert cagra["searches"] > 0
    assert not {hit.id for hits in things.search(vectors[:40], k=20) for hit in hits} & set(map(str, range(0, 40, 2)))


def test_a_copy_goes_with_its_graph(opened, cagra):  # noqa: F811
    things, vectors = opened("hnsw")
    firsts(things, vectors[:2])
    things.upsert([f"new {i}" for i in range(100)], -vectors[:100])
    things.flush()
    assert firsts(things, -vectors[:3]) == ["new 0", "new 1", "new 2"]
    assert cagra["copies"] == 2
    assert things.stats()["sealed_index"]["on_gpu"] == 500


def test_links_that_lead_nowhere_are_not_copied(opened, cagra, monkeypatch):  # noqa: F811
    """Then a GPU scans decoded vectors."""
    monkeypatch.setattr("encvec_store.sealed_index.hnsw.Hnsw._measured", lambda self: (8, 0))
    things, vectors = opened("hnsw")
    scanned = []
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda raw, options: scanned.append(raw) or raw)
    assert firsts(things, vectors[:20]) == [str(i) for i in range(20)]
    assert isinstance(scanned[0], faiss.IndexFlat)


def test_a_gpu_without_room(opened, gpu, monkeypatch, caplog):  # noqa: F811
    def full(raw, options):
        raise RuntimeError("Error: out of memory\nat some place")

    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", full)
    things, vectors = opened("ivf")
    with caplog.at_level(logging.WARNING, "encvec_store"):
        for _ in range(2):
            assert firsts(things, vectors[:3]) == ["0", "1", "2"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith("a GPU does not take the index: Error: out of memory")
    assert things.stats()["sealed_index"]["on_gpu"] == 0


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_no_copy_without_a_wish_or_a_gpu(opened, cagra, device, monkeypatch):  # noqa: F811
    if device == "auto":
        monkeypatch.setattr("encvec_store.runtime.gpus.names", tuple)
    things, vectors = opened("ivf", device=device)
    assert firsts(things, vectors[:2]) == ["0", "1"]
    assert cagra["copies"] == 0
