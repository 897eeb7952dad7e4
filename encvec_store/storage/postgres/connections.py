"""Connections to borrow: from a pool of our own, or from the caller's pool or SQLAlchemy engine.

A forked child has copies of its parent's sockets. It neither uses nor closes them: it opens a pool of its own at first
use. A pool or engine of the caller's cannot be made anew here, so that a child is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from ...errors import StoreClosedError, StoreUnreachableError
from ...runtime.concurrency import Lock
from ...runtime.forks import generation, never_freed
from .driver import Driver, DriverConnection, Pool
from .faults import explained, is_lost
from .options import PostgresOptions
from .transport import parameters_for, refused_method

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["Connections"]

_DEFAULTS = {
    "connect_timeout": "10",
    # a peer that is gone is noticed within a minute, not after two hours
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
    "application_name": "encvec_store",
}
_PATIENCE = 1.0
"""Seconds to wait for a connection before looking whether the server can be reached at all."""


class Connections:
    """Lends connections to one database. Usable from several threads, and in forked children."""

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
        self.driver = driver
        self.closed = False
        self.prepares = True
        """True if statements may be prepared: not behind a pooler."""
        self._parameters: dict[str, Any] = {**_DEFAULTS, **parameters_for(target, place), "autocommit": True}
        self._engine = engine
        self._given = pool
        self._own: Pool | None = None
        self._opening = Lock()
        self._born = generation()
        if pool is None and engine is None:
            self._own = self._new_pool(self._connect())  # the pool would retry silently: fail here, and say why

    @property
    def owned(self) -> bool:
        """True if the connections come from a pool of our own, set up as every statement needs them."""
        return self._own is not None

    @contextmanager
    def lend(self) -> Iterator[DriverConnection]:
        """Yield a connection and take it back. Raises what `take` does."""
        if self._engine is None:
            connection = self.take()
            try:
                yield connection
            finally:
                self.give_back(connection)
        else:
            self._check_usable()
            with self._from_engine(self._engine) as connection:
                yield connection

    def take(self) -> DriverConnection:
        """Return a connection of the pool, to be given back.

        Raises:
            StoreUnreachableError: there is none; says why.
            StoreClosedError: after `close`.
        """
        self._check_usable()
        pool = self._pool
        deadline = time.monotonic() + self.options.pool_timeout
        while True:
            left = deadline - time.monotonic()
            try:
                connection: DriverConnection = pool.getconn(timeout=min(_PATIENCE, max(left, 0.001)))
                return connection
            except PoolClosed:
                if self.closed:
                    raise StoreClosedError("the store is closed") from None
                raise StoreUnreachableError(f"cannot reach {self.place}: the pool given is closed") from None
            except PoolTimeout:
                if pool is self._own and pool.get_stats().get("pool_size", 0) < pool.max_size:
                    self._connect().close()  # if the server is down, say so now
                if left <= _PATIENCE:
                    raise StoreUnreachableError(
                        f"cannot reach {self.place}: none of the pool's {pool.max_size} connections was free"
                        f" within {self.options.pool_timeout:g} s; {self._advice}"
                    ) from None

    def give_back(self, connection: DriverConnection) -> None:
        """Return to the pool what `take` returned."""
        self._pool.putconn(connection)

    @property
    def attempts(self) -> int:
        """How often a read is repeated on another connection after one was lost."""
        # SQLAlchemy's pool cannot check all its connections: try a few
        return 1 if self._engine is None else 5

    def look_through(self) -> None:
        """Discard the pool's dead connections."""
        if self._engine is None:
            with suppress(psycopg.Error):
                self._pool.check()

    def close(self) -> None:
        """Close our own pool. The caller's stays open, and so does that of a parent process. Idempotent."""
        self.closed = True
        if self._own is not None and self._born == generation():
            self._own.close()

    @property
    def _pool(self) -> Pool:
        pool = self._own or self._given
        assert pool is not None  # noqa: S101
        return pool

    def _check_usable(self) -> None:
        """Raise if there can be no connections. In a forked child, open a pool first."""
        if self.closed:
            raise StoreClosedError("the store is closed")
        if self._born == generation():
            return
        if self._own is None:
            given = "pool" if self._engine is None else "engine"
            raise StoreUnreachableError(
                f"cannot reach {self.place}: the {given} given belongs to the parent of this forked process;"
                f" make another {given} here, and open the store with it"
            )
        with self._opening:
            if self._born != generation():
                never_freed(self._own)
                self._own, self._born = self._new_pool(), generation()

    def _new_pool(self, first: DriverConnection | None = None) -> Pool:
        return self.driver.pool(
            first,
            kwargs=self._parameters,
            min_size=0,
            max_size=self.options.pool_size,
            timeout=self.options.pool_timeout,
            # no growing pauses between attempts: the first call after the server is back must not wait
            reconnect_timeout=0,
            num_workers=2,
            name="encvec_store",
        )

    @contextmanager
    def _from_engine(self, engine: Engine) -> Iterator[DriverConnection]:
        from sqlalchemy import exc

        try:
            fairy = engine.raw_connection()
        except exc.TimeoutError:
            raise StoreUnreachableError(
                f"cannot reach {self.place}: all connections of the engine are in use;"
                " make its pool larger (pool_size of create_engine)"
            ) from None
        except exc.DBAPIError as error:
            cause = error.orig if isinstance(error.orig, psycopg.Error) else psycopg.OperationalError("")
            raise explained(cause, "reach", self.place) from None
        connection = self.driver.wrap(fairy.driver_connection)
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

    def _connect(self) -> DriverConnection:
        try:
            return self.driver.connect(self._parameters)
        except psycopg.Error as error:
            told = explained(error, "reach", self.place)
            raise type(told)(f"{told}{refused_method(error)}") from None
