"""Waiting in a thread and in an event loop: the same calls do either."""

import asyncio
import contextlib
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import MissingGreenlet

from encvec_store import errors
from encvec_store.runtime.concurrency import Lock, each, entered, in_walk, offload, result, sleep, spawn, wait_for

LARGE = 10_000


def where():
    return threading.get_ident(), in_walk()


def test_a_plain_call_is_a_plain_call():
    here = threading.get_ident()
    assert offload(LARGE, where) == (here, False)
    assert list(each(LARGE, iter("abc"))) == ["a", "b", "c"]
    began = time.monotonic()
    sleep(0.02)
    assert time.monotonic() - began > 0.015
    with pytest.raises(MissingGreenlet):
        wait_for(asyncio.sleep(0))


def test_a_walk_waits_in_the_loop():
    order = []

    def walk(name):
        assert in_walk()
        for _ in range(3):
            order.append(name)
            sleep(0.01)
            assert wait_for(asyncio.sleep(0, name)) == name
            assert in_walk()
        return name

    async def main():
        assert await asyncio.gather(spawn(walk, "a"), spawn(walk, "b")) == ["a", "b"]
        assert not in_walk()

    asyncio.run(main())
    assert order == ["a", "b"] * 3


def test_what_takes_long_goes_to_a_thread():
    def walk():
        here = threading.get_ident()
        assert offload(5, where) == (here, True)
        thread, inside = offload(LARGE, where)
        assert thread != here
        assert inside is False
        assert offload(LARGE, lambda: offload(LARGE, where)[0] == threading.get_ident()), "no thread of a thread"
        made = [thread for thread in each(LARGE, (threading.get_ident() for _ in range(3)))]
        assert len(made) == 3
        assert here not in made
        with pytest.raises(KeyError):
            offload(LARGE, {}.__getitem__, "a")

    asyncio.run(spawn(walk))


def test_another_threads_result_is_waited_for_in_the_loop():
    """Two walks, each of whose threads waits for the other: neither may stop the loop."""
    meeting = threading.Barrier(2)

    def walk(worker):
        assert result(worker.submit(meeting.wait, 20)) in (0, 1)
        with pytest.raises(KeyError):
            result(worker.submit({}.__getitem__, "a"))
        return result(worker.submit(where))

    async def main(worker):
        for _, inside in await asyncio.gather(spawn(walk, worker), spawn(walk, worker)):
            assert inside is False

    with ThreadPoolExecutor(2) as worker:
        asyncio.run(main(worker))
        assert result(worker.submit(int, "5")) == 5


def test_an_error_leaves_by_the_context_managers():
    seen = []

    @contextlib.asynccontextmanager
    async def manager():
        await asyncio.sleep(0)
        try:
            yield 5
        except BaseException as error:
            await asyncio.sleep(0)
            seen.append(type(error))
            if not isinstance(error, KeyError):
                raise
        else:
            seen.append(None)

    def walk():
        with entered(manager()) as value:
            assert value == 5
        with entered(manager()):
            raise KeyError("swallowed")
        with pytest.raises(ValueError, match="raised"), entered(manager()):
            raise ValueError("raised")
        with entered(manager()):
            wait_for(asyncio.sleep(60))

    async def main():
        task = asyncio.create_task(spawn(walk))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == [None, KeyError, ValueError, asyncio.CancelledError]


def test_greenlet_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "greenlet", None)
    with pytest.raises(errors.StoreUnreachableError, match=r"needs greenlet .*pip install 'encvec-store\[postgres\]'"):
        asyncio.run(spawn(where))
    assert offload(LARGE, where) == (threading.get_ident(), False), "plain calls do without"


def test_lock_excludes_threads_and_walks():
    """Held over waits, by walks of one loop and by threads, with some of them giving up on the way."""
    lock, inside, most, done = Lock(), 0, 0, 0

    def enter(pause):
        nonlocal inside, most, done
        with lock:
            inside += 1
            most = max(most, inside)
            try:
                pause()
            finally:
                inside -= 1
            done += 1

    def threaded():
        for _ in range(20):
            enter(lambda: time.sleep(0.0005))

    async def main():
        threads = [threading.Thread(target=threaded) for _ in range(3)]
        for thread in threads:
            thread.start()
        rng = random.Random(1)
        cancelled = 0
        for _ in range(20):
            tasks = [asyncio.create_task(spawn(enter, lambda: wait_for(asyncio.sleep(0.0005)))) for _ in range(6)]
            await asyncio.sleep(rng.random() * 0.005)
            quitters = rng.sample(tasks, 2)
            for task in quitters:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                cancelled += isinstance(outcome, asyncio.CancelledError)
        for thread in threads:
            await asyncio.to_thread(thread.join, 30)
        return cancelled

    cancelled = asyncio.run(main())
    assert most == 1
    assert done == 3 * 20 + 20 * 6 - cancelled
    assert 0 < cancelled <= 40
    with lock:
        assert not inside


def test_lock_is_handed_on_by_who_was_cancelled_just_then():
    lock = Lock()

    def take():
        with lock:
            return True

    async def main():
        lock.__enter__()
        first, second = (asyncio.create_task(spawn(take)) for _ in range(2))
        await asyncio.sleep(0)
        lock.__exit__(None, None, None)  # given to the first, which does not run before it is cancelled
        first.cancel()
        assert await asyncio.wait_for(second, 5)
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await asyncio.wait_for(spawn(take), 5)

    asyncio.run(main())


def test_what_a_lock_is_held_during_goes_on_when_its_caller_is_cancelled():
    lock, done = Lock(), []

    def work(name, error=None):
        sleep(0.02)
        done.append(name)
        if error:
            raise error
        return name

    async def main():
        call = asyncio.create_task(spawn(lock.during, work, "a"))
        failing = asyncio.create_task(spawn(lock.during, work, "b", KeyError("b")))
        await asyncio.sleep(0.01)
        for task in (call, failing):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not done
        assert await spawn(lock.during, work, "c") == "c"
        assert done == ["a", "c"], "who only waits for the lock gives up"
        with pytest.raises(KeyError):
            await spawn(lock.during, work, "d", KeyError("d"))
        failing = asyncio.create_task(spawn(lock.during, work, "e", KeyError("e")))
        await asyncio.sleep(0.01)
        failing.cancel()
        await spawn(lock.during, work, "f")

    asyncio.run(main())
    assert done == [*"acdef"]
    assert lock.during(work, "g") == "g"
    with pytest.raises(KeyError):
        lock.during(work, "h", KeyError("h"))
    with lock:
        pass
