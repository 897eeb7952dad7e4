"""The async PostgreSQL store: what waits, waits in the event loop; what is cancelled leaves nothing behind."""

import asyncio
import contextlib
import gc
import threading
import time

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

import encvec_store as ev
from encvec_store import errors
from encvec_store.backends.pgvector import writer
from tests.backends.pgvector_kit import ask

DIM = 8
OURS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'encvec_store'"
WAITING = f"{OURS} AND wait_event_type = 'Lock'"
AT_WORK = f"{OURS} AND state <> 'idle'"
BUSY = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
BLOCKED = f"{BUSY} AND wait_event_type = 'Lock'"


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


@pytest.fixture
def keyed(pg_dsn, keyset):
    """Return `connect` for this database."""
    return lambda url=pg_dsn, **options: ev.aio.connect(url, keyset=keyset, **options)


def vectors(n, dim=DIM, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def ids(n):
    return [f"id-{i}" for i in range(n)]


def run(main, timeout=120):
    return asyncio.run(asyncio.wait_for(main(), timeout))


async def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.01)


def counted(dsn, statement):
    return ask(dsn, statement)[0][0]


@contextlib.contextmanager
def held(dsn, table="encvec.collections"):
    """Keep everybody else waiting for a table, on the server."""
    with psycopg.connect(dsn) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


def pool_of(store):
    return store._of._backend._source._pool


async def intact(store, dsn, size):
    """No statement of ours runs or waits, and every connection is in the pool, fit for use."""
    await until(lambda: counted(dsn, AT_WORK) == 0)
    pool = pool_of(store)
    await until(lambda: pool.get_stats()["pool_available"] == pool.get_stats()["pool_size"])
    assert pool.get_stats()["pool_size"] <= size
    await asyncio.gather(*[store.collections() for _ in range(3 * size)])


@contextlib.asynccontextmanager
async def cancelled(task):
    """Cancel a task that was brought to a certain point inside."""
    try:
        yield
    finally:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ------------------------------------------------------------------------------------- in the loop


def test_searches_wait_side_by_side(keyed, pg_dsn):
    """50 searches on 4 connections: 4 are on the server at once, in no thread of ours, and all come back."""

    async def main():
        async with keyed(pool_size=4) as store:
            things = await store.collection("things", dim=DIM, scheme="sap")
            stored = vectors(50)
            await things.upsert(ids(50), stored)
            before = threading.active_count()
            with held(pg_dsn, "encvec.records_1"):
                searches = [asyncio.create_task(things.search(stored[i], k=1)) for i in range(50)]
                await until(lambda: counted(pg_dsn, WAITING) == 4)
                assert threading.active_count() == before
                assert not any(search.done() for search in searches)
            found = await asyncio.gather(*searches)
            assert [hits[0].id for hits in found] == ids(50)
            assert threading.active_count() == before
            await intact(store, pg_dsn, 4)

    run(main)


class Ticker:
    """A task on the loop that should never wait long for its turn."""

    INTERVAL = 0.005

    async def __aenter__(self):
        # collecting what thousands of tests before left in this process took .2 s of the loop's thread
        gc.collect()
        gc.freeze()
        self.began, self.turns = time.perf_counter(), [time.thread_time()]
        self.task = asyncio.create_task(self.tick())
        return self

    async def tick(self):
        while True:
            await asyncio.sleep(self.INTERVAL)
            self.turns.append(time.thread_time())

    async def __aexit__(self, *error):
        self.task.cancel()
        self.took = time.perf_counter() - self.began
        gc.unfreeze()

    def check(self):
        """The loop's own thread never computed for long at a stretch, and turns came often."""
        assert max(np.diff(self.turns)) < 0.2
        # on average over all: single turns may be late on a busy machine
        assert len(self.turns) > self.took / 0.1


def test_long_work_does_not_stop_the_loop(keyed):
    async def main():
        async with keyed() as store:
            things = await store.collection("things", dim=384, scheme="sap", fields={"n": "plain"})
            stored = vectors(20_000, 384)
            async with Ticker() as ticker:
                await things.upsert(ids(20_000), stored, [{"n": i % 7} for i in range(20_000)])
            ticker.check()
            sample = await store.collection("sample", dim=384, scheme="sap")
            await sample.upsert(ids(2_000), stored[:2_000])
            async with Ticker() as ticker:
                await sample.calibrate(target_recall=0.8)
            ticker.check()
            sealed = await store.collection("sealed", dim=384, scheme="sealed")
            await sealed.upsert(ids(10_000), stored[:10_000])
            async with Ticker() as ticker:
                first, again = await asyncio.gather(*[sealed.search(stored[3], k=3) for _ in range(2)])
                assert first[0].id == again[0].id == "id-3"
                assert (await sealed.verify()).checked == 10_000
                assert len([record async for record in sealed.scroll()]) == 10_000
            ticker.check()

    run(main)


