"""What a `faiss:` URL may say, and what a folder that is no store answers."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from encvec_store.errors import StoreClosedError, StoreUnreachableError, UriError
from encvec_store.indexes.faiss import FaissIndex
from encvec_store.indexes.faiss import connect as open_url
from encvec_store.indexes.faiss.options import parse_url
from encvec_store.storage import MemoryStore
from encvec_store.storage.sqlite import SqliteStore
from tests.kits.faiss_store import CONFIG, SPEC, Authenticator, batch, connect


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
        ("m=many", "must be an integer"),
        ("m=1", "must be an integer >= 2, got 1"),
        ("mapped=perhaps", "1 or 0"),
        ("lock_timeout=nan", "seconds"),
        ("lock_timeout=-1", "seconds"),
        ("m=4&m=5", "twice"),
    ],
)
def test_bad_options(query, told):
    with pytest.raises(UriError, match=told):
        parse_url(f"faiss:data?{query}", {})


def test_what_a_url_opens(tmp_path):
    connection = open_url(f"faiss://{tmp_path}/store?device=auto&lock_timeout=1")
    assert isinstance(connection.store, SqliteStore)
    assert (connection.store.url, connection.device) == (f"faiss://{tmp_path}/store?device=auto&lock_timeout=1", "auto")
    assert connection.store.collections() == []
    assert isinstance(connection.index(connection.store.create(SPEC, CONFIG)), FaissIndex)
    connection.store.close()


def test_an_index_over_other_records_keeps_no_files(tmp_path):
    """The folder of a number in this store is not theirs."""
    connection = open_url(f"faiss://{tmp_path}")
    records = MemoryStore().create(SPEC, CONFIG)
    records.put(batch(range(9)), under=CONFIG)
    index = connection.index(records)
    index.authenticate(Authenticator())
    assert len(index.candidates({1: batch([1]).index_vectors}, 5)[0]) == 5
    index.flush()
    assert not (tmp_path / "index").exists()
    connection.store.close()


@pytest.mark.skipif(os.name == "nt", reason="file modes")
def test_only_the_owner_reads(tmp_path):
    collection = connect(tmp_path / "deep" / "store")
    collection.put(batch(range(20)), under=CONFIG)
    collection.flush()
    for folder, _, files in os.walk(tmp_path / "deep" / "store"):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        for file in files:
            assert stat.S_IMODE(os.stat(Path(folder) / file).st_mode) == 0o600, file
    collection.close()


def test_not_a_folder(tmp_path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(StoreUnreachableError, match="file"):
        open_url(f"faiss://{tmp_path}/file")
    with pytest.raises(StoreUnreachableError):
        open_url(f"faiss://{tmp_path}/file/below")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_no_rights(tmp_path):
    (tmp_path / "mine").mkdir(mode=0o500)
    with pytest.raises(StoreUnreachableError, match=r"[Pp]ermission"):
        open_url(f"faiss://{tmp_path}/mine/store")


def test_not_a_database(tmp_path):
    (tmp_path / "records.sqlite3").write_bytes(b"no database at all " * 100)
    with pytest.raises(StoreUnreachableError, match="not a database"):
        open_url(f"faiss://{tmp_path}")


def test_database_of_something_else(tmp_path):
    with sqlite3.connect(tmp_path / "records.sqlite3") as other:
        other.execute("CREATE TABLE songs (title)")
    other.close()
    with pytest.raises(StoreUnreachableError, match="of another program"):
        open_url(f"faiss://{tmp_path}")


def test_newer_format(tmp_path):
    connect(tmp_path).close()
    with sqlite3.connect(tmp_path / "records.sqlite3") as other:
        other.execute("UPDATE meta SET value = 99 WHERE name = 'format'")
    other.close()
    with pytest.raises(StoreUnreachableError, match=r"format 99.*upgrade"):
        open_url(f"faiss://{tmp_path}")


def test_closed(tmp_path):
    collection = connect(tmp_path)
    collection.put(batch(range(3)), under=CONFIG)
    collection.close()
    collection.close()
    for use in (
        collection.store.collections,
        lambda: collection.store.open("acme", "faces"),
        lambda: collection.store.create(SPEC, CONFIG),
        lambda: collection.put(batch([1]), under=CONFIG),
        lambda: collection.candidates({1: batch([1]).index_vectors}, 1),
        collection.count,
        collection.config,
    ):
        with pytest.raises(StoreClosedError):
            use()


def test_damaged_database_is_unreachable_and_quotes_nothing(tmp_path):
    collection = connect(tmp_path)
    collection.put(batch(range(500)), under=CONFIG)
    collection.close()
    file = tmp_path / "records.sqlite3"
    size = file.stat().st_size
    with file.open("r+b") as damaged:
        damaged.seek(4 * 8192)
        damaged.write(b"\xa5" * (size - 4 * 8192))
    with pytest.raises(StoreUnreachableError) as told:  # noqa: PT012 - either of them may be the first to see it
        collection = connect(tmp_path)
        try:
            collection.put(batch(range(500), seed=1), under=CONFIG)
        finally:
            collection.close()
    assert "SELECT" not in str(told.value)
    assert told.value.__suppress_context__


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in ("faiss:~/data", "faiss://~/data"):
        assert parse_url(url, {})[0] == tmp_path / "data"
    assert parse_url("faiss:./~/data", {})[0].name == "data"
    with pytest.raises(UriError, match="home directory"):
        parse_url("faiss:~nobody-of-this-name/data", {})
