"""Asks a server if it is ready, and creates databases."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import LocalServerError

if TYPE_CHECKING:
    import psycopg

__all__ = ["answer", "driver", "ensure_database"]


def driver() -> Any:
    """Import psycopg. Raises ImportError, which names the extra."""
    try:
        return importlib.import_module("psycopg")
    except ImportError as error:
        raise ImportError(
            f"a local PostgreSQL needs psycopg ({error}): pip install 'encvec-store[postgres]'"
        ) from error


def answer(dsn: str) -> tuple[str | None, str]:
    """Ask a server for its version: (version, ""), or (None, why it did not answer).

    Raises LocalServerError if it makes no sense to ask again.
    """
    psycopg = driver()
    try:
        with psycopg.connect(dsn, connect_timeout=5, autocommit=True) as connection:
            return connection.execute("SHOW server_version").fetchone()[0].split()[0], ""
    except psycopg.OperationalError as error:
        said = str(error)
        if "password authentication failed" in said or "no password supplied" in said:
            raise LocalServerError(f"the server refuses the password in its pgpass file: {said}") from error
        return None, said


def ensure_database(maintenance: str, dsn: str, name: str) -> str:
    """Create a database with pgvector if it is missing; return the version of pgvector.

    `maintenance` is the DSN of the database `postgres`, `dsn` that of the new one. Raises LocalServerError.
    """
    psycopg = driver()
    try:
        with psycopg.connect(maintenance, autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
            if known is None:
                connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            return _extension(connection)
    except psycopg.Error as error:
        raise LocalServerError(f"cannot make the database {name!r} with pgvector: {error}") from error


def _extension(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    return str(row[0]) if row else ""
