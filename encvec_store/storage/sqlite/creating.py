"""Create the tables of a new `records.sqlite3`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from sqlalchemy import create_engine, exc
from sqlalchemy.pool import NullPool

from ..revisions import FORMAT, REVISION
from .tables import metadata

__all__ = ["create_tables"]


def create_tables(connect: Callable[[], sqlite3.Connection]) -> None:
    """Create the tables that are missing, and `meta`, in one transaction. `connect` opens a connection to the file.

    Raises sqlite3.Error.
    """
    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            metadata.create_all(connection)
            for name, value in (("format", FORMAT), ("revision", REVISION), ("next_row", 1)):
                connection.exec_driver_sql("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value))
            connection.commit()
    except exc.SQLAlchemyError as error:
        # that of SQLAlchemy quotes the statement, and `from None` hides it
        raise getattr(error, "orig", None) or sqlite3.OperationalError(type(error).__name__) from None
