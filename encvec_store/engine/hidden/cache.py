"""The local file of sealed buckets. It is a SQLite database, so that kill -9 leaves it whole.

Everything in it but the numbers of buckets is sealed. A bucket is first noted as asked for, then read, then filled. So
a bucket is read a second time only if its reader was stopped in between, and then at the next opening. Each time the
file is begun anew it gets a random number, its *life*: who knows an older one must open the file again.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...crypto.read_cache import read_cache_key_version
from ...data.arrays import Rows
from ...errors import AuthenticationError, KeyUnavailableError, StaleConfigError, StoreUnreachableError
from ...runtime.concurrency import in_thread, sleep
from ...sealing.keyring import Keyring

__all__ = ["BucketFile", "Follows"]

_PAUSE = 0.005
_ASK = "INSERT OR IGNORE INTO buckets VALUES (?, NULL)"
_HELD = "SELECT number, sealed FROM buckets WHERE number = ? AND sealed NOTNULL"
_Statement = str | tuple[str, list[tuple[Any, ...]]]
_TABLES = """
CREATE TABLE IF NOT EXISTS epochs (number INTEGER PRIMARY KEY, buckets INTEGER NOT NULL, sealed BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS buckets (number INTEGER PRIMARY KEY, sealed BLOB);
CREATE TABLE IF NOT EXISTS life (number INTEGER PRIMARY KEY, sealed BLOB NOT NULL);
"""


class Follows(NamedTuple):
    """Which records a file follows: those of a state of the index."""

    content: int
    generation: int
    stamp: int


class BucketFile:
    """The file of one collection. Several processes may use it: whoever writes holds `locked`. No connection stays
    open, so that a forked child has none of its parent's.

    Args:
        folder: where it lies; made if it is missing.
        name: of the collection, for the file.
        keyring: seals what is in it.

    Every method may raise StoreUnreachableError: the file cannot be read or written. In an event loop the calls of
    SQLite run in worker threads.
    """

    def __init__(self, folder: Path, name: str, keyring: Keyring) -> None:
        from ...indexes.faiss.locks import FileLock  # FAISS takes long to load, and few searches need this

        self._keyring, self.life = keyring, -1
        try:
            in_thread(folder.mkdir, parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreUnreachableError(f"the cache folder {folder} cannot be made: {error}") from None
        self._path, self._lock = folder / f"{name}.cache", FileLock(folder / f"{name}.lock")
        self._known = -1
        """The last epoch that this process knows."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out."""
        try:
            while not self._lock.acquire():
                sleep(_PAUSE)
        except OSError as error:
            raise self._failed(error) from None
        try:
            yield
        finally:
            self._lock.release()

    def open(self) -> Follows | None:
        """Return which records the file follows; None if it follows nothing readable."""
        self._known = -1
        for life, sealed in self._asked("SELECT number, sealed FROM life"):
            try:
                self.life = life
                return Follows(*np.frombuffer(self.opened("life", 0, sealed), "<i8").tolist())
            except (AuthenticationError, KeyUnavailableError):
                return None
        return None

    def begin(self, follows: Follows) -> None:
        """Drop everything, and begin a new life."""
        self.life, self._known = secrets.randbits(62), -1
        dropped = "DELETE FROM epochs", "DELETE FROM buckets", "DELETE FROM life"
        self._do(*dropped, ("INSERT INTO life VALUES (?, ?)", [self._life(follows)]))

    def note(self, follows: Follows) -> None:
        """Note which records the file follows."""
        self._do(("INSERT OR REPLACE INTO life VALUES (?, ?)", [self._life(follows)]))

    def _life(self, follows: Follows) -> tuple[int, bytes]:
        return self.life, self._sealed("life", 0, np.array(follows, "<i8").tobytes())

    def lives(self) -> bool:
        """Say whether the file has the life that this process knows."""
        return [life for (life,) in self._asked("SELECT number FROM life")] == [self.life]

    def add(self, rows: Rows, count: int, *, ask: bool) -> tuple[int, int, Rows]:
        """Put rows, in this order, into `count` new buckets: (the number of the first, count, rows).

        With `ask` these are noted as asked for at once, so that they are read even if this process ends now.
        """
        found = self._asked("SELECT max(number + buckets) FROM epochs")[0][0]
        first = 0 if found is None else int(found)
        sealed = self._sealed("epoch", first, rows.astype("<i8").tobytes())
        noted = [(number,) for number in range(first, first + count)] if ask else []
        self._do(("INSERT INTO epochs VALUES (?, ?, ?)", [(first, count, sealed)]), (_ASK, noted))
        self._known = first
        return first, count, rows

    def epochs(self) -> list[tuple[int, int, Rows]]:
        """Return the epochs that this process does not know yet, as `add` does."""
        asked = self._asked("SELECT number, buckets, sealed FROM epochs WHERE number > ? ORDER BY 1", self._known)
        found = [(n, count, np.frombuffer(self.opened("epoch", n, sealed), "<i8")) for n, count, sealed in asked]
        self._known = max([self._known, *(n for n, _, _ in found)])
        return found

    def ask(self, numbers: list[int]) -> None:
        """Note that buckets will be read now."""
        self._do((_ASK, [(number,) for number in numbers]))

    def keep(self, number: int, content: bytes) -> None:
        """Fill a bucket."""
        in_thread(self._keeping, number, content)

    def _keeping(self, number: int, content: bytes) -> None:
        sealed = self._sealed("bucket", number, content)
        self._doing((("INSERT OR REPLACE INTO buckets VALUES (?, ?)", [(number, sealed)]),))

    def asked(self) -> list[int]:
        """Return the buckets that were asked for, and did not come."""
        return [number for (number,) in self._asked("SELECT number FROM buckets WHERE sealed IS NULL ORDER BY 1")]

    def filled(self) -> list[int]:
        """Return the buckets that are here."""
        return [number for (number,) in self._asked("SELECT number FROM buckets WHERE sealed NOTNULL ORDER BY 1")]

    def contents(self, numbers: list[int]) -> dict[int, bytes]:
        """Return those of the buckets that are here, sealed.

        Raises StaleConfigError if another process has begun the file anew.
        """
        return in_thread(self._contents, numbers)

    def _contents(self, numbers: list[int]) -> dict[int, bytes]:
        with self._connected() as connection:
            connection.execute("BEGIN")
            if connection.execute("SELECT number FROM life").fetchall() != [(self.life,)]:
                raise StaleConfigError("another process has begun the local cache anew")
            found: dict[int, bytes] = {}
            for number in numbers:
                found.update(connection.execute(_HELD, [number]).fetchall())
            return found

    def opened(self, what: str, number: int, sealed: bytes) -> bytes:
        """Open a part. Raises AuthenticationError, KeyUnavailableError."""
        return self._keyring.read_cache(read_cache_key_version(sealed)).open(what, self.life, number, sealed)

    def _sealed(self, what: str, number: int, content: bytes) -> bytes:
        return self._keyring.read_cache(self._keyring.primary).seal(what, self.life, number, content)

    def _asked(self, sql: str, *given: Any) -> list[Any]:
        def ask() -> list[Any]:
            with self._connected() as connection:
                return connection.execute(sql, given).fetchall()

        return in_thread(ask)

    def _do(self, *statements: _Statement) -> None:
        in_thread(self._doing, statements)

    def _doing(self, statements: tuple[_Statement, ...]) -> None:
        with self._connected() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                if isinstance(statement, str):
                    connection.execute(statement)
                else:
                    connection.executemany(*statement)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Give a connection for a moment."""
        try:
            connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            try:
                connection.executescript(_TABLES)
                yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> StoreUnreachableError:
        return StoreUnreachableError(
            f"the cache {self._path} cannot be read or written ({error}): the folder must be writable, and the disk"
            " must have room. If the file is damaged, delete it: then buckets are read a second time"
        )
