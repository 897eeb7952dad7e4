"""Open `records.sqlite3`: connections, transactions and errors.

A read is a single statement or a snapshot. A write is one `BEGIN IMMEDIATE` transaction. Cursors are those of the
driver, because the row processing of SQLAlchemy doubles the time to read a hundred rows.
"""

from __future__ import annotations

import copy
import errno
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import StoreClosedError, StoreLockedError, StoreReadOnlyError, StoreUnreachableError
from ...runtime.forks import Mutex, generation, never_freed, renew_in_child
from ..revisions import VERSION_TABLE, judge
from ..values import integer
from .connections import CACHE, WAL, ConnectionPool, SqliteFile
from .files import create
from .place import NAME_KEY

__all__ = ["FILE_NAME", "OF_A_RECORD", "Database", "first_free"]

FILE_NAME = "records.sqlite3"
OF_A_RECORD = ("vectors", "index_vectors", "terms", "records")
"""The tables that are keyed by row. The others refer to the last one."""
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_WRITING_CACHE = 64_000
"""Kibibytes of pages that a connection keeps during a large write. Tokens are random, so a batch changes every page of
their index once a collection is large. In a small cache each page would be written several times per batch."""
_MANY = 1_000
"""Smallest batch that gets the larger cache, which takes a tenth of a millisecond to set up."""
_DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)
_log = logging.getLogger("encvec_store")


