"""`verify` looks at the stored index too."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import low_level
from encvec_store.sealed_index import builder, kinds, saving
from encvec_store.sealed_index.checking import check

DIM = 8


@pytest.fixture(params=["hnsw", "ivf"])
def things(request, monkeypatch, tmp_path):
    monkeypatch.setattr(builder, "FIRST", 50)
    with ev.connect(f"faiss://{tmp_path}?index={request.param}", keyset=ev.Keyset.create("memory:")) as store:
        things = store.collection("things", dim=DIM, scheme="sealed")
        things.upsert([str(i) for i in range(200)], np.random.default_rng(0).normal(size=(200, DIM)))
        yield things


def tampered(tmp_path, change, names):
    with closing(sqlite3.connect(tmp_path / "records.sqlite3")) as database, database:
        assert database.execute(f"{change} WHERE name GLOB ?", [names]).rowcount


def test_a_sound_index_has_no_faults(things):
    assert things.verify().ok
    things.flush()
    things.delete(["3"])
    assert things.verify().ok


@pytest.mark.parametrize(
    ("change", "names", "fault"),
    [
        ("UPDATE blobs SET content = zeroblob(length(content))", "index.1", "the manifest is damaged"),
        ("UPDATE blobs SET content = zeroblob(length(content))", "index.1.*", "graph 1 of 1 is damaged"),
        ("DELETE FROM blobs", "index.1.*", "is not in the store"),
    ],
)
def test_damage_is_found(things, tmp_path, change, names, fault):
    things.flush()
    tampered(tmp_path, change, names)
    report = things.verify()
    assert not report.ok
    assert not report.damaged
    assert fault in report.store[0]
    assert all("only a cache" in line for line in report.store)
    assert len(report.store) == 1 or "columns 1 of 1 are damaged" in report.store[1]


def test_codes_of_other_vectors_are_found(things, monkeypatch):
    write = saving.Shelf._write

    def turned(self, records, keyring, version, arrays, n):
        arrays = {name: array[::-1] if name == "codes" else array for name, array in arrays.items()}
        return write(self, records, keyring, version, arrays, n)

    monkeypatch.setattr(saving.Shelf, "_write", turned)
    things.flush()
    (line,) = check(low_level.session(things), "cosine", DIM)
    assert "codes are of other vectors" in line


@pytest.mark.parametrize("names", ["index.1", "index.1.*"])
def test_what_is_damaged_goes_with_the_next_build(tmp_path, monkeypatch, names):
    """Also where there are too few records for a new graph: `verify` must not complain for good."""
    keyset = ev.Keyset.create("memory:")
    vectors = np.random.default_rng(0).normal(size=(200, DIM))
    with monkeypatch.context() as patched, ev.connect(f"faiss://{tmp_path}", keyset=keyset) as store:
        patched.setattr(builder, "FIRST", 50)
        patched.setattr(kinds, "_FLAT_MOST", 50)
        things = store.collection("things", dim=DIM, scheme="sealed")
        things.upsert([str(i) for i in range(200)], vectors)
        things.flush()
    tampered(tmp_path, "UPDATE blobs SET content = zeroblob(length(content))", names)
    with ev.connect(f"faiss://{tmp_path}?lock_timeout=9", keyset=keyset) as store:  # shares nothing with the first
        things = store.collection("things")
        assert not things.verify().ok
        things.maintain()
        assert things.verify().ok
        assert low_level.session(things).records.blobs("index.") == {}
        assert things.search(vectors[7], k=1)[0].id == "7"
