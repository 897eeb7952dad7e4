"""The local file of buckets: in an event loop, after a fork, on a full disk, and in two processes at once."""

import asyncio
import logging
import sqlite3
import sys
import threading

import pytest

import encvec_store as ev
from encvec_store import low_level
from encvec_store.engine.hidden import buckets, cache
from encvec_store.engine.hidden.buckets import Buckets
from encvec_store.engine.hidden.cache import BucketFile
from tests.kits import sealed
from tests.kits.forking import in_child
from tests.kits.sealed import DIM, Answers, apart, vectors_of
from tests.kits.watched import rows_read, watch

K, FEW, TINY = 5, 200, 120_000
"""TINY bytes hold the index of so few records, but not their sealed parts."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Make buckets of 4, so that a small collection has many."""
    sealed.small(monkeypatch)
    monkeypatch.setattr(buckets, "LEAST", 4)


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


@pytest.fixture
def stored(tmp_path, keyset):
    """Fill a store in files. Returns its vectors by id."""
    return fill(f"faiss://{tmp_path}/store", keyset)


def fill(url, keyset):
    names, vectors = [f"{i}" for i in range(FEW)], vectors_of(FEW, 0)
    with ev.connect(url, keyset=keyset, index="hnsw", maintenance="manual") as store:
        things = store.collection("things", dim=DIM, scheme="sealed")
        things.upsert(names, vectors, documents=[f"text {name}" for name in names])
        things.maintain()
    return dict(zip(names, vectors, strict=True))


@pytest.fixture
def connect(tmp_path, keyset):
    """Return a function that opens the store, apart from earlier openings, as another process does."""

    def opening(**how):
        apart()
        hidden = {"threat": "watching-server", "cache": tmp_path / "cache", "index_memory": TINY}
        return ev.connect(
            f"faiss://{tmp_path}/store", keyset=keyset, index="hnsw", maintenance="manual", **hidden, **how
        )

    return opening


def right(things, stored, seed):
    answers = Answers("cosine", stored=stored)
    answers.search(things, vectors_of(4, seed), K)
    answers.enough()


def each_once(log):
    """Check that searches read no row twice. Returns how many were read."""
    rows = [row for rows in rows_read([call for call in log if call[0] == "current"]) for row in rows]
    assert len(rows) == len(set(rows))
    return len(rows)


def test_sqlite_does_not_block_the_event_loop(pg_dsn, keyset, tmp_path, monkeypatch):
    stored, threads, connecting = fill(pg_dsn, keyset), set(), sqlite3.connect
    apart()

    def connected(*given, **how):
        threads.add(threading.get_ident())
        return connecting(*given, **how)

    monkeypatch.setattr(cache.sqlite3, "connect", connected)

    async def main():
        hidden = {"threat": "watching-server", "cache": tmp_path, "index_memory": TINY}
        async with ev.aio.connect(pg_dsn, keyset=keyset, index="hnsw", maintenance="manual", **hidden) as store:
            things = await store.collection("things")
            asked = [stored[f"{i}"] for i in range(12)]
            hits = await asyncio.gather(*(things.search(vector, 1) for vector in asked))
            assert [hit.id for (hit,) in hits] == [f"{i}" for i in range(12)]
            assert "buckets" in (await things.stats())["server_sees"]
            return threading.get_ident()

    mine = asyncio.run(main())
    assert threads
    assert mine not in threads


def test_hits_in_an_event_loop(pg_dsn, keyset):
    stored = fill(pg_dsn, keyset)
    apart()

    async def main():
        async with ev.aio.connect(f"{pg_dsn}{'&' if '?' in pg_dsn else '?'}reads=hits", keyset=keyset) as store:
            things = await store.collection("things")
            asked = [stored[f"{i}"] for i in range(12)]
            hits = await asyncio.gather(*(things.search(vector, 1) for vector in asked))
            assert [hit.document for (hit,) in hits] == [f"text {i}" for i in range(12)]
            assert (await things.stats())["reads"] == "hits"

    asyncio.run(main())