class Database:
    """One SQLite file and its connections. Usable from several threads, and in a forked child.

    Args:
        folder: where the file is, or is made.
        lock_timeout: seconds to wait for another writer.
        read_only: never write. A file that cannot be written is opened so by itself, with a warning.
    """

    def __init__(self, folder: Path, lock_timeout: float, *, read_only: bool = False) -> None:
        self.path = folder / FILE_NAME
        self._timeout = lock_timeout
        self._writer, self._watching = Mutex(), Mutex()
        self._closed = False
        self._held: sqlite3.Connection | None = None
        """A connection in a snapshot, through which everything is read."""
        self._watch: sqlite3.Connection | None = None
        """Never writes: SQLite does not count the commits of a connection itself."""
        self._size, self._cut = 0, False
        """The size of the file when it was last read, and whether it ever became shorter."""
        self._begin_process()
        try:
            denied = "" if read_only else _make(folder, self.path)
            self.read_only = read_only or bool(denied)
            log = self.path.with_name(FILE_NAME + WAL)
            immutable = self.read_only and not os.access(folder, os.W_OK) and not _size(log)
            opening = SqliteFile(self.path, lock_timeout, self.read_only, immutable)
            self._connections = ConnectionPool(opening)
            self._unchanged = _state(self.path) if immutable else None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StoreUnreachableError(f"cannot open the store in {folder}: {reason}") from None
        try:
            with self._translated("open"):
                self._prepare()
        except BaseException:
            self.close()
            raise
        renew_in_child(self)
        if denied:
            _log.warning("the store in %s is opened read-only: %s", folder, denied)

    def renew(self) -> None:
        """Begin anew in a forked child."""
        if self._watch is not None:
            never_freed(self._watch)
        self._watch = None
        self._begin_process()

    def _begin_process(self) -> None:
        # The first write of every process leaves a random gap. If an older copy of the file was put back, new records
        # would otherwise get the numbers of lost ones, which a cached index may still know.
        self._leap = secrets.randbelow(1 << 36)
        self._leapt = False
        self._roomy = False
        """Whether the connection that writes has the larger cache. Only that one has it: there are many readers."""

    @contextmanager
    def read(self) -> Iterator[sqlite3.Cursor]:
        """Give a cursor for reads of one statement each."""
        with self._translated("read"), self._cursor() as cursor:
            yield cursor

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Cursor]:
        """Give a cursor whose reads all see the same state."""
        with self._translated("read"), self._cursor() as cursor:
            if self._held is not None:
                yield cursor
                return
            cursor.execute("BEGIN")
            try:
                yield cursor
            finally:
                cursor.execute("ROLLBACK")

    @contextmanager
    def frozen(self) -> Iterator[Database]:
        """Give the database as it is now, for reading in one thread. The write-ahead log grows until the end."""
        with self.snapshot() as cursor:
            cursor.execute("SELECT count(*) FROM meta").fetchone()  # a snapshot begins at its first read
            held = copy.copy(self)
            held._held, held.read_only = cursor.connection, True  # noqa: SLF001
            yield held

    @contextmanager
    def write(self) -> Iterator[sqlite3.Cursor]:
        """Give a cursor in a transaction, which is committed at the end, or rolled back on any error.

        Raises:
            StoreLockedError: another process or thread wrote for longer than the lock timeout.
            StoreReadOnlyError: the store is open for reading only.
        """
        if self.read_only:
            raise StoreReadOnlyError(
                f"the store in {self.path.parent} is open for reading only; nothing was written: open it where it can"
                " be written, without mode=ro"
            )
        # the threads of this process queue here, because SQLite waits by sleeping, and is unfair
        if not self._writer.acquire(timeout=self._timeout):
            raise self._locked()
        try:
            with self._translated("write to"), self._cursor() as cursor:
                self._connections.require_in_place()
                cursor.execute("BEGIN IMMEDIATE")
                try:
                    yield cursor
                    self._connections.require_in_place()  # it may have gone while the batches were made
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
                        with suppress(sqlite3.Error):  # the error that counts was raised already
                            cursor.execute(f"PRAGMA cache_size = -{CACHE}")
        finally:
            self._writer.release()

    def expect(self, cursor: sqlite3.Cursor, n: int) -> None:
        """Enlarge the cache for a write of n records. Call it in the transaction, before its first statement."""
        if n >= _MANY and not self._roomy:
            self._roomy = True
            cursor.execute(f"PRAGMA cache_size = -{_WRITING_CACHE}")

    def allocate(self, cursor: sqlite3.Cursor, n: int) -> int:
        """Return the first of n new row numbers. They are consecutive, and larger than all earlier ones."""
        first = first_free(cursor) + self._leap
        self._leapt = True
        cursor.execute("UPDATE meta SET value = ? WHERE name = 'next_row'", (first + n,))
        return first

    def clear(self, cursor: sqlite3.Cursor, collection: int) -> None:
        """Delete all records of a collection. If there are no others, whole tables are emptied, which is faster."""
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

    def require_in_place(self) -> None:
        """Raise StoreUnreachableError if the path names another file, or one that must not have changed and did."""
        self._connections.require_in_place()
        if self._unchanged is not None and _state(self.path) != self._unchanged:
            raise StoreUnreachableError(
                f"{self.path} was written to after it was opened in a read-only folder; open the store again"
            )

    def data_version(self) -> int:
        """Return a number that changes whenever anybody has committed anything. Takes microseconds."""
        if self._held is not None:
            return 0
        with self._watching:
            if self._closed:
                raise StoreClosedError("the store is closed")
            self.require_in_place()
            try:  # no context manager: every search comes here several times
                if self._watch is None:
                    self._watch = self._connections.connect()
                (version,) = self._watch.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error as error:
                raise self._unreachable("read", error) from None
        return int(version) + (generation() << 40)  # a forked child has another connection, which counts anew

    def fold(self) -> None:
        """Fold the write-ahead log into the file, as far as no reader needs it. Never waits."""
        if self.read_only:
            return
        with self.read() as cursor:
            cursor.execute("PRAGMA busy_timeout = 0")
            try:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {round(self._timeout * 1000)}")

    def size(self) -> int:
        """Return the bytes of the file and its write-ahead log."""
        return _size(self.path) + _size(self.path.with_name(FILE_NAME + WAL))

    def close(self) -> None:
        """Close the connections. SQLite folds the write-ahead log into the file with the last one. Idempotent."""
        with self._watching:
            if self._closed:
                return
            self._closed = True
            if self._watch is not None:
                self._watch.close()
        self._connections.close()

    @contextmanager
    def _cursor(self) -> Iterator[sqlite3.Cursor]:
        if self._closed:
            raise StoreClosedError("the store is closed")
        if self._held is not None:
            yield self._held.cursor()
            return
        with self._connections.cursor() as cursor:
            if self._was_cut():
                cursor.execute("PRAGMA mmap_size = 0")
            try:
                yield cursor
            finally:
                self._was_cut()  # a checkpoint makes the file longer, and the map with it

    def _was_cut(self) -> bool:
        """Return True if the file has ever become shorter. Reading a map beyond its end would kill the process."""
        with suppress(OSError):
            size = os.stat(self.path).st_size
            if size < self._size:  # or another thread looked later, and saw that the file had grown
                self._cut |= os.stat(self.path).st_size < self._size
            self._size = size
        return self._cut

    def _prepare(self) -> None:
        """Create the tables, or check that they are ours and not of a later version."""
        deadline = time.monotonic() + self._timeout
        while not self.read_only:
            try:
                with self._cursor() as cursor:
                    cursor.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                # two processes open a new file: the change to WAL does not wait as other statements do
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        with self._cursor() as cursor:
            tables = cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        names = {name for (name,) in tables if not name.startswith("sqlite_")}
        if not names - {VERSION_TABLE, NAME_KEY} and not self.read_only:  # new, or downgraded to nothing
            from .creating import create_tables  # loads SQLAlchemy, which takes longer than all the rest of an opening

            create_tables(self._connections.connect)
        elif "meta" not in names:
            raise StoreUnreachableError(f"{self.path} is a database of another program")
        with self._cursor() as cursor:
            said = dict(cursor.execute("SELECT name, value FROM meta").fetchall())
        judge(str(self.path), said)

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the last: damaged text
            if _is_busy(error) and doing == "write to":
                raise self._locked() from None
            raise self._unreachable(doing, error) from None

    def _unreachable(self, doing: str, cause: object) -> StoreUnreachableError:
        what = str(cause) if isinstance(cause, sqlite3.Error) else type(cause).__name__
        return StoreUnreachableError(f"cannot {doing} {self.path}: {what}")

    def _locked(self) -> StoreLockedError:
        return StoreLockedError(f"another process is writing to {self.path}; nothing was written, try again")


def _make(folder: Path, path: Path) -> str:
    """Make what is missing, readable by its owner only. Returns why an existing file cannot be written, or ""."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        create(path)
    except OSError as error:
        if error.errno in _DENIED and os.access(path, os.R_OK):
            return os.strerror(error.errno)
        raise
    if os.access(path, os.W_OK) and os.access(folder, os.W_OK):
        return ""
    return os.strerror(errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES)


def _size(path: Path) -> int:
    """Return the bytes of a file; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def _state(path: Path) -> tuple[int, int, int]:
    """Return what changes when somebody writes."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, _size(path.with_name(FILE_NAME + WAL))


def _is_busy(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def first_free(cursor: sqlite3.Cursor) -> int:
    """Return the first row number that was never given out."""
    found = cursor.execute("SELECT value FROM meta WHERE name = 'next_row'").fetchone()
    return integer(None if found is None else found[0], "the next row number", least=1)
