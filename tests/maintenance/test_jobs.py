"""Jobs: one at a time, beside the caller, never waited for in another process, and closed for good."""

import asyncio
import os
import threading
import time

import pytest

from encvec_store.maintenance.jobs import Job
from encvec_store.runtime import concurrency


@pytest.fixture
def job():
    return Job("a-job")


class Work:
    """Work that waits until it is told to end, and counts."""

    def __init__(self):
        self.began, self.end, self.times, self.here = threading.Event(), threading.Event(), 0, set()

    def __call__(self):
        self.here.add(threading.current_thread().name)
        self.began.set()
        assert self.end.wait(20)
        self.times += 1


def test_one_at_a_time(job):
    work = Work()
    job.start(work)
    assert work.began.wait(20)
    job.start(work)
    job.run(work)
    work.end.set()
    job.wait()
    assert (work.times, work.here) == (1, {"a-job"})
    job.start(work)
    job.wait()
    assert work.times == 2
    job.run(work)
    assert (work.times, work.here) == (3, {"a-job", threading.current_thread().name})


def test_closing_waits_and_starts_nothing_more(job):
    work = Work()
    job.start(work)
    assert work.began.wait(20)
    threading.Timer(0.2, work.end.set).start()
    job.close()
    assert work.times == 1
    job.start(work)
    job.run(work)
    job.close()
    assert work.times == 1


def test_whoever_fails_lets_the_next_one_go(job):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(fail)
    work = Work()
    work.end.set()
    job.run(work)
    assert work.times == 1


def test_no_thread_to_be_had(job, monkeypatch, caplog):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    job.start(Work())
    job.wait()
    assert "maintenance could not start: can't start new thread" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_its_parents_thread(job):
    work, turn = Work(), threading.Event()

    def hold():
        with job.turn:
            turn.set()
            work()

    job.start(hold)
    assert turn.wait(20)
    child = os.fork()
    if not child:
        status = 1
        try:
            with job.turn:
                fine = Work()
                fine.end.set()
                job.run(fine)
                job.close()
                status = 0 if fine.times == 1 else 2
        finally:
            os._exit(status)
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    work.end.set()
    job.close()
    assert ended == (child, 0)


def test_in_an_event_loop_it_is_a_task_that_outlives_its_caller(job):
    """The caller is cancelled, and the job goes on; closing waits for it, and other tasks run meanwhile."""
    done, ticks = [], []

    def work():
        concurrency.sleep(0.3)
        done.append(threading.current_thread())

    def caller():
        job.start(work)
        concurrency.sleep(10)

    async def tick():
        while True:
            ticks.append(None)
            await asyncio.sleep(0.01)

    async def main():
        ticking = asyncio.create_task(tick())
        calling = asyncio.create_task(concurrency.spawn(caller))
        await asyncio.sleep(0.05)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert not done
        closing = asyncio.create_task(concurrency.spawn(job.close))
        await asyncio.sleep(0.01)
        closing.cancel()  # who gives up closing does not cancel it either
        with pytest.raises(asyncio.CancelledError):
            await closing
        await concurrency.spawn(job.close)
        ticking.cancel()

    asyncio.run(main())
    assert done == [threading.current_thread()]
    assert len(ticks) > 5
