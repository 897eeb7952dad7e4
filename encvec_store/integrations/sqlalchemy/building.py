"""Builds and stores the index of a sealed column, on connections of its own: a session's transaction stays as it is."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from ...errors import InputError
from ...maintenance.jobs import Job
from ...sealed_index import Builder, Index
from .columns import column_of, sealed_kind
from .context import Bind, connection_of
from .following import HORIZON, Follower, Run, TableRecords
from .sharing import SharedIndex, address_of, head_of, last_read
from .triggers import install
from .types import EncryptedVector
from .waiting import in_any_session

__all__ = ["build_soon", "follow", "maintain"]

_log = logging.getLogger("encvec_store")
_jobs: weakref.WeakKeyDictionary[Index, Job] = weakref.WeakKeyDictionary()
_FORGOTTEN = 1_000
"""Entries that are gone are deleted when they are more than this, and more than a tenth of all."""


def follow(bind: Bind, column: Any) -> None:
    """Make the triggers of a sealed column, and note the rows that are there, so that searches need not read them all.

    `create_all` and Alembic's autogenerate do this. Call it for tables that were made in another way, and after the
    triggers were disabled. The companion tables must exist. Writers wait until the transaction ends.

    Args:
        bind: a session or connection of the table's owner.
        column: `Model.embedding`, or the column of a table.
    """
    install(connection_of(bind, column), sealed_kind(column_of(column)).companions)


@in_any_session
def maintain(bind: Bind, column: Any, *, purge: bool = False) -> list[str]:
    """Put new rows into the index of a sealed column, and store it. Returns what was done, in words.

    Searches do this by themselves, in the background. Call it after a large load, so that other processes open the
    index quickly. Only what is committed is indexed: this uses other connections of the same engine. It also counts
    rows, and says if some were written without triggers.
    With an async session: `await session.run_sync(maintain, Model.embedding)`.

    Args:
        bind: a session or connection.
        column: `Model.embedding`, or the column of a table.
        purge: leave out every deleted row, and forget which there were.

    Raises:
        InputError: the engine connects as another role, or the table is not followed.
    """
    connection = connection_of(bind, column)
    kind = sealed_kind(column_of(column))
    shared = SharedIndex(kind, connection, None)
    shared.read()
    work = _Work(shared, connection, kind)
    return work.run(thorough=True, purge=purge)


def build_soon(shared: SharedIndex, connection: Connection, kind: EncryptedVector) -> None:
    """Build the index in the background, if searches would be faster then."""
    builder = shared.index.builder
    if builder is not None and builder.wanted:
        _jobs.setdefault(shared.index, Job("encvec-orm")).start(_Work(shared, connection, kind).quietly)


class _Work:
    """The work on one index. It holds the engine, never the session's connection."""

    def __init__(self, shared: SharedIndex, connection: Connection, kind: EncryptedVector) -> None:
        self._index, self._place, self._kind = shared.index, shared.head.place, kind
        self._run, self._options = _own(connection.engine), shared.options
        self._address = address_of(connection)

    def run(self, *, thorough: bool = False, purge: bool = False) -> list[str]:
        head = head_of(self._kind, self._run, self._options, 0, self._address)
        if head.place != self._place or not head.followed or head.hidden:
            raise InputError(
                f"{self._kind.cipher.place}: the engine must connect as the role that searches, to a table whose"
                " triggers are there and whose rows it may all see"
            )
        records = TableRecords(self._kind.companions, self._run, self._options, last_read(self._index))
        follower = Follower(records, self._kind.cipher.keyring(head.incarnation), self._kind)
        builder: Builder = self._index.builder  # type: ignore[assignment]
        done = builder.run(follower, thorough=thorough, purge=purge)
        done += _forget(self._kind, self._run, self._options, purge=purge)
        return done + (_compared(self._kind, self._run, self._options) if thorough else [])

    def quietly(self) -> None:
        """Build. A failure goes to the log: searches stay right, and get slower."""
        builder = self._index.builder
        try:
            self.run()
        except InputError:
            return  # a session with another role, or in a transaction that made the table
        except Exception as error:
            if builder is not None:
                builder.failed = f"{type(error).__name__}: {error}"
            _log.warning("the index of %s could not be built: %s", self._kind.cipher.place, type(error).__name__)


def _own(engine: Engine) -> Run[Any]:
    def run(work: Callable[[Connection], Any]) -> Any:
        with engine.begin() as connection:
            return work(connection)

    return run


def _compared(kind: EncryptedVector, run: Run[Any], options: Mapping[str, Any]) -> list[str]:
    """Compare the entries with the rows that are there: somebody may have written without triggers."""
    companions = kind.companions
    noted = select(func.count()).select_from(companions.rows).where(~companions.rows.c.gone).scalar_subquery()
    there = select(func.count()).select_from(companions.table).where(companions.column.is_not(None)).scalar_subquery()

    def work(connection: Connection) -> tuple[int, int]:
        entries, rows = connection.execute(select(noted, there), execution_options=dict(options)).one()
        return int(entries), int(rows)

    entries, rows = run(work)
    if entries == rows:
        return []
    found = f"{rows:,} vectors are there, and {entries:,} are noted: call follow"
    _log.warning("%s: %s, because some were written without triggers", kind.cipher.place, found)
    return [found]


def _forget(kind: EncryptedVector, run: Run[Any], options: Mapping[str, Any], *, purge: bool) -> list[str]:
    """Delete entries that are gone, if they are many. Row 0 tells followers that are behind to list all rows."""
    rows, c = kind.companions.rows, kind.companions.rows.c

    def work(connection: Connection) -> int:
        def execute(statement: Any) -> Any:
            return connection.execute(statement, execution_options=dict(options))

        old = c.gone & (c.row != 0) & (c.xid < HORIZON)
        counted = select(func.count().filter(old), func.count(), func.max(c.xid).filter(old))
        gone, every, last = execute(counted).one()
        if not gone or (not purge and gone < max(_FORGOTTEN, every // 10)):
            return 0
        mark = insert(rows).values(row=0, xid=last, gone=True, version=0)
        newer = {"xid": func.greatest(c.xid, mark.excluded.xid)}
        execute(mark.on_conflict_do_update(index_elements=["row"], set_=newer))
        return int(execute(delete(rows).where(c.gone, c.row != 0, c.xid <= last)).rowcount)

    try:
        forgotten = run(work)
    except DBAPIError as error:  # a role that may only read
        _log.info("entries of deleted rows stay, because the table cannot be written: %s", type(error.orig).__name__)
        return []
    return [f"forget {forgotten:,} deleted rows"] if forgotten else []
