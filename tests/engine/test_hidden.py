"""Under threat="watching-server" the reads of a store do not depend on queries, or only through whole buckets."""

import os
import sqlite3
import subprocess
import sys

import numpy as np
import psycopg
import pytest

import encvec_store as ev
from encvec_store import low_level
from encvec_store.engine.hidden import buckets
from encvec_store.sealed_index import BUDGET
from tests.kits import sealed
from tests.kits.sealed import DIM, Answers, apart, vectors_of
from tests.kits.watched import rows_read, watch

K, FEW, TINY = 5, 200, 120_000
"""TINY bytes hold the index of so few records, but not their sealed parts."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    sealed.small(monkeypatch)


@pytest.fixture(params=["faiss", "postgresql"])
def connect(request, tmp_path):
    """Return a function that opens the store, apart from earlier openings."""
    keyset = ev.Keyset.create("memory:")
    url = f"faiss://{tmp_path}/store" if request.param == "faiss" else request.getfixturevalue("pg_dsn")

    def opening(threat="watching-server", **how):
        apart()
        return ev.connect(url, keyset=keyset, index="hnsw", maintenance="manual", threat=threat, **how)

    opening.keyset = keyset
    return opening


def filled(store, n=FEW, seed=0):
    things = store.collection("things", dim=DIM, scheme="sealed", fields={"n": "blind"})
    names, vectors = [f"{i}" for i in range(n)], vectors_of(n, seed)
    things.upsert(names, vectors, [{"n": i % 4} for i in range(n)], [f"text {name}" for name in names])
    things.maintain()
    return dict(zip(names, vectors, strict=True))


def asked(things, queries, more):
    """Ask queries, alone and in batches, with filters and without, of which some have no hits."""
    for query in queries:
        things.search(query, K)
    things.search(queries, K)
    things.search(queries[0], more, where={"n": 2})
    things.search(queries[0], K, where={"n": 77 if more % 2 else 1})


def test_bad_values(tmp_path):
    def message(**how):
        with pytest.raises(ev.errors.InputError) as raised:
            ev.connect("memory:", keyset=ev.Keyset.create("memory:"), **how)
        return str(raised.value)

    assert message(threat="thief") == "threat must be one of watching-server, or None, got 'thief'"
    assert "not both" in message(threat="watching-server", reads="hits")
    assert "give the threat too" in message(cache=tmp_path)
    assert "path of a folder" in message(threat="watching-server", cache=7)


def test_reads_do_not_depend_on_queries(connect, monkeypatch):
    with connect(None) as store:
        stored = filled(store)
    log, logs = watch(monkeypatch), []
    for seed in (1, 2):
        log.clear()
        with connect() as store:
            things = store.collection("things")
            asked(things, vectors_of(6, seed), K + seed)
            logs.append([call for call in log if call[0] != "config"])
            answers = Answers("cosine", stored=stored)
            answers.search(things, vectors_of(10, 5), K)
            answers.enough()
            assert "read once, all of them" in things.stats()["server_sees"]
            assert "read once, all of them" in things.explain(vectors_of(1, 5)[0])
            assert things.stats()["remembered_bytes"] > FEW * 100
            with pytest.raises(ev.errors.InputError, match="recall cannot be watched"):
                things.watch_recall()
    assert logs[0] == logs[1]
    assert sorted(row for rows in rows_read(logs[0]) for row in rows)[-1] > FEW / 2


def test_writes_are_followed_whatever_is_asked(connect, monkeypatch):
    with connect(None) as store:
        stored = filled(store)
    log, logs = watch(monkeypatch), []
    for seed in (1, 2):
        with connect() as store:
            things = store.collection("things")
            things.search(vectors_of(1, seed)[0], K)
            things.upsert(["new", "5"], vectors_of(2, 9), documents=["new", "again"])
            things.delete(["7"])
            log.clear()
            asked(things, vectors_of(6, seed), K)
            logs.append([(name, *_lengths(given)) for name, *given in log if name != "config"])
            (hit,) = things.search(vectors_of(2, 9)[0], 1)
            assert (hit.id, hit.document) == ("new", "new")
            assert things.search(vectors_of(2, 9)[1], 1)[0].document == "again"
            assert things.search(stored["7"], 1)[0].id != "7"
            things.upsert(["7"], stored["7"][None])
    assert logs[0] == logs[1]


def _lengths(given):
    """Return arguments without row numbers, which differ between two runs, and without generations."""
    return [len(value) for value in given if isinstance(value, tuple)]


def few(monkeypatch):
    """Make buckets of 4, so that a small collection has many."""
    monkeypatch.setattr(buckets, "LEAST", 4)
    BUDGET.set(TINY)


def bucket_of(things):
    return things._sources._sealed._hidden._buckets


def test_only_whole_buckets_are_read_and_only_once(connect, monkeypatch, tmp_path):
    few(monkeypatch)
    with connect(None) as store:
        stored = filled(store)
    log, read = watch(monkeypatch), []
    for life in range(3):
        with connect(cache=tmp_path / "cache") as store:
            things = store.collection("things")
            things.search(vectors_of(1, 1)[0], K)
            assert "buckets of 16" in things.stats()["server_sees"]
            held = bucket_of(things)
            parts = {tuple(held._rows_of(n).tolist()) for n in range(FEW // 4)}
            assert {len(part) for part in parts} == {4}
            log.clear()
            answers = Answers("cosine", stored=stored)
            answers.search(things, vectors_of(4, 10 + life), K)
            answers.search(things, vectors_of(4, 10), K)  # again: nothing is read
            answers.enough()
            some = [tuple(rows) for rows in rows_read(log)]
            assert set(some) <= parts
            read += some
            if life == 2:
                assert things.search(stored["3"], 1)[0].document == "text 3"
                things.delete(["3"])
                assert things.search(stored["3"], 1)[0].id != "3"
    assert len(read) == len(set(read)) > 10
    assert sum(map(len, read)) < FEW


def test_new_records_are_read_when_they_come(connect, monkeypatch, tmp_path):
    few(monkeypatch)
    log = watch(monkeypatch)
    with connect(cache=tmp_path / "cache") as store:
        stored = filled(store)
        things = store.collection("things")
        things.search(vectors_of(1, 1)[0], K)
        things.upsert([f"new {i}" for i in range(6)], vectors_of(6, 9))
        new = low_level.places(things, [f"new {i}" for i in range(6)])
        log.clear()
        things.search(vectors_of(1, 1)[0], K)
        assert sorted(new.tolist()) in rows_read(log)
        log.clear()
        for query in vectors_of(6, 9):
            assert things.search(query, 1)[0].id.startswith("new")
        assert rows_read(log) == []
        stored |= {f"new {i}": vector for i, vector in enumerate(vectors_of(6, 9))}
        Answers("cosine", stored=stored).search(things, vectors_of(5, 3), K)


def test_without_a_folder_what_does_not_fit_is_refused(connect):
    with connect(None) as store:
        filled(store)
    with connect() as store:
        BUDGET.set(TINY)
        with pytest.raises(ev.errors.InputError, match="cache=FOLDER"):
            store.collection("things").search(vectors_of(1, 1)[0], K)


def test_the_file_has_no_plaintext_and_damage_is_read_again(connect, monkeypatch, tmp_path, caplog):
    few(monkeypatch)
    with connect(cache=tmp_path / "cache") as store:
        stored = filled(store)
        things = store.collection("things")
        hits = things.search(stored["9"], K)
        (file,) = (tmp_path / "cache").glob("*.cache")
        raw = file.read_bytes()
        assert b"text 9" not in raw
        assert stored["9"].tobytes() not in raw
        records = low_level.records(things)
        _, envelopes = records.vectors(low_level.places(things, ["9"]))
        assert envelopes.tobytes()[-16:] not in raw, "buckets are sealed once more, with the numbers of their rows"
        with sqlite3.connect(file) as inside:
            inside.execute("UPDATE buckets SET sealed = zeroblob(length(sealed))")
        log = watch(monkeypatch)
        assert things.search(stored["9"], K) == hits
        assert "damaged" in caplog.text
        assert not log
        with sqlite3.connect(file) as inside:  # buckets in each other's places
            (one, first), (two, second) = inside.execute("SELECT number, sealed FROM buckets LIMIT 2").fetchall()
            inside.executemany("UPDATE buckets SET sealed = ? WHERE number = ?", [(first, two), (second, one)])
        assert things.search(stored["9"], K) == hits


def test_a_rewrite_and_new_keys_begin_a_new_life(connect, monkeypatch, tmp_path):
    few(monkeypatch)
    with connect(cache=tmp_path / "cache") as store:
        stored = filled(store)
        things = store.collection("things")
        before = things.search(stored["9"], K)
        connect.keyset.rotate()
        assert things.search(stored["9"], K) == before
        things.change(scheme="sap")  # every record is sealed anew
        things.change(scheme="sealed")
        assert things.search(stored["9"], K) == before
        connect.keyset.destroy(1)
        assert things.search(stored["9"], K) == before
    with connect(cache=tmp_path / "cache") as store:
        assert store.collection("things").search(stored["9"], K) == before


def test_an_older_store_put_back_is_noticed(tmp_path, monkeypatch):
    """Rows are numbered anew there, so what the file has of them is of another record."""
    few(monkeypatch)
    keyset = ev.Keyset.create("memory:")
    url, how = f"faiss://{tmp_path}/store?index=hnsw", {"threat": "watching-server", "cache": tmp_path / "cache"}
    with ev.connect(url, keyset=keyset, maintenance="manual") as store:
        filled(store)
    copied = tmp_path / "copy"
    subprocess.run(["cp", "-r", tmp_path / "store", copied], check=True)
    for name in ("first", "second"):
        apart()
        with ev.connect(url, keyset=keyset, maintenance="manual", **how) as store:
            things = store.collection("things")
            assert things.search(vectors_of(1, 50)[0], 1)[0].id != "x"
            things.upsert(["x"], vectors_of(1, 50), documents=[name])
            low_level.records(things).flush()
            (hit,) = things.search(vectors_of(1, 50)[0], 1)
            assert hit.document == name
        subprocess.run(["rm", "-r", tmp_path / "store"], check=True)
        subprocess.run(["cp", "-r", copied, tmp_path / "store"], check=True)


@pytest.mark.parametrize("how", [{"threat": None}, {"reads": "hits", "threat": None}, {}, {"cache": True}], ids=str)
def test_an_older_state_put_back_under_an_open_store(pg_place, tmp_path, monkeypatch, how):
    """Numbers of rows come again there. A search that meets the older state drops what it remembers of the later one.

    If another process writes so much before the next search that the generation is a later one again, nobody can tell:
    the guide says to restart.
    """
    keyset, (near, *_) = ev.Keyset.create("memory:"), vectors_of(1, 50)
    if "cache" in how:
        few(monkeypatch)
        how = {"cache": tmp_path / "cache"}

    def opened(**how):
        apart()
        return ev.connect(pg_place.dsn, keyset=keyset, schema=pg_place.schema, maintenance="manual", **how)

    with opened() as store, opened(**{"threat": "watching-server", **how}) as reader:
        filled(store)
        things, watching = (each.collection("things") for each in (store, reader))
        with psycopg.connect(pg_place.dsn, autocommit=True) as connection:
            copied = _copied(connection, pg_place.schema)
            for name in ("first", "second"):
                for _ in range(3):
                    things.upsert(["x"], near[None], documents=[name])
                    (hit,) = watching.search(near, 1)
                    assert (hit.id, hit.document) == ("x", name)
                watching.search(vectors_of(40, 7), K)
                connection.execute(f"TRUNCATE {', '.join(copied)}")
                for table in copied:
                    connection.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM old_{table}")
                assert watching.search(near, 1)[0].id != "x"
    stored = dict(zip((f"{i}" for i in range(FEW)), vectors_of(FEW, 0), strict=True))
    with opened(**{"threat": "watching-server", **how}) as reader:
        Answers("cosine", stored=stored).search(reader.collection("things"), vectors_of(10, 5), K)


def _copied(connection, schema):
    """Copy each table of a schema. Returns their names; the copies are named `old_...`."""
    connection.execute(f"SET search_path = {schema}; SET session_replication_role = replica")
    asked = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'"
    tables = [name for (name,) in connection.execute(asked, [schema]).fetchall()]
    for table in tables:
        connection.execute(f"CREATE TABLE old_{table} AS TABLE {table}")
    return tables


def test_a_killed_reader_reads_its_bucket_again_at_the_next_opening(tmp_path, monkeypatch):
    few(monkeypatch)
    keyset = f"file:{tmp_path}/keys.json"
    monkeypatch.setenv("ENCVEC_PASSPHRASE", "a long enough passphrase")
    url, how = f"faiss://{tmp_path}/store?index=hnsw", {"threat": "watching-server", "cache": str(tmp_path / "cache")}
    with ev.connect(url, keyset=ev.Keyset.create(keyset), maintenance="manual") as store:
        stored = filled(store)
    code = f"""
