"""Calls that wait for an index: in the event loop of an async session, and to their end.

A function that `run_sync` calls must not wait for a lock in its thread: whoever holds the lock may be a task of the
same event loop, which would never go on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from ...runtime.concurrency import in_walk, spawn, wait_for

__all__ = ["in_any_session", "to_the_end"]

P = ParamSpec("P")
T = TypeVar("T")


async def to_the_end(fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Await a function that may wait. If the task is cancelled, wait until it has left the connection alone."""
    task = asyncio.ensure_future(spawn(fn, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():  # also if it is cancelled again
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # it is nobody's any more
        raise


def in_any_session(fn: Callable[P, T]) -> Callable[P, T]:
    """Make a function that may wait usable by `run_sync` too."""

    @wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        from sqlalchemy.util.concurrency import in_greenlet

        if in_walk() or not in_greenlet():
            return fn(*args, **kwargs)
        return wait_for(to_the_end(fn, *args, **kwargs))

    return call
