"""Runs one background job at a time, in a thread or in a task of the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future

from ..runtime.concurrency import Lock, in_walk, result, spawn

__all__ = ["Job"]

log = logging.getLogger("encvec_store")


class Job:
    """Runs a function, never twice at the same time. May be used from several threads, and after a fork.

    A forked process starts with no job: threads stay in the parent, with the locks they hold.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._guard = threading.Lock()  # never held while waiting
        self._lock = Lock()
        self._running: Future[None] | None = None
        self._task: asyncio.Task[None] | None = None  # the event loop itself keeps no strong reference

    @property
    def turn(self) -> Lock:
        """The lock that whoever does the work holds, the job or a caller."""
        if self._pid != os.getpid():
            self._begin()
        return self._lock

    def run(self, fn: Callable[[], None]) -> None:
        """Call the function in this thread, unless a job is running."""
        running = self._claim()
        if running is not None:
            try:
                fn()
            finally:
                self._ended(running)

    def start(self, fn: Callable[[], None]) -> None:
        """Call the function in the background, unless a job is running. It goes on if the caller is cancelled.

        Args:
            fn: a function that may wait (`concurrency`) and raises nothing.
        """
        running = self._claim()
        if running is None:
            return
        if in_walk():
            self._task = asyncio.get_running_loop().create_task(self._spawned(fn, running))
            return

        def work() -> None:
            try:
                fn()
            finally:
                self._ended(running)

        try:
            threading.Thread(target=work, name=self._name).start()
        except RuntimeError as error:  # no thread can be started, or the interpreter is shutting down
            self._ended(running)
            log.warning("maintenance could not start: %s", error)

    @property
    def running(self) -> bool:
        """True while the function runs."""
        self.turn  # noqa: B018 - checks for a fork
        return self._running is not None

    def wait(self) -> None:
        """Wait until no job is running."""
        self.turn  # noqa: B018 - checks for a fork
        with self._guard:
            running = self._running
        if running is not None:
            result(running)

    def close(self) -> None:
        """Start no more jobs, and wait for the running one."""
        self._closed = True
        self.wait()

    async def _spawned(self, fn: Callable[[], None], running: Future[None]) -> None:
        try:
            await spawn(fn)
        finally:
            self._ended(running)

    def _claim(self) -> Future[None] | None:
        self.turn  # noqa: B018 - checks for a fork
        with self._guard:
            if self._closed or self._running is not None:
                return None
            self._running = Future()
            self._running.set_running_or_notify_cancel()  # a caller who stops waiting must not cancel it
            return self._running

    def _ended(self, running: Future[None]) -> None:
        with self._guard:
            if self._running is running:
                self._running = None
        running.set_result(None)
