"""Open a PostgreSQL store for migrations, and make the SQL that comes before them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal
from sqlalchemy import create_engine, exc
from sqlalchemy.pool import NullPool

from ...errors import StoreUnreachableError, UriError
from ..revisions import VERSION_TABLE, Migrating
from .faults import explained, translated
from .names import Names
from .options import PostgresOptions, parse_url
from .schema import make_schema
from .server import LOCK
from .transport import parameters_for

__all__ = ["offline", "opened", "schema_of"]

_PREAMBLE = """\
DO $$
BEGIN
    PERFORM set_config('search_path', 'pg_catalog', true);
    PERFORM pg_advisory_xact_lock({lock});
END $$"""
_CHECKED = """\
DO $$
BEGIN
    IF coalesce((SELECT max(value) FROM {meta} WHERE name = 'revision'), 0) <> {revision} THEN
        RAISE EXCEPTION 'these tables are not of revision {revision}';
    END IF;
END $$"""
# a store that `connect` created has no table of Alembic's yet
_NOTES = (
    "CREATE TABLE IF NOT EXISTS {notes} (version_num VARCHAR(32) NOT NULL, CONSTRAINT {key} PRIMARY KEY (version_num))",
    "INSERT INTO {notes} SELECT {version} WHERE NOT EXISTS (SELECT FROM {notes})",
)


def schema_of(url: str) -> str:
    """Return the schema that a store's URL names. Raises UriError."""
    return _parsed(url)[2].schema


def offline(schema: str, *, start: int, with_extension: bool) -> list[str]:
    """Return the statements that come before those of the revisions, for a script that somebody else runs.

    Args:
        schema: where the tables are.
        start: revision that the script begins at; 0 if there are no tables yet.
        with_extension: create the extension too, which takes a superuser.
    """
    at = Identifier(schema)
    meta = Identifier(schema, "meta")
    statements = ["SET LOCAL client_min_messages = warning"]  # do not report what exists already
    if with_extension:
        statements.append("CREATE EXTENSION IF NOT EXISTS vector")
    if not start:
        statements.append(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(at).as_string())
    statements.append(SQL(_PREAMBLE).format(lock=Literal(LOCK)).as_string())
    if start:
        statements.append(SQL(_CHECKED).format(meta=meta, revision=Literal(start)).as_string())
        parts = {"notes": Identifier(schema, VERSION_TABLE), "key": Identifier(f"{VERSION_TABLE}_pkc")}
        statements += [SQL(note).format(**parts, version=Literal(f"{start:04d}")).as_string() for note in _NOTES]
    return statements


@contextmanager
def opened(url: str, *, write: bool) -> Iterator[Migrating]:
    """Open the database of a store in a transaction: committed at the end, rolled back if anything is raised.

    Args:
        url: the store's.
        write: find or create the schema, and lock out other migrations. Otherwise only look.

    Raises:
        StoreUnreachableError: no connection, or no right.
        StoreLockedError: somebody else used the tables for longer than the lock timeout.
    """
    target, place, options = _parsed(url)
    defaults = {"connect_timeout": 10, "application_name": "encvec_store"}
    parameters: dict[str, Any] = {**defaults, **parameters_for(target, place)}

    def connect() -> psycopg.Connection[Any]:
        with translated("reach", place):
            return psycopg.connect("", prepare_threshold=None, **parameters)  # a pooler may stand before the server

    engine = create_engine(
        "postgresql+psycopg://",
        creator=connect,
        poolclass=NullPool,
        hide_parameters=True,
    )
    try:
        with engine.begin() as connection:
            driver: Any = connection.connection.driver_connection
            with driver.cursor() as cursor:
                if write:
                    _prepare(cursor, options, place)
                meta = _meta(cursor, Names(options.schema))
            yield Migrating(connection, place, options.schema, meta)
    except exc.DBAPIError as error:
        raise _explained(error.orig, error.statement, place) from None
    except psycopg.Error as error:
        raise _explained(error, None, place) from None
    finally:
        engine.dispose()


def _parsed(url: str) -> tuple[str, str, PostgresOptions]:
    parsed = parse_url(url, {})
    if ":" in parsed[2].schema:
        raise UriError(
            f"migrations take no schema with a colon, SQLAlchemy's mark of a parameter: {parsed[2].schema!r}"
        )
    return parsed


def _prepare(cursor: Any, options: PostgresOptions, place: str) -> None:
    """Take the lock, create the schema if it is missing, and set the search path."""
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{round(options.lock_timeout * 1000)}ms",))
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
    make_schema(cursor, Names(options.schema), place)
    cursor.execute("SELECT set_config('search_path', 'pg_catalog', true)")


def _meta(cursor: Any, names: Names) -> dict[str, int] | None:
    there = cursor.execute("SELECT to_regclass(format('%%I.%%I', %s::text, 'meta')) IS NOT NULL", (names.schema,))
    if there.fetchone() != (True,):
        return None
    return dict(cursor.execute(names.sql("SELECT name, value FROM {meta}")).fetchall())


def _explained(error: BaseException | None, statement: str | None, place: str) -> Exception:
    if not isinstance(error, psycopg.Error):
        return StoreUnreachableError(f"cannot migrate {place}: {type(error).__name__}")
    told = explained(error, "migrate", place)
    if isinstance(error, psycopg.errors.InsufficientPrivilege) and statement:
        # a statement of ours, without parameters: it holds no secret
        return StoreUnreachableError(
            f"{told}. Let the tables' owner run {' '.join(statement.split())}, or all of what `encvec db sql` prints"
        )
    return told
