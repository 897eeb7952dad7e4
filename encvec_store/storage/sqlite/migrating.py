"""Open the database of a `faiss:` store for migrations."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, event, exc, inspect
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from ...errors import StoreError, StoreLockedError, StoreUnreachableError
from ...runtime.urls import folder_of_store
from ..revisions import VERSION_TABLE, Migrating
from .connections import PAGE_SIZE
from .database import FILE_NAME
from .files import create
from .place import LOCK_TIMEOUT, seconds

__all__ = ["opened"]


@contextmanager
def opened(url: str, *, write: bool) -> Iterator[Migrating]:
    """Open the database of a store in a transaction: committed at the end, rolled back if anything is raised.

    Args:
        url: the URL of the store. Of its options only `lock_timeout` is used.
        write: lock out other writers, and create the file if it is missing. False only reads.

    Raises:
        UriError: the URL names no folder.
        StoreUnreachableError: there is no such folder, or the file cannot be used or belongs to another program.
        StoreLockedError: another process is writing.
    """
    folder, options = folder_of_store(url)
    timeout = seconds(dict(options).get("lock_timeout", LOCK_TIMEOUT))
    path = folder.absolute() / FILE_NAME
    if not folder.is_dir():
        raise StoreUnreachableError(f"no store at {folder}")
    looked_for = str(path) if write or path.exists() else None  # None is an empty database in memory
    engine = create_engine(
        URL.create("sqlite", database=looked_for),
        connect_args={"isolation_level": None, "timeout": timeout},  # transactions are begun below
        poolclass=NullPool,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        # a table may be replaced by a new one without losing the rows that refer to it; they are checked at the end
        for pragma in ("foreign_keys = OFF", "synchronous = FULL", f"page_size = {PAGE_SIZE}"):
            connection.execute(f"PRAGMA {pragma}")
        if write:
            connection.execute("PRAGMA journal_mode = WAL")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    try:
        if write:
            create(path)
        with engine.begin() as connection:
            names = set(inspect(connection).get_table_names()) - {VERSION_TABLE}
            if names and "meta" not in names:
                raise StoreUnreachableError(f"{path} is a database of another program")
            said = connection.exec_driver_sql("SELECT name, value FROM meta").all() if names else None
            yield Migrating(connection, str(folder), None, None if said is None else {row[0]: row[1] for row in said})
            if write and connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                raise StoreError(f"{path}: the migration would leave rows that refer to nothing; nothing was changed")
            emptied = write and not set(inspect(connection).get_table_names()) - {VERSION_TABLE}
    except exc.DBAPIError as error:
        cause = error.orig
        if isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise StoreLockedError(f"another process is writing to {path}; nothing was changed, try again") from None
        raise StoreUnreachableError(f"cannot migrate {path}: {cause}") from None
    except OSError as error:
        raise StoreUnreachableError(f"cannot open {path}: {error.strerror}") from None
    finally:
        engine.dispose()
    if emptied:  # collections are numbered from 1 again, so the caches of earlier ones must go
        shutil.rmtree(folder / "index", ignore_errors=True)
