"""Opening `records.sqlite3`: connections, transactions and errors.

Reads are single statements or a snapshot; every write is one `BEGIN IMMEDIATE` transaction. Cursors are the
driver's own, from SQLAlchemy's pool: its row processing doubles the time of reading a hundred rows.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import create_engine, event, exc, inspect
from sqlalchemy.engine import URL
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from ...data.arrays import Rows
from ...errors import StoreClosedError, StoreLockedError, StoreUnreachableError
from ..revisions import FORMAT, REVISION, VERSION_TABLE, judge
from .tables import OF_A_RECORD, PAGE_SIZE, metadata

__all__ = ["FILE_NAME", "Database", "ascending", "numbers"]

FILE_NAME = "records.sqlite3"
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_MAPPED = 1 << 28
_WAL_KEPT = 1 << 26
_CACHE, _WRITING_CACHE = 2_000, 64_000
"""Kibibytes of pages that a connection keeps. A batch's tokens are random, so it changes every page of their index
once a collection is large: in SQLite's usual cache each of them is written several times a batch."""
_MANY = 1_000
"""Records of a batch that are worth it: the larger cache takes a tenth of a millisecond."""


class Database:
    """One SQLite file and its connections. Usable from several threads; not across a fork."""

    def __init__(self, folder: Path, lock_timeout: float) -> None:
        self.path = folder / FILE_NAME
        self._timeout = lock_timeout
        self._writer = threading.Lock()
        self._watching = threading.Lock()
        self._closed = False
        # The first write of every process leaves a random gap. Where an older copy of the file is put back, new
        # records would otherwise get the numbers of lost ones, which a cached index may still know.
        self._leap = secrets.randbelow(1 << 36)
        self._leapt = False
        self._roomy = False
        """Whether the connection that writes has the larger cache: only that one, of those that read there are many."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # made here, so that it and the files SQLite puts beside it are the owner's alone
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StoreUnreachableError(f"cannot open the store in {folder}: {reason}") from None
        self.engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            # transactions are begun by hand, so that writers can say IMMEDIATE
            connect_args={"isolation_level": None, "check_same_thread": False, "timeout": lock_timeout},
            poolclass=QueuePool,
            pool_size=8,
            max_overflow=-1,
            pool_reset_on_return=None,  # every transaction is ended by hand
            hide_parameters=True,
        )
        event.listen(self.engine, "connect", self._connected)
        try:
            with self._translated("open"):
                self._prepare()
                # on a connection that never writes: SQLite does not count a connection's own commits
                self._watch: PoolProxiedConnection = self.engine.raw_connection()
                self._watching_cursor: Any = self._watch.cursor()
        except BaseException:
            self.engine.dispose()
            raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Cursor]:
        """A cursor for single reading statements."""
        with self._translated("read"), self._cursor() as cursor:
            yield cursor

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Cursor]:
        """A cursor whose reads all see the same state."""
        with self._translated("read"), self._cursor() as cursor:
            cursor.execute("BEGIN")
            try:
                yield cursor
            finally:
                cursor.execute("ROLLBACK")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Cursor]:
        """A cursor in a transaction that is committed at the end, or rolled back if anything is raised.

        Raises:
            StoreLockedError: another process or thread was writing for longer than the lock timeout.
        """
        # threads of this process queue here: SQLite's own waiting is by sleeping, and unfair
        if not self._writer.acquire(timeout=self._timeout):
            raise self._locked()
        try:
            with self._translated("write to"), self._cursor() as cursor:
                cursor.execute("BEGIN IMMEDIATE")
                try:
                    yield cursor
                    cursor.execute("COMMIT")
                    if self._leapt:
                        self._leap = 0
                except BaseException:
                    with suppress(sqlite3.Error):  # some errors have rolled back already
                        cursor.execute("ROLLBACK")
                    raise
                finally:
                    if self._roomy:
                        self._roomy = False
                        with suppress(sqlite3.Error):  # whatever happened has been told
                            cursor.execute(f"PRAGMA cache_size = -{_CACHE}")
        finally:
            self._writer.release()

    def expect(self, cursor: sqlite3.Cursor, n: int) -> None:
        """Make room for n records: called in a transaction before they are looked for and written."""
        if n >= _MANY and not self._roomy:
            self._roomy = True
            cursor.execute(f"PRAGMA cache_size = -{_WRITING_CACHE}")

    def allocate(self, cursor: sqlite3.Cursor, n: int) -> int:
        """Return the first of n consecutive row numbers, above all that were ever given out."""
        (first,) = cursor.execute("SELECT value FROM meta WHERE name = 'next_row'").fetchone()
        first += self._leap
        self._leapt = True
        cursor.execute("UPDATE meta SET value = ? WHERE name = 'next_row'", (first + n,))
        return int(first)

    def clear(self, cursor: sqlite3.Cursor, collection: int) -> None:
        """Delete all records of a collection. Where there are no others, tables are emptied, which goes by the page."""
        sql = "SELECT total(records) FROM partitions WHERE collection = ?"
        self.expect(cursor, int(cursor.execute(sql, (collection,)).fetchone()[0]))
        some = "EXISTS (SELECT 1 FROM records WHERE collection"
        sql = f"SELECT {some} < ?1) OR {some} > ?1)"
        (company,) = cursor.execute(sql, (collection,)).fetchone()
        for table in OF_A_RECORD:
            if company:
                where = "row IN (SELECT row FROM records WHERE collection = ?)"
                cursor.execute(f"DELETE FROM {table} WHERE {where}", (collection,))  # noqa: S608
            else:
                cursor.execute(f"DELETE FROM {table}")  # noqa: S608
        for table in ("partitions", "changes"):
            cursor.execute(f"DELETE FROM {table} WHERE collection = ?", (collection,))  # noqa: S608

    def data_version(self) -> int:
        """Return a number that changes whenever anybody has committed anything. Microseconds."""
        with self._watching:
            if self._closed:
                raise StoreClosedError("the store is closed")
            try:  # no context manager: every search comes here several times
                (version,) = self._watching_cursor.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error as error:
                raise self._unreachable("read", error) from None
        return int(version)

    def fold(self) -> None:
        """Fold the write-ahead log into the file, without waiting for those who use it."""
        with self.read() as cursor:
            cursor.execute("PRAGMA busy_timeout = 0")
            try:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {round(self._timeout * 1000)}")

    def size(self) -> int:
        """Return the bytes of the file and its write-ahead log."""
        log = self.path.with_name(f"{FILE_NAME}-wal")
        return sum(path.stat().st_size for path in (self.path, log) if path.exists())

    def close(self) -> None:
        """Close every idle connection; the last one folds the write-ahead log into the file. Idempotent."""
        with self._watching:
            if self._closed:
                return
            self._closed = True
            self._watch.close()
        self.engine.dispose()

    @contextmanager
    def _cursor(self) -> Iterator[sqlite3.Cursor]:
        if self._closed:
            raise StoreClosedError("the store is closed")
        connection = self.engine.raw_connection()
        cursor: Any = None
        try:
            cursor = connection.cursor()
            yield cursor
        finally:
            if cursor is not None:
                cursor.close()  # a statement not read to its end would keep its snapshot
            connection.close()

    def _connected(self, connection: Any, _record: Any) -> None:
        for pragma in (
            f"page_size = {PAGE_SIZE}",  # heeded only while the file is empty
            "foreign_keys = OFF",  # SQLite follows them a row at a time: who deletes names the tables, `check` looks
            "synchronous = FULL",
            f"mmap_size = {_MAPPED}",
            f"cache_size = -{_CACHE}",
            f"journal_size_limit = {_WAL_KEPT}",
            f"wal_autocheckpoint = {_WAL_KEPT // PAGE_SIZE}",  # large batches change the same pages: copy them once
        ):
            connection.execute(f"PRAGMA {pragma}")

    def _prepare(self) -> None:
        """Create the tables, or check that they are ours and not from the future."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                with self._cursor() as cursor:
                    cursor.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                # two processes opening a new file: turning to WAL does not wait as other statements do
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        with self.engine.connect() as connection:
            names = set(inspect(connection).get_table_names())
        if not names - {VERSION_TABLE}:  # what is left after a downgrade to nothing
            with self.engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                metadata.create_all(connection)
                for name, value in (("format", FORMAT), ("revision", REVISION), ("next_row", 1)):
                    connection.exec_driver_sql("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value))
                connection.commit()
        elif "meta" not in names:
            raise StoreUnreachableError(f"{self.path} is a database of something else")
        with self._cursor() as cursor:
            said = dict(cursor.execute("SELECT name, value FROM meta").fetchall())
        judge(str(self.path), said)

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, exc.SQLAlchemyError, UnicodeDecodeError) as error:  # the last: damaged text
            # the driver's message only: SQLAlchemy's would quote the statement, and `from None` hides both
            cause = getattr(error, "orig", None) or error
            if _is_busy(cause) and doing == "write to":
                raise self._locked() from None
            raise self._unreachable(doing, cause) from None

    def _unreachable(self, doing: str, cause: object) -> StoreUnreachableError:
        what = str(cause) if isinstance(cause, sqlite3.Error) else type(cause).__name__
        return StoreUnreachableError(f"cannot {doing} {self.path}: {what}")

    def _locked(self) -> StoreLockedError:
        return StoreLockedError(f"another process is writing to {self.path}; nothing was written, try again")


def _is_busy(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def numbers(text: str | None) -> Rows:
    """Return the numbers of a `group_concat`: for many rows three times as fast as fetching each."""
    return np.fromstring(text or "", np.int64, sep=",")


def ascending(text: str | None) -> Rows:
    """Return them sorted."""
    return np.sort(numbers(text), kind="stable")
