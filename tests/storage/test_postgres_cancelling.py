"""The async PostgreSQL store: what is cancelled leaves nothing behind."""

import asyncio
import threading
import time

import numpy as np
import pytest

from encvec_store.storage.postgres import writer
from tests.kits.async_store import (
    DIM,
    WAITING,
    cancelled,
    counted,
    held,
    ids,
    intact,
    pool_of,
    run,
    until,
    vectors,
)
from tests.kits.postgres_store import ask


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
            assert (await anext(scroll)).id in ids(3000)
            await intact(store, pg_dsn, 1)
            await scroll.aclose()
            seen = 0
            async for record in things.scroll():
                assert await things.get([record.id]), "another call between two records"
                seen += 1
                if seen == 5:
                    break
            await intact(store, pg_dsn, 1)

    run(main)
