"""Connections to one SQLite file: opened when needed, kept for the next reader, never shared with a forked child."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ...errors import StoreUnreachableError
from ...runtime.forks import Mutex, generation, never_freed, renew_in_child

__all__ = ["CACHE", "PAGE_SIZE", "WAL", "ConnectionPool", "SqliteFile"]

WAL = "-wal"
PAGE_SIZE = 8192
"""Vectors of 2 kB would waste half of each page of 4 kB, which is the default of SQLite."""
CACHE = 2_000
"""Kibibytes of pages that a connection keeps."""
_MAPPED = 1 << 28
_WAL_KEPT = 1 << 26
_PRAGMAS = (
    f"page_size = {PAGE_SIZE}",  # has an effect only while the file is empty
    "foreign_keys = OFF",  # SQLite follows them row by row: deletes name the tables, and `check` looks for leftovers
    "synchronous = FULL",
    f"mmap_size = {_MAPPED}",
    f"cache_size = -{CACHE}",
    f"journal_size_limit = {_WAL_KEPT}",
    f"wal_autocheckpoint = {_WAL_KEPT // PAGE_SIZE}",  # large batches change the same pages: copy them only once
)
_IDLE_MOST = 8


class SqliteFile(NamedTuple):
    """A file, and how it is opened."""

    path: Path
    timeout: float
    """Seconds that SQLite waits for a lock."""
    read_only: bool = False
    immutable: bool = False
    """Nobody writes to the file, so SQLite needs no files beside it. A read-only folder can hold none."""

    def connect(self) -> sqlite3.Connection:
        """Open a connection. It never creates the file."""
        mode = "mode=ro" if self.read_only else "mode=rw"
        uri = f"file:{quote(str(self.path))}?{mode}{'&immutable=1' if self.immutable else ''}"
        connection = sqlite3.connect(
            uri,
            uri=True,
            isolation_level=None,  # transactions begin explicitly, so that writers can say IMMEDIATE
            check_same_thread=False,
            timeout=self.timeout,
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection


class ConnectionPool:
    """A pool of connections to a file.

    Raises:
        OSError: there is no such file.
    """

    def __init__(self, opening: SqliteFile) -> None:
        self.opening = opening
        self._file = _identity(opening.path)
        self._idle: list[sqlite3.Connection] = []
        self._lock = Mutex()
        renew_in_child(self)

    def renew(self) -> None:
        """Leave the connections of the parent alone. The child opens its own."""
        for connection in self._idle:
            never_freed(connection)
        self._idle = []

    def require_in_place(self) -> None:
        """Raise StoreUnreachableError if the path no longer names the file that is open."""
        try:
            same = _identity(self.opening.path) == self._file
        except OSError:
            same = False
        if not same:
            raise StoreUnreachableError(
                f"{self.opening.path} was removed or replaced while the store was open; close the store, put the file"
                " back if it is missing, and open the store again"
            )

    @contextmanager
    def cursor(self) -> Iterator[sqlite3.Cursor]:
        """Give a cursor on a connection that nobody else uses meanwhile."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self.connect()
        process = generation()
        cursor = connection.cursor()
        try:
            yield cursor
        finally:
            if process == generation():
                cursor.close()  # a statement that was not read to its end would keep its snapshot
                self._give_back(connection)
            else:
                never_freed(connection)  # forked inside: this is the child

    def connect(self) -> sqlite3.Connection:
        """Open a connection for the caller to keep."""
        self.require_in_place()
        connection = self.opening.connect()
        try:
            self.require_in_place()  # it was opened by its path
        except StoreUnreachableError:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close idle connections. Connections in use are closed when they come back."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._closed = True
        for connection in idle:
            connection.close()

    _closed = False

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < _IDLE_MOST:
                self._idle.append(connection)
                return
        connection.close()


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
