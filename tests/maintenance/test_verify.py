"""`verify` says which kept indexes are older than their records. That is no damage, and answers are right."""

import json
import shutil

import numpy as np
import pytest

import encvec_store as ev
from tests.kits import sealed

DIM = 8


@pytest.fixture(params=["sap", "sealed", "sealed-pg"])
def opened(request, tmp_path, monkeypatch):
    """Return what opens the collection "things" of one place, after what opened it before was closed."""
    sealed.small(monkeypatch)
    keyset = ev.Keyset.create("memory:")
    scheme, _, where = request.param.partition("-")
    url = request.getfixturevalue("pg_dsn") if where else f"faiss:{tmp_path}/store?index=hnsw"

    stores = []

    def opened():
        for store in stores:
            store.close()
        sealed.apart()
        stores.append(ev.connect(url, keyset=keyset, maintenance="manual", **({"index": "hnsw"} if where else {})))
        request.addfinalizer(stores[-1].close)
        return stores[-1].collection("things", dim=DIM, scheme=scheme, oversample=100)

    return opened


def named(n, start=0):
    return [str(i) for i in range(start, start + n)]


def vectors(n):
    return np.random.default_rng(0).normal(size=(n, DIM)).astype(np.float32)


def told(things):
    report = things.verify()
    assert report.ok
    return [line.partition(": ")[2] for line in report.notes]


def test_an_index_older_than_its_records(opened):
    first = opened()
    first.upsert(named(200), vectors(200))
    assert told(first) == []
    first.flush()
    assert told(first) == []
    second = opened()
    second.upsert(["late"], np.ones((1, DIM), np.float32))
    assert told(second) == ["1 write older than the records; the next search brings it up to date"]
    second.delete(named(3))
    assert told(second) == ["2 writes older than the records; the next search brings it up to date"]
    assert second.search(np.ones(DIM), k=1)[0].id == "late"
    second.upsert(named(60, 300), vectors(60))
    second.flush()
    assert told(second) == told(opened()) == []


def test_an_index_of_another_history(tmp_path):
    """The records were put back from a backup, their index was not."""
    keyset, folder = ev.Keyset.create("memory:"), tmp_path / "store"

    def life(count, start=0):
        with ev.connect(f"faiss:{folder}?index=hnsw", keyset=keyset) as store:
            things = store.collection("things", dim=DIM, scheme="sap", oversample=100)
            things.upsert(named(count, start), vectors(count))
            things.flush()

    life(100)
    shutil.copy(folder / "records.sqlite3", tmp_path / "backup")
    life(50, 100)
    shutil.copy(tmp_path / "backup", folder / "records.sqlite3")
    with ev.connect(f"faiss:{folder}?index=hnsw", keyset=keyset) as store:
        things = store.collection("things")
        assert told(things) == ["of another state of the records; the next search brings it up to date"]
        assert json.loads(json.dumps(things.verify().to_dict()))["notes"]
        hits = things.search(vectors(1)[0], k=100)
        assert {hit.id for hit in hits} == set(named(100))
