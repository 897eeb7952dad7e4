"""The async PostgreSQL store: its connections and the caller's, and the loop it belongs to."""

import asyncio
import contextlib

import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

import encvec_store as ev
from encvec_store import errors
from tests.kits.async_store import (
    BLOCKED,
    BUSY,
    DIM,
    OURS,
    WAITING,
    belongs_to_its_loop,
    counted,
    held,
    ids,
    run,
    until,
    vectors,
)
from tests.kits.postgres_store import ask


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
    belongs_to_its_loop(keyed)


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
            ({"pool": plain_pool}, r"psycopg_pool\.AsyncConnectionPool, got ConnectionPool"),
            ({"engine": plain_engine}, "AsyncEngine, got Engine"),
            ({"pool": async_pool, "engine": async_engine}, "either pool or engine, not both"),
        ):
            with pytest.raises(errors.InputError, match=message):
                await keyed("postgresql://", **given)
        with pytest.raises(errors.StoreUnreachableError, match="the pool given is closed"):
            await keyed("postgresql://", pool=async_pool)
        for given, message in (
            ({"pool": async_pool}, r"psycopg_pool\.ConnectionPool, got AsyncConnectionPool"),
            ({"engine": async_engine}, "synchronous SQLAlchemy Engine, got AsyncEngine"),
        ):
            with pytest.raises(errors.InputError, match=message):
                ev.connect("postgresql://", keyset=keyset, **given)

    run(main)
