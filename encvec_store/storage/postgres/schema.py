"""The extension, the schema and the tables: found, checked and, where allowed, created.

The tables of a collection have the form of their parents and inherit from them; `docs/decisions/0010` says why.
"""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import dataclass

import psycopg
from psycopg import errors as pg
from psycopg.sql import SQL, Identifier

from ...errors import StoreUnreachableError
from ..protocol import CollectionSpec
from ..revisions import FORMAT, REVISION, judge
from .faults import explained
from .names import Names, kept
from .source import Cursor, Source
from .tenancy import bypasses, is_protected, protect, protect_content

__all__ = [
    "EXTENSION",
    "LOCK",
    "Server",
    "attach_content",
    "checked_version",
    "create_content",
    "drop_content",
    "find_extension",
    "make_schema",
    "next_content",
    "prepare",
]

log = logging.getLogger("encvec_store")

_OLDEST = 15
"""The oldest major version of PostgreSQL that works."""
_NEEDED = (0, 8, 0)
_SOUND = (0, 8, 4)
_PARALLEL = (0, 8, 2)
_PAGE = 8160
"""`toast_tuple_target`: a record stays whole on its page if it fits, because it is read as a whole."""
LOCK = 0x656E63766563
"""The advisory lock that is held while the schema is created or migrated."""

EXTENSION = (
    b"SELECT n.nspname, e.extversion, t.oid::bigint FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
    b" JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector' WHERE e.extname = 'vector'"
)
"""Finds the schema of the extension, its version, and the number of its type vector."""
_HALFVEC = b"SELECT to_regtype(format('%%I.halfvec', %s::text))::oid::bigint"


@dataclass(frozen=True)
class Server:
    """What the store has learned of the database."""

    names: Names
    vector_oid: int
    halfvec_oid: int
    version: tuple[int, ...]
    """The version of pgvector."""
    row_security: str = "off"
    """on, off, or bypassed: the role is a superuser or has BYPASSRLS, so that no policy applies to it."""

    @property
    def parallel(self) -> bool:
        """True if indexes may be built in parallel; before pgvector 0.8.2 that could corrupt them."""
        return self.version >= _PARALLEL


def prepare(source: Source) -> Server:
    """Find the extension and our tables, creating what is missing.

    Raises:
        StoreUnreachableError: something is missing or too old, and could not be created.
    """
    try:
        release = source.read(lambda cursor: cursor.connection.info.server_version)
        if release < _OLDEST * 10_000:
            raise StoreUnreachableError(
                f"{source.place} is PostgreSQL {release // 10_000}; {_OLDEST} or later is needed: upgrade the server"
            )
        found = source.read(lambda cursor: cursor.execute(EXTENSION).fetchone())
        if found is None and source.options.create:
            _create_extension(source)
            found = source.read(lambda cursor: cursor.execute(EXTENSION).fetchone())
        if found is None:
            raise StoreUnreachableError(
                f"{source.place} lacks the extension pgvector: let a superuser run CREATE EXTENSION vector there"
            )
        where, text, oid = found
        version = checked_version(text, source.place)
        names = Names(source.options.schema, where)
        _prepare_tables(source, names, where)
        row_security = _row_security(source, names)
        (half_oid,) = source.read(lambda cursor: cursor.execute(_HALFVEC, (where,)).fetchone()) or (0,)
    except psycopg.Error as error:
        raise explained(error, "open", source.place) from None
    return Server(names, int(oid), int(half_oid), version, row_security)


def find_extension(cursor: Cursor, names: Names) -> None:
    """Take note of the schema that the extension is in: it may have been moved since the store was opened."""
    found = cursor.execute(EXTENSION).fetchone()
    if found is not None:
        names.find_extension(found[0])


def checked_version(text: str, place: str) -> tuple[int, ...]:
    """Return the extension's version as numbers.

    Raises:
        StoreUnreachableError: it is too old.
    """
    version = _version(text)
    if version < _NEEDED:
        raise StoreUnreachableError(
            f"{place} has pgvector {text}; 0.8.0 or later is needed:"
            " install it on the server, then run ALTER EXTENSION vector UPDATE"
        )
    if version < _SOUND:
        warnings.warn(
            f"pgvector {text} has defects that may damage indexes; upgrade the server's to 0.8.4 or later",
            RuntimeWarning,
            stacklevel=5,
        )
    return version


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _create_extension(source: Source) -> None:
    try:
        with source.session() as cursor:
            cursor.execute(b"CREATE EXTENSION IF NOT EXISTS vector")
    except StoreUnreachableError as error:
        raise StoreUnreachableError(
            f"{error}. The store needs the extension pgvector: install it on the server"
            " (packages are called like postgresql-17-pgvector) and let a superuser run CREATE EXTENSION vector"
        ) from None


def _prepare_tables(source: Source, names: Names, extension: str) -> None:
    def written(cursor: Cursor) -> dict[str, int] | None:
        there = cursor.execute(
            b"SELECT to_regclass(format('%%I.%%I', %s::text, 'meta')) IS NOT NULL", (names.schema,)
        ).fetchone()
        if there != (True,):
            return None
        return dict(cursor.execute(names.sql("SELECT name, value FROM {meta}")).fetchall())

    found = source.read(written)
    if found is not None:
        judge(f"{source.place} in schema {names.schema!r}", found)
    elif source.options.create:
        create_schema(source, names, extension)
    else:
        raise StoreUnreachableError(f"{source.place} has no tables of encvec_store in schema {names.schema!r}")


