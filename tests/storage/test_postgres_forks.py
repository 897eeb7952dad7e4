"""A PostgreSQL store in forked children: connections of their own, and the parent's left alone."""

import asyncio

import numpy as np
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

import encvec_store as ev
from encvec_store import errors
from tests.kits.forking import in_child

DIM, N = 8, 40
VECTORS = np.random.default_rng(0).standard_normal((N, DIM)).astype(np.float32)
IDS = [str(i) for i in range(N)]


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


def found(collection):
    return [hits[0].id for hits in collection.search(VECTORS, k=1)]


@pytest.mark.parametrize("scheme", ["sap", "sealed"])
def test_parent_and_children_search_and_write_at_once(pg_place, keyset, scheme):
    with ev.connect(pg_place.dsn, keyset=keyset, schema=pg_place.schema) as store:
        things = store.collection("things", dim=DIM, scheme=scheme)
        things.upsert(IDS, VECTORS)
        assert found(things) == IDS

        def work():
            for i in range(5):
                things.upsert([f"child {i}"], -VECTORS[:1])
                assert found(things) == IDS

        def fork_again():
            assert in_child(lambda: found(things)) == IDS  # a child that has used nothing yet has a child
            work()
            assert in_child(lambda: found(things)) == IDS
            store.close()

        in_child(work)
        in_child(fork_again)
        in_child(store.close)
        assert found(things) == IDS
        assert things.count() == N + 5


def test_a_child_that_ends_leaves_the_parents_session_alone(pg_place, keyset):
    """Not even by its finalisers: a connection that is closed takes leave of the server, in the parent's name."""
    with ev.connect(pg_place.dsn, keyset=keyset, schema=pg_place.schema, pool_size=1) as store:
        things = store.collection("things", dim=DIM, scheme="sap")
        read = store._records._source.read

        def session():
            return read(lambda cursor: cursor.execute(b"SELECT pg_backend_pid()").fetchone()[0])

        def end():
            import gc

            nonlocal store, things, read
            mine = session()
            store.close()
            del store, things, read
            gc.collect()
            return mine

        before = session()
        assert in_child(end) != before
        assert session() == before


@pytest.mark.parametrize("kind", ["pool", "engine"])
def test_what_the_caller_made_must_be_made_anew(pg_place, keyset, kind):
    if kind == "pool":
        given = ConnectionPool(pg_place.dsn, min_size=1, max_size=2, open=True)
        dispose = given.close
    else:
        given = create_engine(pg_place.dsn.replace("postgresql:", "postgresql+psycopg:"), hide_parameters=True)
        dispose = given.dispose
    try:
        with ev.connect("postgresql://", keyset=keyset, schema=pg_place.schema, **{kind: given}) as store:
            things = store.collection("things", dim=DIM, scheme="sap")
            things.upsert(IDS, VECTORS)
            for call in (lambda: found(things), lambda: things.upsert(IDS, VECTORS), store.collections):
                with pytest.raises(errors.StoreUnreachableError, match=f"the {kind} given belongs to the parent"):
                    in_child(call)
            assert found(things) == IDS
    finally:
        dispose()


@pytest.mark.parametrize("kind", ["own", "pool", "engine"])
def test_async(pg_place, keyset, kind):
    async def opened():
        given = {}
        if kind == "pool":
            given[kind] = AsyncConnectionPool(pg_place.dsn, min_size=1, max_size=2, open=False)
            await given[kind].open()
        elif kind == "engine":
            url = pg_place.dsn.replace("postgresql:", "postgresql+psycopg:")
            given[kind] = create_async_engine(url, hide_parameters=True)
        url = "postgresql://" if given else pg_place.dsn
        store = await ev.aio.connect(url, keyset=keyset, schema=pg_place.schema, **given)
        things = await store.collection("things", dim=DIM, scheme="sap")
        await things.upsert(IDS, VECTORS)
        return store, things, given.get(kind)

    async def search(things):
        return [hits[0].id for hits in await things.search(VECTORS, k=1)]

    async def closed(store, given):
        await store.close()
        if given is not None:
            await (given.close() if kind == "pool" else given.dispose())

    with asyncio.Runner() as runner:
        store, things, given = runner.run(opened())
        if kind == "own":
            assert in_child(lambda: asyncio.run(search(things))) == IDS
        else:
            with pytest.raises(errors.StoreUnreachableError, match=f"the {kind} given belongs to the parent"):
                in_child(lambda: asyncio.run(search(things)))
        assert runner.run(search(things)) == IDS
        runner.run(closed(store, given))
