"""The part of psycopg that the store uses, as protocols, and psycopg's blocking side behind them.

`inloop` has the other side: the same calls, which wait in the event loop of an async caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import psycopg
from psycopg.errors import Diagnostic
from psycopg.pq import Format
from psycopg.rows import tuple_row
from psycopg.sql import Composed
from psycopg_pool import ConnectionPool

from .wire import Raw, RawDumper

__all__ = ["Blocking", "Copy", "Cursor", "Driver", "DriverConnection", "Pool", "Row", "set_up"]

Row = tuple[Any, ...]
Query = bytes | Composed
Parameters = Sequence[Any] | Mapping[str, Any]


class Copy(Protocol):
    """A running COPY ... FROM STDIN."""

    def write(self, buffer: bytes) -> None:
        """Send some of the data."""
        ...


class Cursor(Protocol):
    """What a `psycopg.Cursor` can do."""

    @property
    def connection(self) -> DriverConnection:
        """The connection it is on."""
        ...

    def execute(self, query: Query, params: Parameters | None = None) -> Cursor:
        """Run a statement and return this cursor."""
        ...

    def fetchone(self) -> Row | None:
        """Return the next row."""
        ...

    def fetchall(self) -> list[Row]:
        """Return the rows that are left."""
        ...

    def copy(self, statement: Query) -> AbstractContextManager[Copy]:
        """Begin a COPY; an error inside cancels it."""
        ...


class DriverConnection(Protocol):
    """What a `psycopg.Connection` can do."""

    prepare_threshold: int | None
    """Runs after which a statement is prepared; None for never."""

    @property
    def info(self) -> psycopg.ConnectionInfo:
        """Facts about the server and the session, known without asking."""
        ...

    @property
    def closed(self) -> bool:
        """True if the connection can no longer be used."""
        ...

    @property
    def autocommit(self) -> bool:
        """True if each statement outside of `transaction()` is committed on its own."""
        ...

    def set_autocommit(self, value: bool) -> None:
        """Set `autocommit`."""
        ...

    def transaction(self) -> AbstractContextManager[Any]:
        """Begin a transaction; commit it, or roll it back on an error."""
        ...

    def add_notice_handler(self, callback: Callable[[Diagnostic], None]) -> None:
        """Call a function with each notice of the server."""
        ...

    def remove_notice_handler(self, callback: Callable[[Diagnostic], None]) -> None:
        """Call the function no more."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Pool(Protocol):
    """What a `psycopg_pool.ConnectionPool` can do."""

    @property
    def max_size(self) -> int:
        """The most connections."""
        ...

    def getconn(self, timeout: float | None = None) -> Any:
        """Take a connection. Raises PoolTimeout, PoolClosed."""
        ...

    def putconn(self, conn: Any) -> None:
        """Put it back."""
        ...

    def check(self) -> None:
        """Discard the connections that are dead."""
        ...

    def get_stats(self) -> dict[str, int]:
        """Return counts, such as pool_size."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class Driver(Protocol):
    """Makes connections, pools and cursors that all wait in one way."""

    def connect(self, arguments: dict[str, Any]) -> DriverConnection:
        """Connect, as `psycopg.connect`."""
        ...

    def pool(self, first: Any = None, **options: Any) -> Pool:
        """Open a pool, as `psycopg_pool.ConnectionPool`, which begins with a connection of `connect`."""
        ...

    def wrap(self, connection: Any) -> DriverConnection | None:
        """Return a psycopg connection as ours; None if it is of another kind."""
        ...

    def cursor(self, connection: Any) -> Cursor:
        """Return a cursor for binary results and `Raw` parameters."""
        ...


class Blocking:
    """psycopg's blocking side: calls wait in their thread."""

    def connect(self, arguments: dict[str, Any]) -> DriverConnection:
        return psycopg.connect("", **arguments)

    def pool(self, first: Any = None, **options: Any) -> Pool:
        there = [] if first is None else [first]

        def connect(*given: Any, **arguments: Any) -> Any:
            try:
                return there.pop()
            except IndexError:
                return psycopg.Connection.connect(*given, **arguments)

        kind = type("Connection", (psycopg.Connection,), {"connect": staticmethod(connect)})
        return ConnectionPool("", open=True, connection_class=kind, **options)

    def wrap(self, connection: Any) -> DriverConnection | None:
        return connection if isinstance(connection, psycopg.Connection) else None

    def cursor(self, connection: Any) -> Cursor:
        cursor = psycopg.Cursor(connection, row_factory=tuple_row)
        set_up(cursor)
        return cursor


def set_up(cursor: psycopg.Cursor[Row] | psycopg.AsyncCursor[Row]) -> None:
    """Set a cursor up for binary results and `Raw` parameters."""
    cursor.format = Format.BINARY
    cursor.adapters.register_dumper(Raw, RawDumper)
