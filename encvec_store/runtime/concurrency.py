"""Wait in a thread, or in the event loop of an async caller, with the same code.

A *walk* is a call that is written once, as a plain function. `spawn` runs it in a greenlet, as the asyncio extension of
SQLAlchemy does. When the walk must wait, `wait_for` gives an awaitable to the event loop, and the walk goes on with the
result. A walk must not hold a lock of `threading` while it waits: the next walk runs in the same thread and would wait
for the lock forever. It may hold a `Lock`. In a plain call, `offload`, `each`, `result`, `sleep` and `Lock` do what
their names say, in the thread of the caller.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from ..errors import StoreUnreachableError
from .forks import renew_in_child

__all__ = [
    "Lock",
    "awaited",
    "called_from",
    "caller",
    "each",
    "entered",
    "in_thread",
    "in_walk",
    "offload",
    "result",
    "sleep",
    "spawn",
    "wait_for",
]

P = ParamSpec("P")
T = TypeVar("T")

_INLINE = 256
_going_on: set[asyncio.Task[Any]] = set()
"""Tasks that outlive their callers: the event loop itself keeps no strong reference."""
_caller_loop: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("encvec_store_loop", default=None)
"""The event loop of the async caller whose call runs in this thread."""
_walk: ContextVar[Any] = ContextVar("encvec_store_walk", default=None)
"""The greenlet of the walk that this task runs. Its worker threads inherit the variable, but run no greenlet."""


async def spawn(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that may wait by `wait_for`. If the task is cancelled, CancelledError is raised where it waits.

    Raises:
        StoreUnreachableError: greenlet is not installed.
    """
    try:
        from greenlet import getcurrent
    except ImportError as error:
        raise StoreUnreachableError(
            f"the async postgresql store needs greenlet ({error}): pip install 'encvec-store[postgres]'"
        ) from None
    from sqlalchemy.util import greenlet_spawn

    def walk() -> T:
        token = _walk.set(getcurrent())
        try:
            return fn(*args, **kwargs)
        finally:
            _walk.reset(token)

    return await greenlet_spawn(walk)


def in_walk() -> bool:
    """Say whether the caller runs in a walk, and not in one of its worker threads."""
    mine = _walk.get()
    if mine is None:
        return False
    from greenlet import getcurrent

    return mine is getcurrent()


def caller() -> object:
    """Return what stands for the running walk or, outside of any, for the running thread. Compare it by `is`."""
    return _walk.get() if in_walk() else threading.current_thread()


def wait_for(awaitable: Awaitable[T]) -> T:
    """Wait in the event loop, while other tasks run. Call it only in a walk."""
    from sqlalchemy.util import await_only

    return await_only(awaitable)


@contextmanager
def called_from(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have `awaited` wait in this event loop, also in worker threads that are started within the block."""
    token = _caller_loop.set(loop)
    try:
        yield
    finally:
        _caller_loop.reset(token)


def awaited(awaitable: Awaitable[T]) -> T:
    """Wait for an awaitable that a caller's function has returned.

    It runs in the event loop of an async caller. For other callers it runs in one of our own, which lasts as long as
    the process, since clients keep connections that belong to a loop.
    """
    if in_walk():
        return wait_for(awaitable)

    async def whole() -> T:
        return await awaitable

    return asyncio.run_coroutine_threadsafe(whole(), _caller_loop.get() or _own_loop()).result()


@functools.cache
def _own_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="encvec-await", daemon=True).start()
    return loop


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_own_loop.cache_clear)  # its thread stays behind in the parent


def result(future: Future[T]) -> T:
    """Wait for the result of another thread, in the event loop or in the thread."""
    return wait_for(asyncio.wrap_future(future)) if in_walk() else future.result()


def sleep(seconds: float) -> None:
    """Sleep, in the event loop or in the thread."""
    if in_walk():
        wait_for(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


@contextmanager
def entered(manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter and leave an async context manager. Use it only in a walk."""
    value = wait_for(manager.__aenter__())
    try:
        yield value
    except BaseException as error:
        if not wait_for(manager.__aexit__(type(error), error, error.__traceback__)):
            raise
    else:
        wait_for(manager.__aexit__(None, None, None))


def offload(size: int, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that only computes. In a walk, long computations run in a worker thread.

    If the task is cancelled, the thread computes to the end, and the result is dropped.

    Args:
        size: the number of records that the function works on. A few hundred take milliseconds, so they stay in the
            event loop.
        fn: the function. It must neither wait for I/O nor change shared state.
        args: its arguments.
        kwargs: its keyword arguments.
    """
    if size <= _INLINE or not in_walk():
        return fn(*args, **kwargs)
    return wait_for(asyncio.to_thread(fn, *args, **kwargs))


def in_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that waits for files. In a walk it runs in a worker thread, so that the event loop goes on.

    If the task is cancelled, the thread goes on to the end. So call it where the task cannot be cancelled
    (`Lock.during`), if others must not begin before it has ended.
    """
    return wait_for(asyncio.to_thread(fn, *args, **kwargs)) if in_walk() else fn(*args, **kwargs)


def each(size: int, items: Iterator[T]) -> Iterator[T]:
    """Iterate over items that take long to make, with `offload` for each."""
    end = object()
    while (item := offload(size, next, items, end)) is not end:
        yield item  # type: ignore[misc]


class Lock:
    """A mutex that may be held while waiting. First come, first served. Not reentrant.

    Walks wait for it in their event loop, and other callers in their thread.
    It is free in a forked child.
    """

    def __init__(self) -> None:
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Forget who held it and who waited for it, because they stayed in the parent."""
        self._guard = threading.Lock()  # never held while waiting
        self._held = False
        self._queue: deque[Future[None]] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            turn: Future[None] = Future()
            self._queue.append(turn)
        try:
            result(turn)
        except BaseException:
            with self._guard:
                given = turn not in self._queue
                if not given:
                    self._queue.remove(turn)
            if given:  # it was our turn just when we gave up
                self._release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def during(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function while the lock is held. It goes on, and keeps the lock, if the calling task is cancelled.

        Args:
            fn: a function that may wait.
            args: its arguments.
            kwargs: its keyword arguments.
        """
        if not in_walk():
            with self:
                return fn(*args, **kwargs)
        self.__enter__()
        loop = asyncio.get_running_loop()
        told: asyncio.Future[T] = loop.create_future()
        task = loop.create_task(spawn(fn, *args, **kwargs))
        _going_on.add(task)

        def ended(task: asyncio.Task[T]) -> None:
            _going_on.discard(task)
            self._release()
            error = None if task.cancelled() else task.exception()
            if told.done():  # nobody waits for it any more
                return
            if task.cancelled():
                told.cancel()
            elif error is not None:
                told.set_exception(error)
            else:
                told.set_result(task.result())

        task.add_done_callback(ended)
        return wait_for(told)

    def _release(self) -> None:
        with self._guard:
            self._held = bool(self._queue)
            turn = self._queue.popleft() if self._queue else None
        if turn is not None and turn.set_running_or_notify_cancel():
            turn.set_result(None)
