"""Async sessions, with psycopg and with asyncpg: searches, writes, cancelled searches; the event loop goes on."""

import asyncio
import threading

import numpy as np
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from encvec_store.integrations.sqlalchemy import (
    bulk_insert,
    ciphertexts,
    follow,
    maintain,
    nearest,
    nearest_async,
    reencrypt,
    sharing,
)
from encvec_store.integrations.sqlalchemy.following import Follower
from encvec_store.runtime import concurrency
from encvec_store.sealed_index import builder
from tests.kits.orm import models, url, vectors

N = 300
V = vectors(N + 20, seed=61)


@pytest.fixture
def pg_place(pg_place_alone):
    """On a server of its own: an index takes in only entries that are older than every open transaction there."""
    return pg_place_alone


@pytest.fixture
def made():
    return models()


def engine_of(dsn, driver):
    """Return an engine; asyncpg takes the settings of libpq's DSN by names of its own."""
    if driver == "psycopg":
        return create_async_engine(url(dsn), hide_parameters=True)
    given = make_url(dsn)
    query = dict(given.query)
    path = str(query.pop("options")).partition("search_path=")[2]
    known = {"server_settings": {"search_path": path}}
    known |= {name: query.pop(name) for name in ("host", "passfile") if name in query}
    if "port" in query:
        known["port"] = int(query.pop("port"))
    return create_async_engine(
        given.set(drivername="postgresql+asyncpg", query=query), connect_args=known, hide_parameters=True
    )


def run(main, dsn, made, driver="psycopg"):
    """Run a coroutine over a session with N rows, in a thread: an event loop that stands still fails the test."""
    failed = []

    async def whole():
        engine = engine_of(dsn, driver)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(made.Base.metadata.create_all)
            async with AsyncSession(engine, expire_on_commit=False) as session:
                rows = [{"title": str(i), "embedding": V[i]} for i in range(N)]
                assert await session.run_sync(bulk_insert, made.Item, rows) == N
                await session.commit()
                await main(session)
        finally:
            await engine.dispose()

    def body():
        try:
            asyncio.run(whole())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "the event loop stands still"
    if failed:
        raise failed[0]


async def best(session, made, number, *where):
    hits = await nearest_async(session, select(made.Item).where(*where), made.Item.embedding, V[number], 1)
    return hits[0].item


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_all_of_a_column(orm_dsn, made, driver, monkeypatch):
    pytest.importorskip(driver, reason=f"{driver} (the extra dev) is not installed")
    monkeypatch.setattr(builder, "FIRST", 100)
    Item = made.Item

    async def main(session):
        session.add_all([Item(title="300", embedding=V[300]), *(made.Auto(embedding=V[i]) for i in range(3))])
        assert (await best(session, made, 300)).title == "300", "flushed"
        await session.commit()
        assert (await best(session, made, 7, Item.title != "5")).title == "7"
        item = await best(session, made, 8, Item.title.in_(["8", "9"]))
        item.embedding = V[301]
        await session.commit()
        np.testing.assert_array_equal((await best(session, made, 301)).embedding, V[301])
        new = ciphertexts(Item.embedding, V[302], item.id)
        await session.execute(update(Item).where(Item.id == item.id).values(**new))
        assert (await best(session, made, 302)).id == item.id
        await session.rollback()
        assert (await best(session, made, 301)).id == item.id
        made.keyset.rotate()
        assert await session.run_sync(reencrypt, Item.embedding) == N + 1
        await session.commit()
        assert (await session.run_sync(maintain, Item.embedding))[0] == f"index {N + 1} new records"
        await session.run_sync(follow, Item.embedding)
        await session.commit()
        assert (await best(session, made, 9)).title == "9"
        await session.execute(text("DELETE FROM items WHERE title = '9'"))
        assert (await best(session, made, 9)).title != "9"
        bind = session.bind.execution_options(isolation_level="SERIALIZABLE")
        async with AsyncSession(bind) as other:
            assert (await best(other, made, 9)).title == "9", "not committed"
        await session.rollback()
        await session.execute(text("ALTER TABLE items DISABLE TRIGGER USER"))
        assert (await best(session, made, 9)).title == "9", "of all rows, by a cursor of the server"

    run(main, orm_dsn, made, driver)


def test_cancelled_in_the_middle_of_a_load(orm_dsn, made, monkeypatch):
    """Also twice: the session is nobody else's before it is left alone, and what was loaded stays."""
    loading, left = asyncio.Event(), []
    fetch = Follower.open_vectors

    def slow(self, rows, **given):
        loading.set()
        concurrency.sleep(0.2)
        found = fetch(self, rows, **given)
        left.append(len(found[0]))
        return found

    async def main(session):
        monkeypatch.setattr(Follower, "open_vectors", slow)
        task = asyncio.create_task(best(session, made, 3))
        await loading.wait()
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.02)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert left == [N], "the load went on to its end before the session was given back"
        monkeypatch.setattr(Follower, "open_vectors", fetch)
        assert (await best(session, made, 3)).title == "3"
        (index,) = {*next(iter(sharing._held.values())).values()}
        assert index.sealed.state.living == N

    run(main, orm_dsn, made)


def test_run_sync_waits_for_another_task(orm_dsn, made):
    """Whoever loads or builds may be a task of the same event loop: a thread that waits for it would stop it."""

    async def main(session):
        assert (await best(session, made, 3)).title == "3"
        session.add(made.Item(title="300", embedding=V[300]))
        await session.commit()
        (index,) = {*next(iter(sharing._held.values())).values()}

        def hold():
            with index.sealed._lock:
                held.set()
                concurrency.sleep(0.2)

        for wanted in (nearest, maintain):
            held = asyncio.Event()
            task = asyncio.create_task(concurrency.spawn(hold))
            await held.wait()
            if wanted is nearest:
                asked = select(made.Item.title), made.Item.embedding, V[300], 1
                assert (await session.run_sync(nearest, *asked))[0].item == "300"
            else:
                await session.run_sync(maintain, made.Item.embedding)
            await task

    run(main, orm_dsn, made)