def _row_security(source: Source, names: Names) -> str:
    """Turn row-level security on if the options ask for it; return on, off or bypassed."""
    if not source.read(lambda cursor: is_protected(cursor, names)):
        if not source.options.row_security:
            return "off"
        protect(source, names)
    if not source.read(bypasses):
        return "on"
    log.warning(
        "row-level security is on in %s, but does not bind this role: it is a superuser or has BYPASSRLS", source.place
    )
    return "bypassed"


def create_schema(source: Source, names: Names, extension: str) -> None:
    """Create the schema and its tables, or wait for another process that does."""
    from sqlalchemy.dialects.postgresql import psycopg as dialect
    from sqlalchemy.schema import CreateIndex, CreateSequence, CreateTable, ExecutableDDLElement, SetTableComment

    from .tables import build_metadata, uncompressed

    metadata = build_metadata(names.schema)
    language = dialect.dialect()  # type: ignore[no-untyped-call]
    elements: list[ExecutableDDLElement] = [CreateSequence(sequence) for sequence in metadata._sequences.values()]  # noqa: SLF001
    for table in metadata.sorted_tables:
        elements.append(CreateTable(table))
        elements += [CreateIndex(index) for index in sorted(table.indexes, key=lambda index: str(index.name))]
        elements += [SetTableComment(table)] if table.comment else []
    statements = [*(str(element.compile(dialect=language)) for element in elements), uncompressed(names.schema)]
    with source.write() as cursor:
        cursor.execute(b"SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        make_schema(cursor, names, source.place)
        (there,) = cursor.execute(
            b"SELECT to_regclass(format('%%I.%%I', %s::text, 'meta')) IS NOT NULL", (names.schema,)
        ).fetchone() or (False,)
        if there:
            return
        source.set_local(cursor, {"search_path": f'pg_catalog, "{extension.replace(chr(34), chr(34) * 2)}"'})
        for statement in statements:
            cursor.execute(statement.encode())
        cursor.execute(
            names.sql(
                "INSERT INTO {meta} VALUES ('format', {format}), ('revision', {revision})",
                format=FORMAT,
                revision=REVISION,
            )
        )


def make_schema(cursor: Cursor, names: Names, place: str) -> None:
    """Create the schema if it is missing. IF NOT EXISTS alone would need the right to create even if it exists.

    Raises:
        StoreUnreachableError: the role may not create it. It says what the owner must run.
    """
    try:
        if cursor.execute(b"SELECT to_regnamespace(quote_ident(%s)) IS NULL", (names.schema,)).fetchone() == (True,):
            cursor.execute(names.sql("CREATE SCHEMA IF NOT EXISTS {schema}"))
    except pg.InsufficientPrivilege as error:
        role = Identifier(cursor.connection.info.user)
        statement = names.sql("CREATE SCHEMA {schema} AUTHORIZATION {role}", role=role).decode()
        raise StoreUnreachableError(
            f"{explained(error, 'open', place)}; let the database's owner run {statement}"
        ) from None


# The tables of one collection


def next_content(cursor: Cursor, names: Names) -> int:
    """Return a number for new tables."""
    (number,) = cursor.execute(names.sql("SELECT nextval({contents})")).fetchone() or (0,)
    return int(number)


def create_content(cursor: Cursor, names: Names, number: int, spec: CollectionSpec, index_dim: int) -> None:
    """Create the tables of a number, which belong to no collection yet."""
    find_extension(cursor, names)
    column, type_, _ = kept(spec.half)
    cursor.execute(
        names.sql(
            "CREATE TABLE {records} (LIKE {all_records} INCLUDING ALL EXCLUDING COMMENTS{more},"
            " CHECK (octet_length(token) = 16 AND octet_length(envelope) = {envelope_size}"
            " AND coalesce({vector_dims}({column}), 0) = {index_dim})) WITH (toast_tuple_target = {page})",
            number,
            more=names.part(", {column} {type}", column=SQL(column), type=names.part(type_)) if spec.half else SQL(""),
            envelope_size=spec.envelope_size,
            column=SQL(column),
            index_dim=index_dim,
            page=_PAGE,
        )
    )
    # ciphertext cannot be compressed, and statistics of it are useless
    cursor.execute(
        names.sql(
            "ALTER TABLE {records} ALTER envelope SET STORAGE EXTERNAL, ALTER payload SET STORAGE EXTERNAL,"
            " ALTER {column} SET STORAGE EXTERNAL, ALTER envelope SET STATISTICS 0,"
            " ALTER payload SET STATISTICS 0, ALTER {column} SET STATISTICS 0",
            number,
            column=SQL(column),
        )
    )
    cursor.execute(names.sql("CREATE TABLE {terms} (LIKE {all_terms} INCLUDING ALL EXCLUDING COMMENTS)", number))


def attach_content(cursor: Cursor, names: Names, content: int) -> None:
    """Let tables inherit from their parents, so that migrations reach them. Do it last: it locks out other writers.

    With row-level security, these tables are closed to other tenants from now on.
    """
    if is_protected(cursor, names):
        protect_content(cursor, names, content)
    cursor.execute(names.sql("ALTER TABLE {records} INHERIT {all_records}", content))
    cursor.execute(names.sql("ALTER TABLE {terms} INHERIT {all_terms}", content))


def drop_content(cursor: Cursor, names: Names, content: int) -> None:
    """Drop a collection's tables; wait for those who read them.

    Raises:
        psycopg.errors.LockNotAvailable: somebody still reads, perhaps a backup.
    """
    cursor.execute(names.sql("DROP TABLE IF EXISTS {records}, {terms}", content))