def test_many_writers_and_readers(keyed, pg_dsn):
    async def main():
        async with keyed(pool_size=5) as store:
            things = await store.collection("things", dim=DIM, scheme="sap", fields={"n": "blind"})

            async def write(number):
                for start in range(0, 50, 10):
                    names = [f"{number}-{i}" for i in range(start, start + 10)]
                    await things.upsert(names, vectors(10, seed=number), [{"n": number}] * 10)
                assert await things.delete([f"{number}-0"]) == 1

            async def read():
                for _ in range(10):
                    hits = await things.search(np.ones(DIM), k=5, where={"n": 1})
                    assert {hit.metadata["n"] for hit in hits} <= {1}

            await asyncio.gather(*[write(number) for number in range(6)], *[read() for _ in range(6)])
            assert await things.count() == 6 * 49
            assert (await things.verify()).ok
            await intact(store, pg_dsn, 5)

    run(main)


# ------------------------------------------------------------------------------------ cancellation


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("size", [1, 4])
def test_a_cancelled_search_leaves_nothing_behind(keyed, pg_dsn, size, times):
    async def main():
        async with keyed(pool_size=size) as store:
            things = await store.collection("things", dim=DIM, scheme="sap")
            await things.upsert(ids(10), vectors(10))
            with held(pg_dsn, "encvec.records_1"):
                searches = [asyncio.create_task(things.search(np.ones(DIM))) for _ in range(size)]
                await until(lambda: counted(pg_dsn, WAITING) == size)
                for _ in range(times):  # the second time, while the first is being cleaned up after
                    for search in searches:
                        search.cancel()
                    await asyncio.sleep(0)
                results = await asyncio.gather(*searches, return_exceptions=True)
                assert {type(result) for result in results} == {asyncio.CancelledError}
                await until(lambda: counted(pg_dsn, WAITING) == 0)
            await intact(store, pg_dsn, size)
            assert len(await things.search(np.ones(DIM))) == 10

    run(main)


def test_cancelled_by_a_timeout(keyed, pg_dsn):
    async def main():
        async with keyed() as store:
            things = await store.collection("things", dim=DIM, scheme="sap")
            with held(pg_dsn), pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await things.count()
            await intact(store, pg_dsn, 10)
            assert await things.count() == 0

    run(main)


def test_cancelled_while_waiting_for_a_connection(keyed, pg_dsn):
    async def main():
        async with keyed(pool_size=1) as store:
            things = await store.collection("things", dim=DIM, scheme="sap")
            with held(pg_dsn):
                first = asyncio.create_task(things.count())
                await until(lambda: counted(pg_dsn, WAITING) == 1)
                async with cancelled(asyncio.create_task(things.count())):
                    await until(lambda: pool_of(store).get_stats()["requests_waiting"] == 1)
            assert await first == 0
            await intact(store, pg_dsn, 1)

    run(main)


def test_cancelled_while_giving_the_connection_back(keyed, pg_dsn, monkeypatch):
    async def main():
        async with keyed(pool_size=1) as store:
            things = await store.collection("things", dim=DIM, scheme="sap")
            pool = pool_of(store)._pool
            putconn, begun = pool.putconn, asyncio.Event()

            async def slow(connection):
                begun.set()
                await asyncio.sleep(0.05)
                await putconn(connection)

            with monkeypatch.context() as patch:
                patch.setattr(pool, "putconn", slow)
                async with cancelled(asyncio.create_task(things.count())):
                    await begun.wait()
            await intact(store, pg_dsn, 1)

    run(main)


@pytest.mark.parametrize("moment", ["lock", "copy", "terms"])
def test_a_cancelled_write_is_all_or_nothing(keyed, pg_dsn, moment, monkeypatch):
    """While it waits for its turn, in the middle of either COPY: nothing of it is there."""

    async def main():
        async with keyed(pool_size=2) as store:
            things = await store.collection("things", dim=DIM, scheme="sap", fields={"n": "plain"})
            await things.upsert(ids(5), vectors(5), [{"n": 1}] * 5)
            begun = threading.Event()

            def slow(fn):
                def call(*args, **given):
                    for item in fn(*args, **given):
                        yield item
                        begun.set()
                        time.sleep(0.1)

                return call

            def write():
                return things.upsert(ids(1000), vectors(1000, seed=1), [{"n": 2}] * 1000)

            if moment == "lock":
                with held(pg_dsn):
                    async with cancelled(asyncio.create_task(write())):
                        await until(lambda: counted(pg_dsn, WAITING) == 1)
            else:
                part = "copy_records" if moment == "copy" else "copy_terms"
                with monkeypatch.context() as patch:
                    patch.setattr(writer, part, slow(getattr(writer, part)))
                    async with cancelled(asyncio.create_task(write())):
                        await until(begun.is_set)
            await intact(store, pg_dsn, 2)
            assert await things.count() == await things.count({"n": 1}) == 5
            assert (await things.verify()).ok
            await write()
            assert await things.count() == await things.count({"n": 2}) == 1000

    run(main)


