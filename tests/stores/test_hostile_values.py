"""Values that no write of ours makes: every call answers rightly or with an error of ours, and nothing crashes."""

import contextlib
import os
import sqlite3

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import errors

DIM = 8
N = 6
LARGEST = (1 << 63) - 1
ENDLESS = f"x'{1:016x}{LARGEST - 1:016x}'"
"""A range of rows that no memory holds."""

VALUES = [
    f"collections SET {column} = {value}"
    for column in ("generation", "stamp", "content", "purged_generation", "index_dim", "envelope_size")
    for value in ("'many'", LARGEST, -LARGEST, 1.5, "NULL", "x'00'")
    if value != "NULL"
] + [
    "collections SET config = 'text'",
    "collections SET config = 5",
    f"collections SET config = {LARGEST}",
    "collections SET name = x'ff00', tenant = 5",
    "collections SET name = CAST(x'ff' AS TEXT)",
    "meta SET value = 'many' WHERE name = 'next_row'",
    f"meta SET value = {LARGEST} WHERE name = 'next_row'",
    "meta SET value = -5 WHERE name = 'next_row'",
    "meta SET value = 'one' WHERE name = 'format'",
    "meta SET value = 1.5 WHERE name = 'revision'",
    "partitions SET records = 'many'",
    f"partitions SET records = {LARGEST}",
    f"partitions SET records = {-LARGEST}",
    "partitions SET partition = 'first'",
    f"partitions SET partition = {LARGEST}",
    "records SET partition = 'first'",
    "records SET partition = '1,2'",
    "records SET partition = -1",
    f"records SET partition = {LARGEST}",
    "records SET partition = 1.5",
    f"records SET row = {LARGEST} WHERE row = (SELECT max(row) FROM records)",
    "records SET row = -7 WHERE row = (SELECT max(row) FROM records)",
    "records SET payload = 'text'",
    "records SET payload = zeroblob(1000000)",
    "vectors SET envelope = 5",
    "index_vectors SET vector = 'text'",
    "terms SET kind = 5, value = 'x'",
    "terms SET field = x'ff'",
    f"changes SET rows = {ENDLESS}",
    f"changes SET rows = x'{'80' + 14 * '0'}{LARGEST:016x}'",
    "changes SET rows = 'text'",
    "changes SET kind = 'added'",
    "changes SET generation = 'first' WHERE generation = (SELECT max(generation) FROM changes)",
]


def calls(store, things):
    """Everything that reads, then everything that writes."""
    query = np.ones(DIM, np.float32)
    yield lambda: things.search(query, k=N)
    yield lambda: things.search(query, k=N, where={"n": {"gte": 0}})
    yield lambda: things.get(["id-0", "id-1"])
    yield lambda: list(things.scroll())
    yield lambda: things.count()
    yield lambda: things.count({"n": 1})
    yield lambda: things.stats()
    yield lambda: things.explain(query)
    yield lambda: things.verify()
    yield lambda: store.collections()
    yield lambda: things.upsert(["id-0", "more"], np.ones((2, DIM)), [{"n": 1}] * 2)
    yield lambda: things.search(query, k=N)
    yield lambda: things.delete(["id-1"])
    yield lambda: things.flush()
    yield lambda: things.calibrate(np.random.default_rng(0).standard_normal((200, DIM)), target_recall=0.5)
    yield lambda: store.drop("things")


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


@pytest.fixture
def folder(tmp_path, keyset):
    with ev.connect(f"faiss:{tmp_path / 'data'}", keyset=keyset, maintenance="manual") as store:
        things = store.collection("things", DIM, scheme={"name": "sap", "beta": 0.5}, fields={"n": "plain"})
        for i in range(N):
            things.upsert([f"id-{i}"], np.eye(DIM)[i : i + 1], [{"n": i}])
        things.search(np.ones(DIM))
        things.flush()
        things.upsert(["last"], np.ones((1, DIM)), [{"n": N}])
    return tmp_path / "data"


def alter(folder, change):
    with contextlib.closing(sqlite3.connect(folder / "records.sqlite3")) as database, database:
        database.execute(f"UPDATE {change}")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("opened", ["before", "after"])
@pytest.mark.parametrize("change", VALUES)
def test_hostile_values_in_sqlite(folder, keyset, change, opened):
    url = f"faiss:{folder}"
    with contextlib.suppress(errors.EncvecError), ev.connect(url, keyset=keyset, maintenance="manual") as store:
        things = store.collection("things") if opened == "before" else None
        if things is not None:
            things.search(np.ones(DIM))
            alter(folder, change)
        else:
            alter(folder, change)
            things = store.collection("things")
        for call in calls(store, things):
            with contextlib.suppress(errors.EncvecError):
                call()
    with contextlib.suppress(errors.EncvecError):
        ev.connect(url, keyset=keyset).close()


def test_mapped_vectors_cut_short_under_an_open_store(tmp_path, keyset):
    """Reading a map beyond the end of its file kills a process: in a child, so that it can be seen."""
    url = f"faiss:{tmp_path / 'data'}"
    with ev.connect(url, keyset=keyset) as store:
        things = store.collection("things", DIM, scheme={"name": "sap", "beta": 0.5})
        things.upsert([f"id-{i}" for i in range(5000)], np.random.default_rng(0).standard_normal((5000, DIM)))
        things.flush()
        expected = [hit.id for hit in things.search(np.ones(DIM), k=5)]
        (file,) = (tmp_path / "data" / "index").rglob("envelopes-*")
        child = os.fork()
        if not child:
            os.truncate(file, 0)
            found = [hit.id for hit in things.search(np.ones(DIM), k=5)]
            os._exit(found != expected)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"tag": ' + b'{"a":' * 100_000, b"\xff", b"", b"1", b'{"tag": 5}'])
def test_hostile_manifests(folder, keyset, text):
    (manifest,) = (folder / "index").rglob("manifest.json")
    manifest.write_bytes(text)
    with ev.connect(f"faiss:{folder}", keyset=keyset) as store:
        things = store.collection("things")
        assert "cached index" in "".join(things.verify().store)
        assert len(things.search(np.ones(DIM), k=N)) == N


@pytest.mark.parametrize("size", [0, 1 << 13, 1 << 18])
def test_a_database_cut_short_under_an_open_store(tmp_path, keyset, size):
    """SQLite maps its file, too."""
    with ev.connect(f"faiss:{tmp_path / 'data'}", keyset=keyset) as store:
        things = store.collection("things", DIM, scheme="sealed")
        ids = [f"id-{i}" for i in range(2000)]
        things.upsert(ids, np.random.default_rng(0).standard_normal((2000, DIM)))
        assert len(things.get(ids)) == 2000
        things.flush()
        path = tmp_path / "data" / "records.sqlite3"
        assert path.stat().st_size > 1 << 18, "it is not all in the write-ahead log"
        child = os.fork()
        if not child:
            os.truncate(path, size)
            with contextlib.suppress(errors.StoreUnreachableError):
                things.get(ids)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