@pytest.mark.parametrize("step", ["keep", "ask", "note"])
def test_a_cancelled_search_leaves_all_right(pg_dsn, keyset, tmp_path, monkeypatch, step):
    stored, begun, go = fill(pg_dsn, keyset), threading.Event(), threading.Event()
    apart()
    log, doing = watch(monkeypatch), BucketFile._doing

    def waiting(self, statements):
        wanted = {"keep": "REPLACE INTO buckets", "ask": "IGNORE INTO buckets", "note": "INTO life"}[step]
        if any(wanted in statement[0] for statement in statements if isinstance(statement, tuple)):
            begun.set()
            assert go.wait(30)
        doing(self, statements)

    monkeypatch.setattr(BucketFile, "_doing", waiting)

    async def main():
        hidden = {"threat": "watching-server", "cache": tmp_path, "index_memory": TINY}
        async with ev.aio.connect(pg_dsn, keyset=keyset, index="hnsw", maintenance="manual", **hidden) as store:
            things = await store.collection("things")
            task = asyncio.create_task(things.search(stored["9"], K))
            assert await asyncio.to_thread(begun.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
            for name in ("9", "8", "9"):
                (hit,) = await things.search(stored[name], 1)
                assert hit.document == f"text {name}"
            await things.upsert(["new"], vectors_of(1, 7))
            assert (await things.search(vectors_of(1, 7)[0], 1))[0].id == "new"
            assert (await things.verify()).ok

    asyncio.run(asyncio.wait_for(main(), 60))
    assert each_once(log) > 0


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_forked_child_opens_the_file_itself(connect, stored, monkeypatch):
    log = watch(monkeypatch)
    with connect() as store:
        things = store.collection("things")
        things.search(stored["9"], K)
        held = things._sources._sealed._hidden._buckets
        with held._cache.locked():  # as if another thread were reading when the process forks

            def child():
                lock = held._cache._lock
                return lock._file is None, len(held._rows)

            assert in_child(child) == (True, 0), "it holds no lock, and takes what the file has"

        def search():
            log.clear()
            right(things, stored, 3)
            things.upsert(["child"], vectors_of(1, 7))
            assert things.search(vectors_of(1, 7)[0], 1)[0].id == "child"
            return [call for call in log if call[0] == "current"]

        read = in_child(search)
        assert things.search(vectors_of(1, 7)[0], 1)[0].id == "child"
        right(things, {**stored, "child": vectors_of(1, 7)[0]}, 3)
        each_once([*log, *read])


def test_a_full_disk_is_said_and_nothing_is_read_twice(connect, stored, monkeypatch, caplog):
    log = watch(monkeypatch)
    with connect() as store:
        things = store.collection("things")
        things.search(stored["9"], K)
        held = things._sources._sealed._hidden._buckets
        some = next(name for name in stored if not held._cache.contents(numbers_of(things, held, name)))
        keep = BucketFile._keeping
        monkeypatch.setattr(BucketFile, "_keeping", _no_room)
        with caplog.at_level(logging.WARNING):
            assert things.search(stored[some], 1)[0].document == f"text {some}"
        assert "stays in memory" in caplog.text
        assert "the disk must have room" in caplog.text
        assert things.search(stored[some], 1)[0].document == f"text {some}"
        monkeypatch.setattr(BucketFile, "_keeping", keep)
        right(things, stored, 3)
        assert held._unwritten == {}
    with connect() as store:
        right(store.collection("things"), stored, 3)
    each_once(log)


def _no_room(self, number, content):
    raise self._failed(sqlite3.OperationalError("database or disk is full"))


def numbers_of(things, held, name):
    """Return the bucket of a record."""
    (row,) = low_level.places(things, [name]).tolist()
    return held._numbers[held._rows == row].tolist()


def test_a_disk_that_cannot_be_written(connect, stored, monkeypatch):
    log, connecting = watch(monkeypatch), sqlite3.connect
    with connect() as store:
        things = store.collection("things")
        things.search(stored["9"], K)
        held = things._sources._sealed._hidden._buckets
        some = next(name for name in stored if not held._cache.contents(numbers_of(things, held, name)))

        def read_only(path, **how):
            return connecting(f"file:{path}?mode=ro", uri=True, **how)

        log.clear()
        with monkeypatch.context() as patch:
            patch.setattr(cache.sqlite3, "connect", read_only)
            with pytest.raises(ev.errors.StoreUnreachableError, match=r"readonly database.*folder must be writable"):
                things.search(stored[some], K)
        assert rows_read(log) == []
        right(things, stored, 3)


def test_a_folder_that_cannot_be_used(connect, stored, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with connect() as store, pytest.raises(ev.errors.StoreUnreachableError, match="cannot be made"):
        store.collection("things").search(stored["9"], K)
    (tmp_path / "cache").unlink()
    with connect() as store:
        things = store.collection("things")
        lock = tmp_path / "cache" / f"{low_level.session(things).config.incarnation.hex()}.lock"
        lock.mkdir(parents=True)
        with pytest.raises(ev.errors.StoreUnreachableError, match="folder must be writable"):
            things.search(stored["9"], K)
        lock.rmdir()
        right(things, stored, 3)


def test_two_processes_share_what_was_read(connect, stored, monkeypatch):
    log = watch(monkeypatch)
    with connect() as one, connect() as two:
        first, second = one.collection("things"), two.collection("things")
        for seed in range(4):
            right(first, stored, seed)
            right(second, stored, seed)
            names = [f"new {seed} {i}" for i in range(3)]
            (first if seed % 2 else second).upsert(names, vectors_of(3, 50 + seed))
            stored.update(zip(names, vectors_of(3, 50 + seed), strict=True))
        assert each_once(log) < len(stored)


def test_a_file_that_another_process_begins_anew(connect, stored):
    with connect() as one, connect() as two:
        first, second = one.collection("things"), two.collection("things")
        right(first, stored, 1)
        right(second, stored, 2)
        held = second._sources._sealed._hidden._buckets
        with held._cache.locked():
            held._begin(held._cache.open())
        held.renew()
        right(second, stored, 3)  # other rows have the same numbers of buckets now
        right(first, stored, 4)
        right(first, stored, 1)
        right(second, stored, 1)


def test_a_list_that_does_not_open_is_begun_anew(connect, stored, tmp_path, caplog):
    with connect() as store:
        right(store.collection("things"), stored, 1)
    (file,) = (tmp_path / "cache").glob("*.cache")
    with sqlite3.connect(file) as inside:
        inside.execute("UPDATE epochs SET sealed = zeroblob(length(sealed))")
    with connect() as store:
        right(store.collection("things"), stored, 1)
    assert "begun anew" in caplog.text


def test_a_writer_stopped_before_it_read_new_records(connect, stored, monkeypatch):
    """What is new is read as it comes, also if the process that noticed it was stopped: no query may choose it."""
    with connect() as store:
        things = store.collection("things")
        right(things, stored, 1)
        things.upsert(["new"], vectors_of(1, 7))

        def stopped(self, numbers):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Buckets, "_fetch", stopped)
            with pytest.raises(KeyboardInterrupt):
                things.search(stored["9"], K)
        new = low_level.places(things, ["new"]).tolist()
    log = watch(monkeypatch)
    with connect() as store:
        things = store.collection("things")
        things.search(-vectors_of(1, 7)[0], 1)
        assert new in rows_read(log)
        log.clear()
        assert things.search(vectors_of(1, 7)[0], 1)[0].id == "new"
        assert new not in rows_read(log)