import os, signal
import numpy as np
import encvec_store as ev
from encvec_store.engine.hidden import buckets
from encvec_store.engine.hidden.cache import BucketFile
buckets.LEAST = 4
def keep(self, number, content):
    os.kill(os.getpid(), signal.SIGKILL)
BucketFile.keep = keep
store = ev.connect({url!r}, keyset=ev.Keyset.open({keyset!r}), index_memory={TINY}, maintenance="manual", **{how!r})
store.collection("things").search(np.array({stored["9"].tolist()}, np.float32), 3)
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    log = watch(monkeypatch)
    apart()
    with ev.connect(url, keyset=ev.Keyset.open(keyset), maintenance="manual", **how) as store:
        things = store.collection("things")
        things.search(-stored["9"], 1)  # whatever is asked
        asked_for = {tuple(rows) for rows in rows_read(log)}
        log.clear()
        hits = things.search(stored["9"], 1)
        assert hits[0].document == "text 9"
        row = int(low_level.places(things, ["9"])[0])
        assert any(row in rows and len(rows) == 4 for rows in asked_for)
        assert not any(row in rows for rows in rows_read(log))


def test_lists_that_a_query_chooses_are_refused(tmp_path):
    keyset, url = ev.Keyset.create("memory:"), f"faiss://{tmp_path}?index=lists"
    with ev.connect(url, keyset=keyset, maintenance="manual") as store:
        filled(store)
    apart()
    with (
        ev.connect(url, keyset=keyset, maintenance="manual", threat="watching-server") as store,
        pytest.raises(ev.errors.InputError, match="which of its lists are fetched"),
    ):
        store.collection("things").search(vectors_of(1, 1)[0], K)


def test_order_of_rows_depends_on_the_key():
    rows = np.arange(1, 500)
    orders = []
    for _ in range(2):
        with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
            things = store.collection("things", dim=DIM, scheme="sealed")
            orders.append(low_level.session(things).keyring.read_cache(1).order(rows))
    assert sorted(orders[0].tolist()) == list(range(499))
    assert (orders[0] != orders[1]).mean() > 0.9
    assert abs(np.corrcoef(orders[0], rows)[0, 1]) < 0.2
