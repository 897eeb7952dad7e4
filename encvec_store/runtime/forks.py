"""What a forked child must make anew: threads do not survive a fork, and locks stay as they were.

Connections stay open in both processes, so that the child must neither use nor close those of its parent.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from types import TracebackType
from typing import Protocol

__all__ = ["Mutex", "Renewable", "generation", "never_freed", "renew_in_child"]


class Renewable(Protocol):
    """Something with state that a forked child must not share."""

    def renew(self) -> None:
        """Make that state anew. Runs in the child before anything else does: it must not wait, nor log."""
        ...


_generation = 0
_renewables: weakref.WeakSet[Renewable] = weakref.WeakSet()


def generation() -> int:
    """Return how often this process was forked since the package was imported: whoever sees it change is a child."""
    return _generation


def renew_in_child(owner: Renewable) -> None:
    """Have `owner.renew()` called in every forked child, as long as the owner lives."""
    _renewables.add(owner)


def never_freed(thing: object) -> None:
    """Keep an object of the parent alive until this child ends, so that its finaliser never runs here.

    A finaliser might close a file or connection that the parent uses, or wait for a thread that is not here.
    A list would not do: Python empties it when the process ends, and frees what it holds.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _forked() -> None:
    global _generation
    _generation += 1
    for owner in list(_renewables):
        owner.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forked)


class Mutex:
    """A `threading.Lock` that is free in a forked child, also where another thread of the parent held it."""

    def __init__(self) -> None:
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Take a new lock, which nobody holds."""
        self._lock = threading.Lock()

    def acquire(self, timeout: float = -1) -> bool:
        """Take the lock; False where it was not free within so many seconds."""
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        """Give the lock back."""
        if self._lock.locked():  # else who held it has forked, and this is the child
            self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
