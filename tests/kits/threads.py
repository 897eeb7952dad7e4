"""Threads of tests: one that fails the test when it raises, where `threading` would only print it; one that locks."""

import threading
from contextlib import contextmanager


def guarded(failed, work, *given):
    """Return a thread, not started, that does some work and adds what it raises to a list."""

    def run():
        try:
            work(*given)
        except BaseException as error:
            failed.append(error)

    return threading.Thread(target=run, daemon=True)


@contextmanager
def held(lock):
    """Have another thread hold a lock meanwhile."""
    taken, done = threading.Event(), threading.Event()

    def hold():
        with lock:
            taken.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(60)
    try:
        yield
    finally:
        done.set()
        thread.join()
