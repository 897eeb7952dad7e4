"""Cached index files: when they are written, loaded and removed."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encvec_store.indexes.faiss import ann
from tests.kits.faiss_cache import files, saved
from tests.kits.faiss_store import (
    CONFIG,
    DIM,
    SPEC,
    agree,
    batch,
    connect,
    content,
    oracle,
    tokens,
)

ROOT = Path(__file__).resolve().parents[2]


def test_loaded_not_rebuilt(tmp_path, parsed, monkeypatch):
    expected = saved(tmp_path)
    monkeypatch.setattr(ann.AnnIndex, "build", None)
    store = connect(tmp_path)
    agree(store, expected)
    assert len(parsed) == 2
    assert {number: partition["mapped"] for number, partition in store.index.stats()["partitions"].items()} == {
        1: 190,
        2: 30,
    }
    assert store.check() == []
    store.close()


def test_without_authenticator_nothing_is_cached(tmp_path, parsed):
    expected = saved(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "copy")
    store = connect(tmp_path / "copy")
    store.index.authenticate(None)
    agree(store, expected)
    store.flush()
    assert parsed == []
    store.close()


@pytest.mark.faults
def test_a_folder_in_the_way(tmp_path, caplog):
    """A cache that cannot be written is no error."""
    (tmp_path / "index").write_text("not a folder")
    with caplog.at_level(logging.WARNING, "encvec_store"):
        expected = saved(tmp_path)
    assert "was not saved" in caplog.text
    store = connect(tmp_path)
    agree(store, expected)
    store.close()


def test_nothing_is_left_of_a_dropped_collection(tmp_path):
    """Whoever drops it, and whoever still has an index that was not saved."""
    saved(tmp_path)
    store, other = connect(tmp_path), connect(tmp_path)
    store.put(batch([1000]), under=CONFIG)
    store.candidates({1: np.zeros((1, DIM), np.float32)}, 1)
    assert files(tmp_path)
    other.store.drop(SPEC.tenant, SPEC.name)
    assert not (tmp_path / "index" / "1").exists()
    store.close()
    assert not (tmp_path / "index" / "1").exists()
    other.close()


def test_saved_in_turns(tmp_path):
    """Two processes that both save: envelopes of one are never taken for those of the other."""
    expected = saved(tmp_path)
    one = connect(tmp_path)
    two = connect(tmp_path)
    three = connect(tmp_path)
    agree(one, expected)
    agree(two, expected)
    agree(three, expected)
    for turn in range(4):
        for collection in (one, expected):
            collection.put(batch(range(turn * 20, turn * 20 + 50), seed=turn), under=CONFIG)
        two.candidates({1: np.zeros((1, DIM), np.float32)}, 1)
        for collection in (two, expected):
            collection.remove(collection.find(tokens(range(turn * 20, turn * 20 + 5))))
        (one if turn % 2 else two).flush()
        if turn == 1:
            one.close()
            one = connect(tmp_path)
        for collection in (one, two, three):
            agree(collection, expected)
    two.close()
    one.close()
    three.close()
    store = connect(tmp_path)
    agree(store, expected)
    assert store.check() == []
    store.close()


def test_saving_again_appends(tmp_path):
    expected = saved(tmp_path)
    before = set(files(tmp_path))
    store = connect(tmp_path)
    for collection in (store, expected):
        collection.put(batch(range(500, 520)), under=CONFIG)
    store.flush()
    after = set(files(tmp_path))
    assert {name for name in before if name.startswith("envelopes")} <= after
    assert {name for name in before if name.startswith("index-2")} <= after, "unchanged, so not written again"
    assert not {name for name in before if name.startswith(("index-1", "rows"))} & after, "old files are removed"
    assert len(files(tmp_path)) == 8
    store.close()
    store = connect(tmp_path)
    agree(store, expected)
    assert store.index.stats()["partitions"][1]["mapped"] == 210
    store.close()


def test_leftovers_are_cleaned(tmp_path):
    expected = saved(tmp_path)
    for name in ("index-1-dead.faiss", "envelopes-9.bin", "manifest.json.1234"):
        (tmp_path / "index" / "1" / name).write_bytes(b"half")
    store = connect(tmp_path)
    for collection in (store, expected):
        collection.put(batch([77]), under=CONFIG)
    store.flush()
    assert len(files(tmp_path)) == 8
    agree(store, expected)
    store.close()


def test_unmapped(tmp_path):
    expected = saved(tmp_path, mapped=False)
    assert not [name for name in files(tmp_path) if name.startswith("envelopes")]
    store = connect(tmp_path, mapped=False)
    agree(store, expected)
    store.close()


def test_saved_without_being_asked(tmp_path, monkeypatch):
    """After much was indexed, so that a kill does not lose it."""
    monkeypatch.setattr("encvec_store.indexes.faiss.index._SAVE_LEAST", 100)
    store = connect(tmp_path)
    store.put(batch(range(99)), under=CONFIG)
    store.candidates({1: np.zeros((1, DIM), np.float32)}, 1)
    assert not (tmp_path / "index").exists()
    store.put(batch(range(99, 120)), under=CONFIG)
    store.candidates({1: np.zeros((1, DIM), np.float32)}, 1)
    assert "manifest.json" in files(tmp_path)
    store.close()


def test_writes_during_a_save(tmp_path, monkeypatch):
    """Envelopes are copied while others write and rebuild: what is adopted afterwards still fits."""
    store = connect(tmp_path)
    expected = oracle()
    for collection in (store, expected):
        collection.put(batch(range(200)), under=CONFIG)
    read = store.records.vectors
    busy = []

    def envelopes(rows):
        if not busy:
            busy.append(True)
            for collection in (store, expected):
                collection.remove(collection.find(tokens(range(150))))  # makes the index be rebuilt
                collection.put(batch(range(300, 320)), under=CONFIG)
            store.candidates({1: np.zeros((1, DIM), np.float32)}, 1)
        return read(rows)

    monkeypatch.setattr(store.records, "vectors", envelopes)
    store.flush()
    assert busy
    agree(store, expected)
    store.close()
    store = connect(tmp_path)
    agree(store, expected)
    store.close()


CHILD = """
import sys
from tests.kits.faiss_store import CONFIG, batch, connect
store = connect({folder!r}, flat_limit=100)
for turn in range(10_000):
    store.put(batch(range(turn * 10, turn * 10 + 15), seed=turn), under=CONFIG)
    print(turn, flush=True)
    if turn % 3 == 0:
        store.flush()
"""


@pytest.mark.faults
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_kill(tmp_path):
    """Killed at any moment, the store opens and has every record that was acknowledged."""
    turns = -1
    for after in (1, 4, 9, 2):
        code = CHILD.format(folder=str(tmp_path)).replace("range(10_000)", f"range({turns + 1}, 10_000)")
        child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(after):
            turns = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        turns = max([turns, *map(int, child.stdout.read().split())])
        child.wait()
        child.stdout.close()
        store = connect(tmp_path, flat_limit=100)
        expected = oracle()
        for turn in range(turns + 1):
            expected.put(batch(range(turn * 10, turn * 10 + 15), seed=turn), under=CONFIG)
        if store.count() > expected.count():  # committed, but killed before it could say so
            turns += 1
            expected.put(batch(range(turns * 10, turns * 10 + 15), seed=turns), under=CONFIG)
        assert content(store) == content(expected)
        agree(store, expected, exact=False)
        assert store.check() == []
        store.close()
