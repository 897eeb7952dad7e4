"""Calls in a forked child, for tests of what a fork leaves behind."""

import os
import pickle
import signal
import time


def in_child(function, timeout=30):
    """Fork, call a function in the child, and return its result, or raise what it raised. A child that hangs fails."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            try:
                told = True, function()
            except BaseException as error:
                told = False, error
            with open(writing, "wb") as pipe:
                try:
                    pickle.dump(told, pipe)
                except Exception:
                    pickle.dump((False, RuntimeError(repr(told[1]))), pipe)
        finally:
            os._exit(0)
    os.close(writing)
    deadline = time.monotonic() + timeout
    os.set_blocking(reading, False)
    data = b""
    while time.monotonic() < deadline:
        try:
            some = os.read(reading, 1 << 16)
        except BlockingIOError:
            time.sleep(0.002)
            continue
        if not some:
            break
        data += some
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    os.waitpid(child, 0)
    assert data, "the child hung, or died without a word"
    sound, result = pickle.loads(data)  # noqa: S301 - our own child's
    if not sound:
        raise result
    return result
