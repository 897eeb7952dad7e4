"""What is said of schemes: that a store ranks by one, and what has no effect on sealed collections."""

import logging

import pytest

import encvec_store as ev
from encvec_store.indexes.faiss import FaissOptions
from encvec_store.maintenance import notices
from encvec_store.storage.postgres import PostgresOptions
from tests.kits import oracle

DIM = 8


@pytest.fixture
def told(monkeypatch, caplog):
    """Return what takes the lines that were logged since the last call."""
    monkeypatch.setattr(notices, "_told", set())
    caplog.set_level(logging.WARNING, "encvec_store")

    def told():
        lines = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return lines

    return told


def opened(url="memory:"):
    return ev.connect(url, keyset=ev.Keyset.create("memory:"))


def test_server_ranked_schemes_are_told_once(told):
    with opened() as store:
        things = store.collection("default", DIM)
        assert things.stats()["scheme"] == {"name": "sealed"}
        assert told() == []
        for name, scheme in (("a", "sketch"), ("b", {"name": "sketch", "k": 4})):
            store.collection(name, DIM, scheme=scheme)
        (line,) = told()
        assert line.startswith("sketch is a server-ranked scheme")
        assert "docs/threat-model.md" in line
        assert things.change(scheme="sap").changed
        assert [line.partition(" ")[0] for line in told()] == ["sap"]
        assert store.collection("default").stats()["scheme"]["name"] == "sap", "what is stored stays"
        assert told() == []


def test_what_does_nothing_is_told_once(told, tmp_path):
    with opened(f"faiss://{tmp_path}?index=hnsw&m=16&ef_search=50") as store:
        store.collection("ranked", DIM, scheme="sap", oversample=20)
        told()
        things = store.collection("things", DIM)
        assert told() == [
            "ef_search, m: only for server-ranked schemes (sketch, sap), without effect on sealed collections, whose"
            " index chooses by itself"
        ]
    with opened() as store:
        things = store.collection("things", DIM, oversample=20, max_norm=None)
        assert [line.partition(":")[0] for line in told()] == ["oversample"]
        things.upsert(oracle.ids(3), oracle.vectors(3, DIM))
        assert things.stats()["oversample"] is None
        store.collection("things", oversample=30)
        assert told() == []
        assert things.change(scheme="sketch").changed
        assert things.stats()["oversample"] == 20, "it was kept"


def test_calibrate_and_refit_say_whom_they_are_for(told):
    with opened() as store:
        things = store.collection("things", DIM)
        with pytest.raises(ev.errors.CalibrationError, match=r"server-ranked schemes \(sketch, sap\): 'sealed' has no"):
            things.calibrate()
        with pytest.raises(ev.errors.CalibrationError, match="'sealed' has no profile to fit"):
            things.refit()


def test_options_of_server_ranked_indexes():
    assert FaissOptions().ranked == PostgresOptions().ranked == ()
    assert FaissOptions(index="ivf", nprobe=3, mode="ro", mapped=False).ranked == ("nprobe", "mapped")
    assert PostgresOptions(index="hnsw", pool_size=3, m=20).ranked == ("m",)
    assert PostgresOptions(index="bit", lists=20).ranked == ("index", "lists")
