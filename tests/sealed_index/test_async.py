"""Sealed collections under asyncio: tasks that are cancelled at any moment leave right answers, and nothing else."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import low_level
from encvec_store.runtime import concurrency
from encvec_store.sealed_index import builder, growth, saving
from encvec_store.sealed_index.lease import lease_name
from tests.kits import sealed
from tests.kits.async_store import OURS, counted, run
from tests.kits.sealed import DIM, Answers, apart, vectors_of

FEW = 300
"""More than are computed in the event loop itself."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    sealed.small(monkeypatch)


@pytest.fixture(params=["faiss", "postgresql"])
def connect(request, tmp_path):
    """Return a function that opens the store for asyncio, apart from earlier openings."""
    keyset = ev.Keyset.create("memory:")
    url = f"faiss://{tmp_path}"
    if request.param == "postgresql":
        url = request.getfixturevalue("pg_dsn")

    def opening(maintenance="manual", **how):
        apart()
        return ev.aio.connect(url, keyset=keyset, index="hnsw", maintenance=maintenance, **how)

    opening.url = url
    return opening


async def opened(store):
    return await store.collection("things", dim=DIM, metric="l2", scheme="sealed")


def state_of(things):
    return low_level.lifecycle(things._of)._indexing._index.sealed.state


async def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.005)


async def cancelled(coroutine, moment):
    """Run it, and cancel it after some seconds, or after an event. Returns False if it had ended."""
    task = asyncio.create_task(coroutine)
    if isinstance(moment, threading.Event):
        await until(lambda: moment.is_set() or task.done())
    else:
        await asyncio.sleep(moment)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


def leased(url, keyset):
    """Say whether somebody builds, as the store has it."""
    with ev.connect(url, keyset=keyset) as store:
        records = low_level.session(store.collection("things")).records
        return records.blob(lease_name(1)) is not None


def descriptors():
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0


async def same(things, stored, seed=0):
    answers = Answers("l2", stored=stored)
    for query in vectors_of(40, seed):
        answers.check(await things.search(query, k=10, include_vectors=True), query, 10)
    answers.enough()


def test_a_cancelled_search_does_not_cancel_the_load(connect, monkeypatch):
    """Otherwise callers with a time limit would begin it again and again, and none would ever get an answer."""
    vectors, begun, loads = vectors_of(FEW, 0), threading.Event(), []
    stored = dict(zip(map(str, range(FEW)), vectors, strict=True))
    real = saving.Shelf.part

    def slow(*given):
        loads.append(1)
        begun.set()
        concurrency.sleep(0.1)
        return real(*given)

    async def main():
        async with connect() as store:
            things = await opened(store)
            await things.upsert(list(stored), vectors)
            await things.maintain()
        monkeypatch.setattr(saving.Shelf, "part", slow)
        async with connect() as store:
            things = await opened(store)
            assert await cancelled(things.search(vectors[0], k=1), begun)
            await asyncio.gather(*[same(things, stored, seed) for seed in range(3)])
            assert len(loads) == 1
            assert len(state_of(things).parts) == 1

    run(main)


@pytest.mark.parametrize("closes", [False, True])
def test_a_cancelled_maintain_does_not_cancel_the_build(connect, monkeypatch, closes):
    """The graph is built and stored, and the lease given back, also if the store is closed at once."""
    vectors, begun, builds = vectors_of(FEW, 0), threading.Event(), []
    stored = dict(zip(map(str, range(FEW)), vectors, strict=True))
    real = growth.begin

    def slow(*given, **how):
        builds.append(1)
        begun.set()
        time.sleep(0.1)
        return real(*given, **how)

    monkeypatch.setattr(growth, "begin", slow)

    async def main():
        store = await connect()
        things = await opened(store)
        await things.upsert(list(stored), vectors)
        assert await cancelled(things.maintain(), begun)
        if closes:
            await store.close()
            store = await connect()
            things = await opened(store)
        await same(things, stored)
        await things.maintain()
        (part,) = state_of(things).parts
        assert len(builds) == 1
        assert part.stored is not None
        await store.close()
        assert not leased(connect.url, store.keyset)

    run(main)


@pytest.mark.parametrize("maintenance", ["background", "inline"])
def test_tasks_cancelled_at_random(connect, maintenance):
    """Searches, writes and builds run together. Afterwards answers are right, and nothing is left that they used."""
    rng = np.random.default_rng(3)
    pieces = {f"{n}/": vectors_of(20, n) for n in range(30)}

    def piece(name):
        return [f"{name}{i}" for i in range(len(pieces[name]))], pieces[name]

    async def work(things):
        kept = list(pieces)[:15]
        for name in kept:
            await things.upsert(*piece(name))
        others = list(pieces)[15:]
        tasks = []
        for n in range(60):
            match n % 4:
                case 0:
                    coroutine = things.maintain(purge=bool(rng.integers(2)))
                case 1:
                    coroutine = things.upsert(*piece(others[int(rng.integers(len(others)))]))
                case 2:
                    coroutine = things.delete(piece(others[int(rng.integers(len(others)))])[0])
                case _:
                    coroutine = things.search(vectors_of(3, n), k=10, include_vectors=True)
            tasks.append(asyncio.create_task(cancelled(coroutine, float(rng.exponential(0.02)))))
            await asyncio.sleep(float(rng.exponential(0.005)))
        ended = await asyncio.gather(*tasks)
        assert {True, False} == set(ended), "all were cancelled, or none"
        return kept

    async def disturbed():
        async with connect(maintenance) as store:
            return store.keyset, await work(await opened(store))

    async def looked_at():
        async with connect() as store:
            things = await opened(store)
            stored = {record.id: record.vector async for record in things.scroll()}
            for name in pieces:
                there = [id in stored for id in piece(name)[0]]
                assert any(there) == all(there), "half of a write"
                assert all(there) or name not in kept
                for id, vector in zip(*piece(name), strict=True) if all(there) else ():
                    np.testing.assert_array_equal(stored[id], vector)
            await same(things, stored)
            await things.maintain()
            await same(things, stored)
            assert (await things.verify()).ok
            assert state_of(things).tail.living <= builder.LAST

    before, threads = descriptors(), threading.active_count()
    keyset, kept = run(disturbed)  # calls in worker threads go on when their tasks are cancelled, and end here
    assert threading.active_count() <= threads
    assert descriptors() <= before
    if connect.url.startswith("postgres"):
        assert counted(connect.url, OURS) == 0
    assert not leased(connect.url, keyset)
    run(looked_at)
