"""Threads of tests: what one of them raises fails the test, where `threading` would only print it."""

import threading


def guarded(failed, work, *given):
    """Return a thread, not started, that does some work and adds what it raises to a list."""

    def run():
        try:
            work(*given)
        except BaseException as error:
            failed.append(error)

    return threading.Thread(target=run, daemon=True)
