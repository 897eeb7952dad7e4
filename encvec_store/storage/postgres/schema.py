"""The schema and the tables: found, checked and, where allowed, created.

The tables of a collection have the form of their parents and inherit from them; `docs/decisions/0010` says why.
"""

from __future__ import annotations

import logging

import psycopg
from psycopg import errors as pg
from psycopg.sql import SQL, Composable, Identifier

from ...errors import InputError, StoreUnreachableError
from ..protocol import CollectionSpec
from ..revisions import FORMAT, REVISION, judge
from .faults import explained
from .names import Names, kept
from .server import LOCK, Server
from .source import Cursor, Source
from .tenancy import bypasses, is_protected, protect, protect_content

__all__ = [
    "attach_content",
    "create_content",
    "drop_content",
    "make_schema",
    "next_content",
    "prepare",
    "require_ranking",
]

log = logging.getLogger("encvec_store")

_OLDEST = 15
"""The oldest major version of PostgreSQL that works."""
_MOST_DIM = 16_000
_PAGE = 8160
"""`toast_tuple_target`: a record stays whole on its page if it fits, because it is read as a whole."""


def prepare(source: Source) -> Server:
    """Find our tables, creating what is missing, and look for the extension.

    Raises:
        StoreUnreachableError: something is missing or too old, and could not be created.
    """
    try:
        source.look_for_pooler()
        release = source.read(lambda cursor: cursor.connection.info.server_version)
        if release < _OLDEST * 10_000:
            raise StoreUnreachableError(
                f"{source.place} is PostgreSQL {release // 10_000}; {_OLDEST} or later is needed: upgrade the server"
            )
        server = Server(Names(source.options.schema))
        source.read(server.look)
        _prepare_tables(source, server.names)
        server.row_security = _row_security(source, server.names)
    except psycopg.Error as error:
        raise explained(error, "open", source.place) from None
    return server


def _prepare_tables(source: Source, names: Names) -> None:
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
        create_schema(source, names)
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


def create_schema(source: Source, names: Names) -> None:
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
        source.set_local(cursor, {"search_path": "pg_catalog"})
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


def require_ranking(cursor: Cursor, source: Source, server: Server, spec: CollectionSpec, index_dim: int) -> None:
    """Find the extension pgvector, or create it, and check that it takes vectors of so many coordinates.

    Raises what `create_content` does.
    """
    if index_dim > _MOST_DIM:
        raise InputError(f"an index vector must have at most {_MOST_DIM} coordinates, got {index_dim}")
    server.require(cursor, source, spec.called)


def create_content(
    cursor: Cursor, source: Source, server: Server, number: int, spec: CollectionSpec, index_dim: int
) -> None:
    """Create the tables of a number, which belong to no collection yet.

    Raises:
        InputError: the extension takes no vectors of so many coordinates.
        StoreUnreachableError: they need the extension pgvector, which is missing or too old.
    """
    names, ranked = server.names, spec.ranked or index_dim > 0
    if ranked:
        require_ranking(cursor, source, server, spec, index_dim)
    column, type_, _ = kept(spec.half)
    vector: Composable = SQL("")
    check: Composable = SQL("")
    if ranked:
        vector = names.part(", {column} {type}", column=SQL(column), type=names.part(type_))
        check = names.part(
            " AND coalesce({vector_dims}({column}), 0) = {index_dim}", column=SQL(column), index_dim=index_dim
        )
    cursor.execute(
        names.sql(
            "CREATE TABLE {records} (LIKE {all_records} INCLUDING ALL EXCLUDING COMMENTS{vector},"
            " CHECK (octet_length(token) = 16 AND octet_length(envelope) = {envelope_size}{check}))"
            " WITH (toast_tuple_target = {page})",
            number,
            vector=vector,
            envelope_size=spec.envelope_size,
            check=check,
            page=_PAGE,
        )
    )
    # ciphertext cannot be compressed, and statistics of it are useless
    setting = SQL("ALTER {0} SET STORAGE EXTERNAL, ALTER {0} SET STATISTICS 0")
    sealed = (SQL("envelope"), SQL("payload"), SQL(column))[: 3 if ranked else 2]
    settings = SQL(", ").join(setting.format(name) for name in sealed)
    cursor.execute(names.sql("ALTER TABLE {records} {settings}", number, settings=settings))
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
