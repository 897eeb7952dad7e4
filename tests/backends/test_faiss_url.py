"""What a `faiss:` URL may say, and what a folder that is no store answers."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from encvec_store.errors import StoreClosedError, StoreUnreachableError, UriError
from encvec_store.indexes.faiss import FaissBackend
from encvec_store.indexes.faiss.options import parse_url
from encvec_store.storage import open_backend

from .faiss_kit import CONFIG, SPEC, batch, connect


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("faiss:///srv/data", "/srv/data"),
        ("faiss:/srv/data", "/srv/data"),
        ("faiss:data", "data"),
        ("faiss:data/of/mine", "data/of/mine"),
        ("faiss://./data", "./data"),
        ("faiss://../data", "../data"),
        ("faiss://.", "."),
        ("faiss:///C:/data", "C:/data"),
        ("faiss:///a%20b%3F", "/a b?"),
        ("faiss:///a#b", "/a#b"),
    ],
)
def test_folder(url, folder):
    assert parse_url(url, {})[0] == Path(folder)


@pytest.mark.parametrize(
    "url", ["faiss:", "faiss://", "faiss:?index=hnsw", "faiss://host/data", "memory:", "faiss:a%00b"]
)
def test_no_folder(url):
    with pytest.raises(UriError):
        parse_url(url, {})


def test_options():
    url = "faiss:data?index=hnsw&storage=float32&ef_search=50&m=16&mapped=0&lock_timeout=.5"
    options = parse_url(url, {"nprobe": 3, "m": 8})[1]
    assert (options.index, options.storage, options.ef_search, options.m) == ("hnsw", "float32", 50, 8)
    assert (options.mapped, options.lock_timeout, options.nprobe) == (False, 0.5, 3)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("colour=red", "ef_search"),  # names the options there are
        ("index=lsh", "flat"),
        ("storage=sq4", "sq8"),
        ("m=many", "whole number"),
        ("m=1", "at least 2"),
        ("mapped=perhaps", "1 or 0"),
        ("lock_timeout=nan", "seconds"),
        ("lock_timeout=-1", "seconds"),
        ("m=4&m=5", "twice"),
    ],
)
def test_bad_options(query, told):
    with pytest.raises(UriError, match=told):
        parse_url(f"faiss:data?{query}", {})


def test_table_of_backends(tmp_path):
    backend = open_backend(f"faiss://{tmp_path}/store")
    assert isinstance(backend, FaissBackend)
    assert backend.collections() == []
    backend.close()


@pytest.mark.skipif(os.name == "nt", reason="file modes")
def test_only_the_owner_reads(tmp_path):
    backend, collection = connect(tmp_path / "deep" / "store")
    collection.put(batch(range(20)), under=CONFIG)
    collection.flush()
    for folder, _, files in os.walk(tmp_path / "deep" / "store"):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        for file in files:
            assert stat.S_IMODE(os.stat(Path(folder) / file).st_mode) == 0o600, file
    backend.close()


def test_not_a_folder(tmp_path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(StoreUnreachableError, match="file"):
        FaissBackend(f"faiss://{tmp_path}/file")
    with pytest.raises(StoreUnreachableError):
        FaissBackend(f"faiss://{tmp_path}/file/below")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_no_rights(tmp_path):
    (tmp_path / "mine").mkdir(mode=0o500)
    with pytest.raises(StoreUnreachableError, match=r"[Pp]ermission"):
        FaissBackend(f"faiss://{tmp_path}/mine/store")


def test_not_a_database(tmp_path):
    (tmp_path / "records.sqlite3").write_bytes(b"no database at all " * 100)
    with pytest.raises(StoreUnreachableError, match="not a database"):
        FaissBackend(f"faiss://{tmp_path}")


def test_database_of_something_else(tmp_path):
    with sqlite3.connect(tmp_path / "records.sqlite3") as other:
        other.execute("CREATE TABLE songs (title)")
    other.close()
    with pytest.raises(StoreUnreachableError, match="something else"):
        FaissBackend(f"faiss://{tmp_path}")


def test_newer_format(tmp_path):
    connect(tmp_path)[0].close()
    with sqlite3.connect(tmp_path / "records.sqlite3") as other:
        other.execute("UPDATE meta SET value = 99 WHERE name = 'format'")
    other.close()
    with pytest.raises(StoreUnreachableError, match=r"format 99.*upgrade"):
        FaissBackend(f"faiss://{tmp_path}")


def test_closed(tmp_path):
    backend, collection = connect(tmp_path)
    collection.put(batch(range(3)), under=CONFIG)
    backend.close()
    backend.close()
    for use in (
        backend.collections,
        lambda: backend.open("acme", "faces"),
        lambda: backend.create(SPEC, CONFIG),
        lambda: collection.put(batch([1]), under=CONFIG),
        lambda: collection.candidates({1: batch([1]).index_vectors}, 1),
        collection.count,
        collection.config,
    ):
        with pytest.raises(StoreClosedError):
            use()


def test_damaged_database_is_unreachable_and_quotes_nothing(tmp_path):
    backend, collection = connect(tmp_path)
    collection.put(batch(range(500)), under=CONFIG)
    backend.close()
    file = tmp_path / "records.sqlite3"
    size = file.stat().st_size
    with file.open("r+b") as damaged:
        damaged.seek(4 * 8192)
        damaged.write(b"\xa5" * (size - 4 * 8192))
    with pytest.raises(StoreUnreachableError) as told:  # noqa: PT012 - either of them may be the first to see it
        backend, collection = connect(tmp_path)
        try:
            collection.put(batch(range(500), seed=1), under=CONFIG)
        finally:
            backend.close()
    assert "SELECT" not in str(told.value)
    assert told.value.__suppress_context__
