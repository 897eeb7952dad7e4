"""Runs reads and writes in transactions, and statements that must be outside of one.

A read is one statement, or one transaction if it needs settings. It is repeated if its connection was lost. A write is
one transaction and is never repeated after it began. If its COMMIT was not answered, the server is asked what became of
it. Settings are always local to a transaction, so that a pooler in transaction mode may stand before the server.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, LiteralString, TypeVar

import psycopg

from ...errors import OutcomeUnknownError, StoreError, StoreReadOnlyError
from ...runtime.concurrency import caller, sleep
from .connections import Connections
from .driver import Cursor
from .faults import READS, explained, is_conflict, is_lost
from .options import PostgresOptions

__all__ = ["Cursor", "Source"]

T = TypeVar("T")
log = logging.getLogger("encvec_store")
_SETTLING = 5.0
"""Seconds to wait for a transaction to end whose connection was lost at its COMMIT."""
_PAUSE = 0.05
"""Seconds to wait before a read is repeated that failed because of other writes; longer each time."""
_NUMBER = "CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_xact_id()::text END"
"""The number of the transaction, for `pg_xact_status`; a standby gives none and cannot write."""
_lent: ContextVar[tuple[object, Source, Cursor] | None] = ContextVar("encvec_store_lent", default=None)
"""A cursor in an open transaction through which a caller reads, and who that is."""


class Source:
    """Hands out cursors, one connection each. Usable from several threads."""

    def __init__(self, connections: Connections) -> None:
        self.place = connections.place
        self._connections = connections
        self._local: Mapping[str, str] = {}
        self._held: Cursor | None = None
        """A cursor in a transaction, through which everything is read."""

    @property
    def options(self) -> PostgresOptions:
        """How to use the database."""
        return self._connections.options

    def look_for_pooler(self) -> None:
        """Find out if a connection pooler answers in the server's place. Run it before anything else.

        A pooler in transaction mode may run a prepared statement in another session of the server. There, another
        statement may have its name, and run in its place without an error.
        """
        met = self.options.pooler or self.read(_met_pooler)
        self._connections.prepares = not met
        if self.options.pooler is not None:
            return
        self._connections.options = replace(self.options, pooler=met)
        if met:
            log.info(
                "a connection pooler stands before %s: no statement is prepared, and index builds block writers;"
                " if the pooler is in session mode, add pooler=0 to the URL",
                self.place,
            )

    def read(self, work: Callable[[Cursor], T], settings: Mapping[str, str] | None = None) -> T:
        """Run `work` on a cursor, in a transaction if there are `settings`; repeat it if the connection was lost.

        In `reading_through`, a read without settings runs once, on the cursor given there.

        Raises:
            StoreUnreachableError: no connection, or the statement failed.
            psycopg.Error: for instance, a table was dropped meanwhile; see `faults.is_outdated`.
        """
        lent = self._lent()
        if lent is not None and not settings:
            return work(lent)
        limit = self.options.statement_timeout
        local = {**self._local, **(settings or {})}
        if limit:
            local["statement_timeout"] = f"{round(limit * 1000)}ms"
        attempt = 0
        while True:
            try:
                if self._connections.owned and not local:
                    return self._quickly(work)
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

    def _quickly(self, work: Callable[[Cursor], T]) -> T:
        """Run `work` on a connection of our own pool, with less overhead than `_cursor`."""
        connection = self._connections.take()
        if not self._connections.prepares:
            connection.prepare_threshold = None
        try:
            return work(self._connections.driver.cursor(connection))
        finally:
            self._connections.give_back(connection)

    @contextmanager
    def write(self) -> Iterator[Cursor]:
        """Yield a cursor in a transaction, which is committed at the end, or rolled back on an error.

        Raises:
            StoreLockedError: another writer held the lock for longer than the lock timeout.
            StoreUnreachableError: no connection, or the transaction failed; nothing was written.
            OutcomeUnknownError: the connection was lost while it was committed, and it cannot be told whether it was.
        """
        number = ""
        if self._held is not None:
            raise StoreReadOnlyError("records as of a moment in the past cannot be written")
        try:
            with ExitStack() as stack:
                cursor, begun = self._begin(stack)
                yield cursor
                number = begun
        except psycopg.Error as error:
            if not (number and self._was_committed(number)):
                raise explained(error, "write to", self.place) from None

    @contextmanager
    def reading_through(self, cursor: Cursor) -> Iterator[None]:
        """Let the caller's reads take no other connection than that of its open transaction.

        Otherwise a long write waits for a connection of the pool while writers that wait for it hold them all.
        The transaction must have changed nothing yet of what is read.
        """
        before = _lent.get()
        _lent.set((caller(), self, cursor))
        try:
            yield
        finally:
            _lent.set(before)

    @contextmanager
    def frozen(self) -> Iterator[Source]:
        """Give a source whose reads all see the database as it is now, in one transaction. Use it in one thread.

        Raises:
            StoreUnreachableError: no connection.
        """
        limit = self.options.statement_timeout
        local = {**self._local, "idle_in_transaction_session_timeout": "0"}
        if limit:
            local["statement_timeout"] = f"{round(limit * 1000)}ms"
        with ExitStack() as stack:
            other = copy.copy(self)
            other._held = self._as_now(stack, local)  # noqa: SLF001
            yield other

    def _as_now(self, stack: ExitStack, local: Mapping[str, str]) -> Cursor:
        """Return a cursor in a transaction that sees the database as it is now."""
        attempt = 0
        while True:
            try:
                with ExitStack() as trial:
                    cursor = trial.enter_context(self._cursor())
                    trial.enter_context(cursor.connection.transaction())
                    cursor.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    self.set_local(cursor, local)
                    stack.push(trial.pop_all())
                    return cursor
            except psycopg.Error as error:
                attempt += 1
                if not self._again(error, attempt):
                    raise

    @property
    def once(self) -> bool:
        """True in `reading_through` and in `frozen`, where nothing can be read after an error."""
        return self._lent() is not None

    def _lent(self) -> Cursor | None:
        if self._held is not None:
            return self._held
        lent = _lent.get()
        return lent[2] if lent is not None and lent[0] is caller() and lent[1] is self else None

    def _begin(self, stack: ExitStack) -> tuple[Cursor, str]:
        """Return a cursor in a transaction and the transaction's number."""
        local = {
            **self._local,
            "lock_timeout": f"{round(self.options.lock_timeout * 1000)}ms",
            "idle_in_transaction_session_timeout": "0",  # it may take long to make the batches
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
        """Yield a cursor outside of any transaction, for statements that must not be in one."""
        try:
            with self._cursor() as cursor:
                yield cursor
        except psycopg.Error as error:
            raise explained(error, "build an index in", self.place) from None

    def with_settings(self, settings: Mapping[str, str]) -> Source:
        """Return a source with the same connections that sets these settings in each transaction."""
        other = copy.copy(self)
        other._local = {**self._local, **settings}  # noqa: SLF001
        return other

    @staticmethod
    def set_local(cursor: Cursor, settings: Mapping[str, str], also: LiteralString = "NULL") -> Any:
        """Set settings until the end of the transaction; return the value of an expression."""
        calls = "set_config(%s, %s, true), " * len(settings)
        values = [part for item in settings.items() for part in item]
        return (cursor.execute(f"SELECT {calls}{also}".encode(), values).fetchone() or (None,))[-1]

    def close(self) -> None:
        """Close our own pool; a caller's stays open. Idempotent."""
        self._connections.close()

    def _again(self, error: psycopg.Error, attempt: int) -> bool:
        """Say whether to try again: another connection or a later moment may do better."""
        if self._connections.closed:
            return False
        if is_conflict(error) and attempt < READS:
            sleep(_PAUSE * attempt)
            return True
        if not is_lost(error) or attempt > self._connections.attempts:
            return False
        self._connections.look_through()
        return True

    @contextmanager
    def _cursor(self) -> Iterator[Cursor]:
        with self._connections.lend() as connection:
            before = connection.autocommit
            if not before:
                connection.set_autocommit(True)
            prepared = connection.prepare_threshold
            if not self._connections.prepares:
                connection.prepare_threshold = None
            try:
                yield self._connections.driver.cursor(connection)
            finally:
                connection.prepare_threshold = prepared
                if not before and not connection.closed:
                    connection.set_autocommit(False)


def _met_pooler(cursor: Cursor) -> bool:
    """Return True if a pooler answers: it tells each client a made-up number in place of the server's process."""
    return cursor.execute(b"SELECT pg_backend_pid()").fetchone() != (cursor.connection.info.backend_pid,)
