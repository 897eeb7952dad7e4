"""A lock for many readers or one writer, and a lock file for one process."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...runtime.forks import renew_in_child

__all__ = ["FileLock", "ReadWriteLock"]


class ReadWriteLock:
    """Many readers or one writer. A waiting writer keeps new readers out, so it cannot starve. Not reentrant.

    In a forked child it stays as it was until `renew` is called.
    """

    _writing = False

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> bool:
        """Make a new lock, which is free. Returns True if a writer held the old one."""
        written = self._writing
        self._condition = threading.Condition(threading.Lock())
        self._readers = 0
        self._waiting = 0
        self._writing = False
        return written

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with other readers."""
        with self._condition:
            while self._writing or self._waiting:
                self._condition.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._condition:
                self._readers -= 1
                if not self._readers:
                    self._condition.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[Callable[[], None]]:
        """Hold the lock alone, and give a function that turns it into a shared lock."""
        shared = False

        def share() -> None:
            nonlocal shared
            with self._condition:
                shared, self._writing, self._readers = True, False, 1
                self._condition.notify_all()

        with self._condition:
            self._waiting += 1
            try:
                while self._writing or self._readers:
                    self._condition.wait()
                self._writing = True
            finally:
                self._waiting -= 1
                if not self._writing:
                    self._condition.notify_all()
        try:
            yield share
        finally:
            with self._condition:
                if shared:
                    self._readers -= 1
                else:
                    self._writing = False
                self._condition.notify_all()


class FileLock:
    """An exclusive lock on a file. It lasts until it is released or the process ends, however it ends.

    A forked child does not hold it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        renew_in_child(self)

    def renew(self) -> None:
        """Close the inherited file. The parent still holds the lock, because it has the file open as well."""
        self.release()

    def acquire(self) -> bool:
        """Take the lock if it is free. Returns True if this object holds it. Never waits."""
        if self._file is not None:
            return True
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(file)
        except OSError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Release the lock. The file stays, because otherwise two processes could lock two files of the same name."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
