"""Cached index files: whatever befalls them, answers stay right; and what is forged is never parsed."""

import json
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
from encvec_store.storage.sqlite import SqliteStore
from encvec_store.storage.sqlite import files as cache_files
from tests.kits.faiss_store import (
    CONFIG,
    DIM,
    SPEC,
    Authenticator,
    agree,
    batch,
    connect,
    content,
    kept,
    oracle,
    tokens,
)

ROOT = Path(__file__).resolve().parents[2]


def saved(folder, n=200, **options):
    """A store that was filled, searched, saved and closed; and its oracle."""
    store = connect(folder, **options)
    expected = oracle()
    for collection in (store, expected):
        collection.put(batch(range(n)), under=CONFIG)
        collection.put(batch(range(n, n + 30), partition=2), under=CONFIG)
        collection.remove(collection.find(tokens(range(10))))
    store.flush()
    store.close()
    return expected


def files(folder):
    return sorted(path.name for path in (folder / "index" / "1").iterdir())


@pytest.fixture
def parsed(monkeypatch):
    """What FAISS was given to parse."""
    seen, read = [], ann.AnnIndex.read.__func__

    def spy(cls, data, *rest):
        seen.append(data)
        return read(cls, data, *rest)

    monkeypatch.setattr(ann.AnnIndex, "read", classmethod(spy))
    return seen


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


def test_only_ours_is_parsed(tmp_path, parsed, caplog):
    expected = saved(tmp_path)
    store = connect(tmp_path, authenticator=Authenticator(b"another"))
    with caplog.at_level(logging.WARNING, "encvec_store"):
        agree(store, expected)
    assert parsed == []
    assert "not authentic" in caplog.text
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


