"""The async PostgreSQL store: what waits, waits in the event loop."""

import asyncio
import gc
import threading
import time

import numpy as np

from tests.kits.async_store import (
    DIM,
    WAITING,
    counted,
    held,
    ids,
    intact,
    run,
    until,
    vectors,
)
from tests.stores.contract import hasten


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
        gc.freeze()  # for good: thawed, it would slow all later tests (tests/conftest.py)
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


def test_maintenance_goes_on_beside_the_caller(keyed, pg_dsn, monkeypatch):
    """A task of the loop fits the profile; the upsert that made it due has returned before."""
    hasten(monkeypatch)

    async def main():
        async with keyed(maintenance="background") as store:
            things = await store.collection("things", dim=DIM, scheme="sketch")
            stored = vectors(40)
            await things.upsert(ids(40), stored)
            deadline = time.monotonic() + 60
            while (await things.stats())["profile"]["state"] != "sketch":
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert (await things.stats())["maintenance"] == {"mode": "background", "due": []}
            assert (await things.search(stored[3], k=1))[0].id == ids(40)[3]
            assert (await things.verify()).ok
            assert await things.maintain() == []

    run(main)
