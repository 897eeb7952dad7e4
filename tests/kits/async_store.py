"""What the tests of the async PostgreSQL store share: its opening, and what the server says of its statements."""

import asyncio
import contextlib
import time

import numpy as np
import psycopg
import pytest

import encvec_store as ev
from encvec_store import errors
from tests.kits.postgres_store import ask

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
    return store._of._records._source._connections._pool


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


def belongs_to_its_loop(connect):
    """Check that a store refuses every loop but the one it was opened in, where it goes on."""

    async def opened():
        store = await connect()
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
