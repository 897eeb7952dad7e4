"""Connections: a pool of our own, or the caller's pool or SQLAlchemy engine.

Reads are single statements, or one transaction where they need settings; they are repeated once on a connection
that turns out to be dead. A write is one transaction and is never repeated after it began; where its COMMIT was not
answered, the server is asked what became of it. Settings are always local to a transaction, so that a pooler in
transaction mode may stand between.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import PoolClosed, PoolTimeout

from ...errors import OutcomeUnknownError, StoreClosedError, StoreError, StoreUnreachableError
from ...runtime.concurrency import sleep
from .driver import Cursor, Driver, DriverConnection, Pool
from .faults import explained, is_lost
from .options import PostgresOptions

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["Cursor", "Source"]

T = TypeVar("T")
_DEFAULTS = {
    "connect_timeout": "10",
    # a peer that vanished without a word is noticed within a minute, not after two hours
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
    "application_name": "encvec_store",
}
_PATIENCE = 1.0
_SETTLING = 5.0
"""Seconds to wait for a transaction to end whose connection was lost at its COMMIT."""
_NUMBER = "CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_xact_id()::text END"
"""Of the transaction, for `pg_xact_status`; a standby gives none and cannot write."""


class Source:
    """Hands out cursors, one connection each. Usable from several threads; not across a fork."""

    def __init__(
        self,
        target: str,
        place: str,
        options: PostgresOptions,
        driver: Driver,
        pool: Pool | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.place = place
        self.options = options
        self._driver = driver
        self._parameters = {**_DEFAULTS, **conninfo_to_dict(target)}
        self._pool = pool
        self._engine = engine
        self._own: Pool | None = None
        self._local: Mapping[str, str] = {}
        self._shut = threading.Event()
        if pool is None and engine is None:
            self._connect().close()  # the pool would retry in silence: fail here, and say why
            self._own = self._pool = driver.pool(
                kwargs=self._arguments(),
                min_size=0,
                max_size=options.pool_size,
                timeout=options.pool_timeout,
                # no attempts ever further apart: the first call after the server is back must not wait for the next
                reconnect_timeout=0,
                num_workers=2,
                name="encvec_store",
            )

    def read(self, work: Callable[[Cursor], T], settings: Mapping[str, str] | None = None) -> T:
        """Run `work` on a cursor, in a transaction with `settings` where there are any; once more if need be.

        Raises:
            StoreUnreachableError: no connection, or the statement failed.
            psycopg.Error: a table went meanwhile; see `faults.is_outdated`.
        """
        limit = self.options.statement_timeout
        local = {**self._local, **(settings or {})}
        if limit:
            local["statement_timeout"] = f"{round(limit * 1000)}ms"
        attempt = 0
        while True:
            try:
                if self._own is not None and not local and not self._closed:
                    return self._quickly(self._own, work)
                with self._cursor() as cursor:
                    if not local:
                        return work(cursor)
                    with cursor.connection.transaction():
                        self.set_local(cursor, local)
                        return work(cursor)
            except psycopg.Error as error:
                attempt += 1
                if not self._again(error, attempt):
                    raise

    def _quickly(self, pool: Pool, work: Callable[[Cursor], T]) -> T:
        """Run `work` on a connection of our own pool, as `_cursor` would: a search waits for nothing else of ours."""
        connection = self._get(pool)
        try:
            return work(self._driver.cursor(connection))
        finally:
            pool.putconn(connection)

    @contextmanager
    def write(self) -> Iterator[Cursor]:
        """A cursor in a transaction that is committed at the end, or rolled back if anything is raised.

        Raises:
            StoreLockedError: another writer held the lock for longer than the lock timeout.
            StoreUnreachableError: no connection, or the transaction failed; nothing was written.
            OutcomeUnknownError: the connection was lost while it was committed, and it cannot be told whether it was.
        """
        number = ""
        try:
            with ExitStack() as stack:
                cursor, begun = self._begin(stack)
                yield cursor
                number = begun
        except psycopg.Error as error:
            if not (number and self._was_committed(number)):
                raise explained(error, "write to", self.place) from None

    def _begin(self, stack: ExitStack) -> tuple[Cursor, str]:
        """Return a cursor in a transaction and the transaction's number."""
        local = {
            **self._local,
            "lock_timeout": f"{round(self.options.lock_timeout * 1000)}ms",
            "idle_in_transaction_session_timeout": "0",  # batches may take their time to be made
        }
        attempt = 0
        while True:
            try:
                with ExitStack() as trial:
                    cursor = trial.enter_context(self._cursor())
                    trial.enter_context(cursor.connection.transaction())
                    number = self.set_local(cursor, local, _NUMBER)
                    stack.push(trial.pop_all())
                    return cursor, number
            except psycopg.Error as error:
                attempt += 1
                if not self._again(error, attempt):
                    raise

    def _was_committed(self, number: str) -> bool:
        """Ask what became of a transaction whose COMMIT was not answered.

        Raises:
            OutcomeUnknownError: the server cannot be asked, or does not know yet.
        """
        deadline = time.monotonic() + _SETTLING
        with suppress(psycopg.Error, StoreError):
            while True:
                status = self.read(
                    lambda cursor: cursor.execute(b"SELECT pg_xact_status(%s::text::xid8)", (number,)).fetchone()
                )
                if status in (("committed",), ("aborted",)):
                    return status == ("committed",)
                if status != ("in progress",) or time.monotonic() > deadline:
                    break
                sleep(0.05)
        raise OutcomeUnknownError(
            f"the connection to {self.place} was lost while a write was committed:"
            " it may or may not have been written; do the same again to be sure"
        )

    @contextmanager
    def session(self) -> Iterator[Cursor]:
        """A cursor outside of any transaction, for what must not be in one."""
        try:
            with self._cursor() as cursor:
                yield cursor
        except psycopg.Error as error:
            raise explained(error, "build an index in", self.place) from None

    def with_settings(self, settings: Mapping[str, str]) -> Source:
        """Return the same connections, with settings for each transaction; a read is always one then."""
        other = copy.copy(self)
        other._local = {**self._local, **settings}
        return other

    @property
    def _closed(self) -> bool:
        return self._shut.is_set()

    @staticmethod
    def set_local(cursor: Cursor, settings: Mapping[str, str], also: LiteralString = "NULL") -> Any:
        """Set configuration until the end of the transaction; returns the value of an expression."""
        calls = "set_config(%s, %s, true), " * len(settings)
        values = [part for item in settings.items() for part in item]
        return (cursor.execute(f"SELECT {calls}{also}".encode(), values).fetchone() or (None,))[-1]

    def close(self) -> None:
        """Close our own pool; a caller's stays open. Idempotent."""
        self._shut.set()
        if self._own is not None:
            self._own.close()

    def _again(self, error: psycopg.Error, attempt: int) -> bool:
        """Say whether another connection may do better, after seeing to the pool."""
        # SQLAlchemy's pool cannot be asked to look through its connections: try a few
        if self._closed or not is_lost(error) or attempt > (5 if self._engine is not None else 1):
            return False
        if self._pool is not None:
            with suppress(psycopg.Error):
                self._pool.check()
        return True

    @contextmanager
    def _cursor(self) -> Iterator[Cursor]:
        if self._closed:
            raise StoreClosedError("the store is closed")
        with self._connection() as connection:
            before = connection.autocommit
            if not before:
                connection.set_autocommit(True)
            prepared = connection.prepare_threshold
            if self.options.pooler:  # a caller's connection; the next statement may meet another session
                connection.prepare_threshold = None
            try:
                yield self._driver.cursor(connection)
            finally:
                connection.prepare_threshold = prepared
                if not before and not connection.closed:
                    connection.set_autocommit(False)

    def _connection(self) -> AbstractContextManager[DriverConnection]:
        return self._from_pool(self._pool) if self._pool is not None else self._from_engine()

    @contextmanager
    def _from_pool(self, pool: Pool) -> Iterator[DriverConnection]:
        connection = self._get(pool)
        try:
            yield connection
        finally:
            pool.putconn(connection)

    def _get(self, pool: Pool) -> DriverConnection:
        deadline = time.monotonic() + self.options.pool_timeout
        while True:
            left = deadline - time.monotonic()
            try:
                connection: DriverConnection = pool.getconn(timeout=min(_PATIENCE, max(left, 0.001)))
                return connection
            except PoolClosed:
                if self._closed:
                    raise StoreClosedError("the store is closed") from None
                raise StoreUnreachableError(f"cannot reach {self.place}: the pool given is closed") from None
            except PoolTimeout:
                if pool is self._own and pool.get_stats().get("pool_size", 0) < pool.max_size:
                    self._connect().close()  # is it the server? Then say so now
                if left <= _PATIENCE:
                    raise StoreUnreachableError(
                        f"cannot reach {self.place}: none of the pool's {pool.max_size} connections was free"
                        f" within {self.options.pool_timeout:g} s; {self._advice}"
                    ) from None

    @contextmanager
    def _from_engine(self) -> Iterator[DriverConnection]:
        from sqlalchemy import exc

        assert self._engine is not None  # noqa: S101
        try:
            fairy = self._engine.raw_connection()
        except exc.TimeoutError:
            raise StoreUnreachableError(
                f"cannot reach {self.place}: all connections of the engine are in use;"
                " make its pool larger (pool_size of create_engine)"
            ) from None
        except exc.DBAPIError as error:
            cause = error.orig if isinstance(error.orig, psycopg.Error) else psycopg.OperationalError("")
            raise explained(cause, "reach", self.place) from None
        connection = self._driver.wrap(fairy.driver_connection)
        if connection is None:
            fairy.close()
            raise StoreUnreachableError("the engine must use psycopg 3: create_engine('postgresql+psycopg://...')")
        try:
            yield connection
        except psycopg.Error as error:
            if is_lost(error):
                fairy.invalidate()
            raise
        finally:
            fairy.close()

    @property
    def _advice(self) -> str:
        if self._own is None:
            return "make the pool given larger (max_size), or wait longer (option pool_timeout)"
        return "allow more (option pool_size), or wait longer (pool_timeout)"

    def _arguments(self) -> dict[str, Any]:
        # behind a pooler, the next statement may meet a session that never saw it prepared
        return {**self._parameters, "autocommit": True, "prepare_threshold": None if self.options.pooler else 5}

    def _connect(self) -> DriverConnection:
        try:
            return self._driver.connect(self._arguments())
        except psycopg.Error as error:
            raise explained(error, "reach", self.place) from None
