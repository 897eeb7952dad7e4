"""Connections: a pool of our own, or the caller's pool or SQLAlchemy engine; imports options, faults, wire.

Reads are single statements, or one transaction where they need settings; they are repeated once on a connection
that turns out to be dead. A write is one transaction and is never repeated after it began. Settings are always
local to a transaction, so that a pooler in transaction mode may stand between.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from ...errors import StoreClosedError, StoreUnreachableError
from .faults import explained, is_lost
from .options import Options
from .wire import Raw, RawDumper

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["Cursor", "Source"]

T = TypeVar("T")
Row = tuple[Any, ...]
Cursor = psycopg.Cursor[Row]
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


class Source:
    """Hands out cursors, one connection each. Usable from several threads; not across a fork."""

    def __init__(
        self,
        target: str,
        place: str,
        options: Options,
        pool: ConnectionPool[Any] | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.place = place
        self.options = options
        self._parameters = {**_DEFAULTS, **conninfo_to_dict(target)}
        self._pool = pool
        self._engine = engine
        self._own: ConnectionPool[Any] | None = None
        self._local: Mapping[str, str] = {}
        self._shut = threading.Event()
        if pool is None and engine is None:
            self._connect().close()  # the pool would retry in silence: fail here, and say why
            self._own = self._pool = ConnectionPool(
                "",
                kwargs=self._arguments(),
                min_size=0,
                max_size=options.pool_size,
                timeout=options.pool_timeout,
                num_workers=2,
                open=True,
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

    @contextmanager
    def write(self) -> Iterator[Cursor]:
        """A cursor in a transaction that is committed at the end, or rolled back if anything is raised.

        Raises:
            StoreLockedError: another writer held the lock for longer than the lock timeout.
            StoreUnreachableError: no connection, or the transaction failed.
        """
        try:
            with ExitStack() as stack:
                yield self._begin(stack)
        except psycopg.Error as error:
            raise explained(error, "write to", self.place) from None

    def _begin(self, stack: ExitStack) -> Cursor:
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
                    self.set_local(cursor, local)
                    stack.push(trial.pop_all())
                    return cursor
            except psycopg.Error as error:
                attempt += 1
                if not self._again(error, attempt):
                    raise

    @contextmanager
    def session(self) -> Iterator[Cursor]:
        """A cursor outside of any transaction, for what must not be in one."""
        try:
            with self._cursor() as cursor:
                yield cursor
        except psycopg.Error as error:
            raise explained(error, "write to", self.place) from None

    def with_settings(self, settings: Mapping[str, str]) -> Source:
        """Return the same connections, with settings for each transaction; a read is always one then."""
        other = copy.copy(self)
        other._local = {**self._local, **settings}
        return other

    @property
    def _closed(self) -> bool:
        return self._shut.is_set()

    @staticmethod
    def set_local(cursor: Cursor, settings: Mapping[str, str]) -> None:
        """Set configuration until the end of the transaction."""
        calls = ", ".join(["set_config(%s, %s, true)"] * len(settings))
        cursor.execute(f"SELECT {calls}".encode(), [part for item in settings.items() for part in item])

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
                cursor = psycopg.Cursor(connection, row_factory=tuple_row)
                cursor.format = Format.BINARY
                cursor.adapters.register_dumper(Raw, RawDumper)
                yield cursor
            finally:
                connection.prepare_threshold = prepared
                if not before and not connection.closed:
                    connection.set_autocommit(False)

    def _connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        return self._from_pool(self._pool) if self._pool is not None else self._from_engine()

    @contextmanager
    def _from_pool(self, pool: ConnectionPool[Any]) -> Iterator[psycopg.Connection[Any]]:
        connection = self._get(pool)
        try:
            yield connection
        finally:
            pool.putconn(connection)

    def _get(self, pool: ConnectionPool[Any]) -> psycopg.Connection[Any]:
        deadline = time.monotonic() + self.options.pool_timeout
        while True:
            left = deadline - time.monotonic()
            try:
                connection: psycopg.Connection[Any] = pool.getconn(timeout=min(_PATIENCE, max(left, 0.001)))
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
                        f"cannot reach {self.place}: all {pool.max_size} connections of the pool were in use"
                        f" for {self.options.pool_timeout:g} s"
                    ) from None

    @contextmanager
    def _from_engine(self) -> Iterator[psycopg.Connection[Any]]:
        from sqlalchemy import exc

        assert self._engine is not None  # noqa: S101
        try:
            fairy = self._engine.raw_connection()
        except exc.TimeoutError:
            raise StoreUnreachableError(
                f"cannot reach {self.place}: all connections of the engine are in use"
            ) from None
        except exc.DBAPIError as error:
            cause = error.orig if isinstance(error.orig, psycopg.Error) else psycopg.OperationalError("")
            raise explained(cause, "reach", self.place) from None
        connection = fairy.driver_connection
        if not isinstance(connection, psycopg.Connection):
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

    def _arguments(self) -> dict[str, Any]:
        # behind a pooler, the next statement may meet a session that never saw it prepared
        return {**self._parameters, "autocommit": True, "prepare_threshold": None if self.options.pooler else 5}

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            return psycopg.connect("", **self._arguments())
        except psycopg.Error as error:
            raise explained(error, "reach", self.place) from None
