"""Cached index files that were damaged, swapped or put back: answers stay right, and what is forged is never parsed."""

import json
import logging
import os
import shutil

import numpy as np
import pytest

from encvec_store.storage.sqlite import SqliteStore
from encvec_store.storage.sqlite import files as cache_files
from tests.kits.faiss_cache import files, saved
from tests.kits.faiss_store import (
    CONFIG,
    DIM,
    SPEC,
    Authenticator,
    agree,
    batch,
    connect,
    kept,
    oracle,
    tokens,
)


def test_only_ours_is_parsed(tmp_path, parsed, caplog):
    expected = saved(tmp_path)
    store = connect(tmp_path, authenticator=Authenticator(b"another"))
    with caplog.at_level(logging.WARNING, "encvec_store"):
        agree(store, expected)
    assert parsed == []
    assert "not authentic" in caplog.text
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
