"""psycopg's errors as ours, without parameters, values or passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as pg

from ...errors import EncvecError, StoreLockedError, StoreUnreachableError
from ...runtime.urls import scrubbed

__all__ = ["is_lost", "is_outdated", "translated"]

_LOST = (pg.AdminShutdown, pg.CrashShutdown, pg.DatabaseDropped, pg.IdleSessionTimeout)
_TELLING = ("08", "25P", "28", "3D", "42501", "53", "54", "57", "58", "XX")
"""SQL states whose message names objects and limits, never a value."""


def is_lost(error: BaseException) -> bool:
    """Say whether the connection is gone, so that another may do better."""
    if isinstance(error, _LOST):
        return True
    # no SQL state: the error is the client library's own, about the connection
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and error.sqlstate is None


def is_outdated(error: BaseException) -> bool:
    """Say whether a table went while we were about to read it: the content was replaced or dropped.

    Or was about to go, and the server ended the read, since it and the drop waited for each other.
    """
    if isinstance(error, pg.UndefinedTable | pg.DeadlockDetected):
        return True
    return isinstance(error, pg.InternalError_) and "could not open relation" in str(error)


@contextmanager
def translated(doing: str, place: str) -> Iterator[None]:
    """Turn what psycopg raises inside into one of our errors.

    Args:
        doing: "read", "write to", ...
        place: the store's URL without a password.
    """
    try:
        yield
    except psycopg.Error as error:
        raise explained(error, doing, place) from None


def explained(error: psycopg.Error, doing: str, place: str) -> EncvecError:
    """Return the error of ours that says what happened."""
    what = _message(error)
    end = "; nothing was written" if doing == "write to" else ""
    match error:
        case pg.LockNotAvailable() if doing != "write to":
            return StoreLockedError(f"cannot {doing} {place}: another process's transaction is in the way, try again")
        case pg.LockNotAvailable():
            return StoreLockedError(f"another process is writing to {place}; nothing was written, try again")
        case pg.SerializationFailure() | pg.DeadlockDetected():
            return StoreLockedError(
                f"another process wrote to {place} at the same time; nothing was written, try again"
            )
        case pg.QueryCanceled():
            return StoreUnreachableError(f"cannot {doing} {place}: the server cancelled the statement ({what}){end}")
        case pg.InsufficientPrivilege():
            return StoreUnreachableError(f"cannot {doing} {place}: the role lacks a right: {what}{end}")
        case pg.DiskFull() | pg.OutOfMemory():
            return StoreUnreachableError(f"cannot {doing} {place}: the server is out of space ({what}){end}")
        case pg.ReadOnlySqlTransaction():
            return StoreUnreachableError(f"cannot {doing} {place}: the server is read-only, a standby perhaps{end}")
        case pg.DataException() if doing == "read" and error.sqlstate == "22000":  # vectors of different dimensions
            return StoreUnreachableError(
                f"cannot {doing} {place}: an index vector has the wrong dimension; verify() says which"
            )
        case pg.UndefinedTable() | pg.InvalidSchemaName():
            return StoreUnreachableError(f"cannot {doing} {place}: the tables of the store are missing{end}")
    return StoreUnreachableError(f"cannot {doing} {place}: {what}{end}")


def _message(error: psycopg.Error) -> str:
    state = error.sqlstate
    if state is None:  # from the client library: about host, database and user
        said = re.sub(r"(?<![:.?])\s*\n\s*", ". ", re.sub(r"^connection (failed|is bad): ", "", str(error).strip()))
        return scrubbed(" ".join(said.split())) or type(error).__name__
    if state.startswith(_TELLING):
        return error.diag.message_primary or type(error).__name__
    return f"{type(error).__name__}, SQL state {state}"
