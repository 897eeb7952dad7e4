"""psycopg's asyncio side behind the protocols of `driver`: every call waits in the event loop.

Only for walks that `concurrency.spawn` runs. If such a walk's task is cancelled, so is its statement on the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
from psycopg.errors import Diagnostic
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool

from ...runtime.concurrency import entered, wait_for
from . import driver
from .driver import Parameters, Query, Row, set_up

__all__ = ["InLoop", "LoopPool"]


class _Copy:
    def __init__(self, copy: psycopg.AsyncCopy) -> None:
        self._copy = copy

    def write(self, buffer: bytes) -> None:
        wait_for(self._copy.write(buffer))


class _Cursor:
    def __init__(self, connection: _Connection) -> None:
        self.connection: driver.DriverConnection = connection
        self._cursor: psycopg.AsyncCursor[Row] = psycopg.AsyncCursor(connection.of, row_factory=tuple_row)
        set_up(self._cursor)

    def execute(self, query: Query, params: Parameters | None = None) -> _Cursor:
        wait_for(self._cursor.execute(query, params))
        return self

    def fetchone(self) -> Row | None:
        return wait_for(self._cursor.fetchone())

    def fetchall(self) -> list[Row]:
        return wait_for(self._cursor.fetchall())

    @contextmanager
    def copy(self, statement: Query) -> Iterator[_Copy]:
        with entered(self._cursor.copy(statement)) as copy:
            yield _Copy(copy)


class _Connection:
    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.of = connection

    @property
    def prepare_threshold(self) -> int | None:
        return self.of.prepare_threshold

    @prepare_threshold.setter
    def prepare_threshold(self, value: int | None) -> None:
        self.of.prepare_threshold = value

    @property
    def info(self) -> psycopg.ConnectionInfo:
        return self.of.info

    @property
    def closed(self) -> bool:
        return self.of.closed

    @property
    def autocommit(self) -> bool:
        return self.of.autocommit

    def set_autocommit(self, value: bool) -> None:
        wait_for(self.of.set_autocommit(value))

    def transaction(self) -> AbstractContextManager[Any]:
        return entered(self.of.transaction())

    def add_notice_handler(self, callback: Callable[[Diagnostic], None]) -> None:
        self.of.add_notice_handler(callback)

    def remove_notice_handler(self, callback: Callable[[Diagnostic], None]) -> None:
        self.of.remove_notice_handler(callback)

    def close(self) -> None:
        wait_for(self.of.close())


class LoopPool:
    """An `AsyncConnectionPool` as `driver.Pool`."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._pool = pool
        self._returning: set[asyncio.Task[None]] = set()

    @property
    def max_size(self) -> int:
        return self._pool.max_size

    def getconn(self, timeout: float | None = None) -> _Connection:
        return _Connection(wait_for(self._pool.getconn(timeout)))

    def putconn(self, conn: _Connection) -> None:
        # in a task of its own: if ours is cancelled now, the pool must still get the connection back
        task = asyncio.get_running_loop().create_task(self._pool.putconn(conn.of))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)
        wait_for(asyncio.shield(task))

    def check(self) -> None:
        wait_for(self._pool.check())

    def get_stats(self) -> dict[str, int]:
        return self._pool.get_stats()

    def close(self) -> None:
        wait_for(self._pool.close())


class InLoop:
    """psycopg's asyncio side: calls wait in the event loop."""

    def connect(self, arguments: dict[str, Any]) -> driver.DriverConnection:
        return _Connection(wait_for(psycopg.AsyncConnection.connect("", **arguments)))

    def pool(self, first: Any = None, **options: Any) -> driver.Pool:
        there = [] if first is None else [first.of]

        async def connect(*given: Any, **arguments: Any) -> Any:
            return there.pop() if there else await psycopg.AsyncConnection.connect(*given, **arguments)

        kind = type("Connection", (psycopg.AsyncConnection,), {"connect": staticmethod(connect)})
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool("", open=False, connection_class=kind, **options)
        wait_for(pool.open())
        return LoopPool(pool)

    def wrap(self, connection: Any) -> driver.DriverConnection | None:
        return _Connection(connection) if isinstance(connection, psycopg.AsyncConnection) else None

    def cursor(self, connection: Any) -> driver.Cursor:
        return _Cursor(connection)