def test_a_cancelled_calibration_changes_nothing(keyed, pg_dsn):
    async def main():
        async with keyed(pool_size=2) as store:
            things = await store.collection("things", dim=DIM, scheme={"name": "sap", "beta": 0.5})
            await things.upsert(ids(9000), vectors(9000))
            before = await things.index_vectors(ids(9000))
            seen = []
            task = asyncio.create_task(
                things.calibrate(vectors(500), target_recall=0.5, progress=lambda n, total: seen.append(n))
            )
            async with cancelled(task):
                await until(lambda: seen)
            await intact(store, pg_dsn, 2)
            np.testing.assert_array_equal(await things.index_vectors(ids(9000)), before)
            assert ask(pg_dsn, "SELECT count(*) FROM pg_class WHERE relname ~ '^records_[0-9]+$'") == [(1,)]
            assert (await things.stats())["calibration"] is None
            await things.calibrate(vectors(500), target_recall=0.5)
            assert (await things.verify()).ok

    run(main)


def test_a_scroll_left_early_holds_no_connection(keyed, pg_dsn, monkeypatch):
    async def main():
        async with keyed(pool_size=1) as store:
            things = await store.collection("things", dim=DIM, scheme="sap")
            await things.upsert(ids(3000), vectors(3000))
            scroll = things.scroll()
            assert (await anext(scroll)).id == "id-0"
            await intact(store, pg_dsn, 1)
            await scroll.aclose()
            async for record in things.scroll():
                assert await things.get([record.id]), "another call between two records"
                if record.id == "id-5":
                    break
            await intact(store, pg_dsn, 1)

    run(main)


# ------------------------------------------------------------------------------ connections and loops


def test_a_connection_that_died_is_replaced(keyed, pg_dsn):
    async def main():
        async with keyed(pool_size=3) as store:
            things = await store.collection("things", dim=DIM, scheme="sap")
            await things.upsert(ids(5), vectors(5))
            for work in (things.count, lambda: things.upsert(ids(5), vectors(5))):
                ask(pg_dsn, f"SELECT pg_terminate_backend(pid) FROM ({OURS.replace('count(*)', 'pid')}) AS ours")
                await work()
            assert await things.count() == 5

    run(main)


def test_an_exhausted_pool_says_so(keyed, pg_dsn):
    async def main():
        async with keyed(pool_size=1, pool_timeout=0.5) as store:
            things = await store.collection("things", dim=DIM, scheme="sap")
            with held(pg_dsn):
                first = asyncio.create_task(things.count())
                await until(lambda: counted(pg_dsn, WAITING) == 1)
                with pytest.raises(errors.StoreUnreachableError, match=r"none of the pool.s 1 connections was free"):
                    await things.count()
            assert await first == 0

    run(main)


def test_no_server_no_store(keyset):
    async def main():
        with pytest.raises(errors.StoreUnreachableError, match=r"cannot reach postgresql://127\.0\.0\.1:1/x"):
            await ev.aio.connect("postgresql://127.0.0.1:1/x", keyset=keyset)

    run(main)


def test_a_store_belongs_to_its_loop(keyed):
    async def opened():
        store = await keyed()
        return store, await store.collection("things", dim=2, scheme="sap")

    async def used(store, things):
        for call in (things.count, store.collections, store.close, lambda: anext(things.scroll())):
            with pytest.raises(errors.InputError, match="belongs to the event loop that it was opened in"):
                await call()

    with asyncio.Runner() as runner:
        store, things = runner.run(opened())
        asyncio.run(used(store, things))
        assert runner.run(things.count()) == 0
        runner.run(store.close())


def test_windows_default_loop_is_refused(keyed, monkeypatch):
    """It cannot wait for sockets as psycopg needs it; only Windows has such a loop."""

    async def main():
        monkeypatch.setattr(asyncio, "ProactorEventLoop", type(asyncio.get_running_loop()), raising=False)
        with pytest.raises(errors.StoreUnreachableError, match=r"ProactorEventLoop.*loop_factory=asyncio\.Selector"):
            await keyed()

    run(main)


