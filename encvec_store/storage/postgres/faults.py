"""Turns errors of psycopg into ours, without parameters, values or passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as pg

from ...errors import (
    EncvecError,
    PoolerError,
    StandbyConflictError,
    StoreLockedError,
    StoreTimeoutError,
    StoreUnreachableError,
)
from ...runtime.urls import scrubbed

__all__ = ["READS", "explained", "is_conflict", "is_lost", "is_moved", "is_outdated", "queued", "translated"]

_LOST = (pg.AdminShutdown, pg.CrashShutdown, pg.DatabaseDropped, pg.IdleSessionTimeout)
READS = 6
"""How often a read is tried that fails because of other writes."""
_TELLING = ("08", "25P", "28", "3D", "40", "42501", "42704", "42883", "53", "54", "55", "57", "58", "XX")
"""SQL states whose messages name objects and limits, but never a value."""


def is_lost(error: BaseException) -> bool:
    """Return True if the connection is lost, so that another one may work."""
    if isinstance(error, _LOST):
        return True
    # without an SQL state, the error comes from the client library and is about the connection
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and error.sqlstate is None


def is_outdated(error: BaseException) -> bool:
    """Return True if a table was dropped before it was read: the content was replaced or dropped.

    Or if the read and the drop waited for each other, and the server ended the read.
    """
    if isinstance(error, pg.UndefinedTable | pg.DeadlockDetected):
        return True
    return isinstance(error, pg.InternalError_) and "could not open relation" in str(error)


def is_conflict(error: BaseException) -> bool:
    """Return True if a read failed because of other writes; on a standby, because of what it replays."""
    return isinstance(error, pg.SerializationFailure)


def is_moved(error: BaseException) -> bool:
    """Return True if a type, function or operator is missing: the extension may be in another schema by now."""
    return isinstance(error, pg.UndefinedObject | pg.UndefinedFunction | pg.InvalidSchemaName)


@contextmanager
def translated(doing: str, place: str) -> Iterator[None]:
    """Turn errors of psycopg inside into ours.

    Args:
        doing: "read", "write to", ...
        place: the store's URL without a password.
    """
    try:
        yield
    except psycopg.Error as error:
        raise explained(error, doing, place) from None


def explained(error: psycopg.Error, doing: str, place: str) -> EncvecError:
    """Return our error for an error of psycopg."""
    what = _message(error)
    end = "; nothing was written" if doing == "write to" else ""
    cannot = f"cannot {doing} {place}"
    match error:
        case pg.LockNotAvailable() if doing != "write to":
            return StoreLockedError(f"{cannot}: another process's transaction is in the way, try again")
        case pg.LockNotAvailable():
            return StoreLockedError(f"another process is writing to {place}; nothing was written, try again")
        case pg.SerializationFailure() if "recovery" in what:
            return StandbyConflictError(
                f"{cannot}: the standby cancelled the read {READS} times, because of what it replays from its primary;"
                " set hot_standby_feedback = on or a longer max_standby_streaming_delay there, or read from the primary"
            )
        case pg.SerializationFailure() | pg.DeadlockDetected():
            return StoreLockedError(f"{cannot}: another process wrote there at the same time{end}, try again")
        case _ if _is_of_another(error, what):
            return PoolerError(
                f"{cannot}: a connection pooler in transaction mode stands before the server;"
                f" add pooler=1 to the store's URL{end}"
            )
        case pg.QueryCanceled() if "timeout" in what:
            return StoreTimeoutError(
                f"{cannot}: the server cancelled the statement ({what}); raise statement_timeout of the role or the"
                f" database{end}"
            )
        case pg.QueryCanceled():
            return StoreUnreachableError(f"{cannot}: the server cancelled the statement ({what}){end}")
        case pg.InsufficientPrivilege():
            return StoreUnreachableError(f"{cannot}: the role lacks a right: {what}{end}")
        case pg.DiskFull() | pg.OutOfMemory():
            return StoreUnreachableError(f"{cannot}: the server is out of space ({what}){end}")
        case pg.ReadOnlySqlTransaction():
            return StoreUnreachableError(f"{cannot}: the server is read-only, a standby perhaps{end}")
        case pg.DataException() if doing == "read" and error.sqlstate == "22000":  # vectors of different dimensions
            return StoreUnreachableError(f"{cannot}: an index vector has the wrong dimension; verify() says which")
        case pg.UndefinedTable() | pg.InvalidSchemaName():
            return StoreUnreachableError(f"{cannot}: the tables of the store are missing{end}")
        case pg.UndefinedColumn():
            return StoreUnreachableError(
                f"{cannot}: the index vectors are missing, because the extension pgvector was dropped with their"
                f" columns; restore a backup, or create the extension and copy the records into a new collection{end}"
            )
        case pg.UndefinedObject() | pg.UndefinedFunction():
            return StoreUnreachableError(
                f"{cannot}: the extension pgvector was moved, changed or dropped ({what}); open the store anew{end}"
            )
        case pg.ObjectNotInPrerequisiteState() if "replica identity" in what:
            return StoreUnreachableError(
                f"{cannot}: a publication needs a replica identity of the table ({what}); give it a primary key, or"
                f" ALTER TABLE ... REPLICA IDENTITY FULL{end}"
            )
    return StoreUnreachableError(f"{cannot}: {what}{end}")


@contextmanager
def queued(place: str) -> Iterator[None]:
    """Report a statement inside that the server cancels as a wait for another writer: it did nothing else."""
    try:
        yield
    except pg.QueryCanceled as error:
        raise StoreLockedError(
            f"another process is writing to {place}, and the server ended the wait before lock_timeout"
            f" ({_message(error)}); nothing was written, try again"
        ) from None


def _is_of_another(error: psycopg.Error, what: str) -> bool:
    """Return True if a prepared statement was not the one that this client prepared."""
    if isinstance(error, pg.ProtocolViolation):  # poolers use it for many a refusal of their own, too
        return "prepared statement" in what
    return isinstance(error, pg.InvalidSqlStatementName | pg.DuplicatePreparedStatement)


def _message(error: psycopg.Error) -> str:
    state = error.sqlstate
    if state is None:  # from the client library: about host, database and user
        said = re.sub(r"(?<![:.?])\s*\n\s*", ". ", re.sub(r"^connection (failed|is bad): ", "", str(error).strip()))
        return scrubbed(" ".join(said.split())) or type(error).__name__
    if state.startswith(_TELLING):
        return error.diag.message_primary or type(error).__name__
    return f"{type(error).__name__}, SQL state {state}"