def damages(data):
    yield None
    yield b""
    yield data[: len(data) // 2]
    yield data + b"more"
    for i in (0, len(data) // 2, len(data) - 1):
        yield data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["manifest.json", "index-1", "rows-1", "envelopes-1"])
@pytest.mark.parametrize("number", range(7))
def test_damage(tmp_path, parsed, kind, number):
    expected = saved(tmp_path)
    (path,) = ((tmp_path / "index" / "1") / name for name in files(tmp_path) if name.startswith(kind))
    original = path.read_bytes()
    damaged = list(damages(original))[number]
    if damaged is None:
        path.unlink()
    else:
        path.write_bytes(damaged)
    store = connect(tmp_path)
    if kind == "envelopes-1":
        # a flipped slot shows when it is opened: then the caller reads the source and drops the cache
        rows = store.rows()
        store.candidates({1: np.zeros((1, DIM), np.float32)}, 1)
        if not np.array_equal(store.index.vectors(rows)[1], store.vectors(rows)[1]):
            store.index.forget()
    elif kind == "index-1":
        assert damaged not in parsed
        assert damaged is None or any("only a cache" in line for line in store.check())
    agree(store, expected)
    if kind != "envelopes-1":
        assert damaged is None or damaged not in parsed
    store.flush()
    assert store.check() == []
    store.close()
    store = connect(tmp_path)
    agree(store, expected)
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


def rename(folder, **fields):
    """Change fields of the manifest, under a good tag."""
    path = folder / "index" / "1" / "manifest.json"
    document = {**json.loads(path.read_bytes()), **fields}
    del document["tag"]
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    path.write_text(json.dumps({**document, "tag": Authenticator().tag(text).hex()}))


def test_files_of_an_older_content_are_not_parsed(tmp_path, parsed, caplog):
    """All rows keep their numbers when content is replaced; index vectors do not stay."""
    expected = saved(tmp_path)
    before = set(files(tmp_path))
    records = SqliteStore(tmp_path).open(SPEC.tenant, SPEC.name)
    names = [n for n in range(300) if records.find(tokens([n])).any()]
    for replaced in (records, expected):
        replaced.replace([kept(replaced, names, seed=7)], CONFIG, under=CONFIG, index_dim=DIM)
    store = connect(tmp_path)
    agree(store, expected)
    assert parsed == []
    assert not caplog.records, "it is no damage"
    assert store.check() == []
    store.flush()
    store.close()
    assert not {name for name in before if name.startswith(("index", "rows", "envelopes"))} & set(files(tmp_path))
    store = connect(tmp_path)
    agree(store, expected)
    assert len(parsed) == 1
    store.close()


@pytest.mark.faults
def test_older_copy_of_the_records_put_back_and_replaced_again(tmp_path, parsed):
    """Two contents that were made of the same records must not be taken for each other."""
    expected, path = saved(tmp_path), tmp_path / "records.sqlite3"
    old = path.read_bytes()
    for seed in (7, 8):  # the cache is of the first
        path.write_bytes(old)
        store = connect(tmp_path)
        store.replace([kept(store, range(20, 60), seed=seed)], CONFIG, under=CONFIG, index_dim=DIM)
        if seed == 7:
            store.flush()
            store.close()
    expected.replace([kept(expected, range(20, 60), seed=8)], CONFIG, under=CONFIG, index_dim=DIM)
    del parsed[:]
    agree(store, expected)
    assert parsed == []
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


@pytest.mark.faults
@pytest.mark.parametrize("piece", [1, 1000, 1 << 20])
def test_no_byte_of_an_altered_piece_is_given(tmp_path, piece, monkeypatch):
    monkeypatch.setattr(cache_files, "PIECE", piece)
    content = os.urandom(5000)
    entry = cache_files.write_hashed(tmp_path, "it", lambda write: [write(content[:1234]), write(content[1234:])])
    assert cache_files.read_hashed(tmp_path, entry) == content
    altered = bytearray(content)
    altered[4321] ^= 1
    (tmp_path / "it").write_bytes(altered)
    given: list[bytes] = []
    with cache_files.reading(tmp_path, entry) as read, pytest.raises(ValueError, match="altered"):
        given.extend(iter(lambda: read(700), b""))
    assert b"".join(given) == content[: 4321 // piece * piece]
    assert all(len(some) <= 700 for some in given)
    for size in (4999, 5001):
        (tmp_path / "it").write_bytes(content[:size] + bytes(max(0, size - 5000)))
        with pytest.raises(ValueError, match="altered"):
            cache_files.check_hashed(tmp_path, entry)


def test_an_older_format_is_no_damage(tmp_path, parsed, caplog):
    expected = saved(tmp_path)
    rename(tmp_path, format=1)
    store = connect(tmp_path)
    assert store.check() == []
    agree(store, expected)
    assert parsed == []
    assert not caplog.records
    store.close()


@pytest.mark.faults
def test_manifest_of_another_collection(tmp_path, parsed):
    """Files with a good tag, moved: they are of another collection."""
    expected = saved(tmp_path)
    rename(tmp_path, name="bodies")
    store = connect(tmp_path)
    agree(store, expected)
    assert parsed == []
    store.close()


@pytest.mark.faults
def test_older_copy_of_the_records_put_back(tmp_path):
    """The cache knows rows that never were, of a generation that comes again with other content."""
    expected = oracle()
    store = connect(tmp_path)
    for collection in (store, expected):
        collection.put(batch(range(50)), under=CONFIG)
    store.close()
    kept = (tmp_path / "records.sqlite3").read_bytes()
    store = connect(tmp_path)
    store.put(batch(range(50, 90)), under=CONFIG)
    store.flush()
    store.close()
    for name in ("-wal", "-shm"):
        (tmp_path / f"records.sqlite3{name}").unlink(missing_ok=True)
    (tmp_path / "records.sqlite3").write_bytes(kept)
    store = connect(tmp_path)
    for collection in (store, expected):
        collection.put(batch(range(30, 70), seed=5), under=CONFIG)
    agree(store, expected)
    store.close()


def test_older_copy_of_the_cache_put_back(tmp_path):
    expected = saved(tmp_path)
    shutil.copytree(tmp_path / "index", tmp_path / "old")
    store = connect(tmp_path)
    for collection in (store, expected):
        collection.put(batch(range(100, 300), seed=5), under=CONFIG)
    store.flush()
    store.close()
    shutil.rmtree(tmp_path / "index")
    shutil.move(tmp_path / "old", tmp_path / "index")
    store = connect(tmp_path)
    agree(store, expected)
    store.close()


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