def engine_url(dsn):
    known = conninfo_to_dict(dsn)
    query = {name: str(value) for name, value in known.items() if name not in ("user", "password", "dbname")}
    return URL.create(
        "postgresql+psycopg", known.get("user"), known.get("password"), database=known["dbname"], query=query
    )


@pytest.fixture(params=["pool", "pool in transactions", "engine"])
def own(request, pg_dsn):
    """Enter a pool or engine of the caller's: yields (options for connect, check that it was left alone)."""

    @contextlib.asynccontextmanager
    async def own():
        if request.param == "engine":
            engine = create_async_engine(engine_url(pg_dsn), pool_size=2, max_overflow=0, hide_parameters=True)
            try:
                yield {"engine": engine}, engine.connect
            finally:
                await engine.dispose()
            return
        autocommit = {"autocommit": request.param == "pool"}
        async with AsyncConnectionPool(pg_dsn, min_size=1, max_size=2, kwargs=autocommit, open=False) as pool:
            yield {"pool": pool}, pool.connection

    return own


def test_the_callers_own_connections(keyed, own):
    async def main():
        async with own() as (option, connection):
            async with keyed("postgresql://", **option) as store:
                things = await store.collection("things", dim=DIM, scheme="sap")
                await things.upsert(ids(20), vectors(20))
                found = await asyncio.gather(*[things.search(v, k=1) for v in vectors(20)])
                assert [hits[0].id for hits in found] == ids(20)
                with pytest.raises(errors.ShapeError):
                    await things.upsert(ids(1), vectors(2))
                async with asyncio.timeout(30):  # more callers than connections
                    assert set(await asyncio.gather(*[things.count() for _ in range(20)])) == {20}
            async with connection() as mine:
                if "pool" in option:
                    assert mine.autocommit is option["pool"].kwargs["autocommit"]
                    assert (await (await mine.execute("SELECT 1")).fetchone()) == (1,)
                else:
                    assert (await mine.exec_driver_sql("SELECT 1")).scalar() == 1
                    assert (await mine.get_raw_connection()).driver_connection.autocommit is False
            with pytest.raises(errors.StoreClosedError):
                await things.count()

    run(main)


def test_cancelled_on_the_callers_own_connections(keyed, own, pg_dsn):
    async def main():
        async with own() as (option, _), keyed("postgresql://", **option) as store:
            things = await store.collection("things", dim=DIM, scheme="sap")
            for work in (things.count, lambda: things.upsert(ids(5), vectors(5))):
                with held(pg_dsn):
                    tasks = [asyncio.create_task(work()) for _ in range(2)]
                    await until(lambda: counted(pg_dsn, BLOCKED) == 2)
                    for task in tasks:
                        task.cancel()
                    results = await asyncio.gather(*tasks, return_exceptions=True)
                    assert {type(result) for result in results} == {asyncio.CancelledError}
                await until(lambda: counted(pg_dsn, BUSY) == 1)  # whoever asks
                async with asyncio.timeout(30):
                    assert set(await asyncio.gather(*[things.count() for _ in range(10)])) == {0}

    run(main)


def test_the_wrong_kind_of_connections(keyed, keyset, pg_dsn):
    plain_engine, async_engine = create_engine(engine_url(pg_dsn)), create_async_engine(engine_url(pg_dsn))
    plain_pool = ConnectionPool(pg_dsn, open=False)

    async def main():
        async_pool = AsyncConnectionPool(pg_dsn, open=False)
        for given, message in (
            ({"pool": plain_pool}, r"psycopg_pool\.AsyncConnectionPool, not ConnectionPool"),
            ({"engine": plain_engine}, "AsyncEngine, not Engine"),
            ({"pool": async_pool, "engine": async_engine}, "either a pool or an engine"),
        ):
            with pytest.raises(errors.InputError, match=message):
                await keyed("postgresql://", **given)
        with pytest.raises(errors.StoreUnreachableError, match="the pool given is closed"):
            await keyed("postgresql://", pool=async_pool)
        for given, message in (
            ({"pool": async_pool}, r"psycopg_pool\.ConnectionPool, not AsyncConnectionPool"),
            ({"engine": async_engine}, "synchronous SQLAlchemy Engine, not AsyncEngine"),
        ):
            with pytest.raises(errors.InputError, match=message):
                ev.connect("postgresql://", keyset=keyset, **given)

    run(main)
