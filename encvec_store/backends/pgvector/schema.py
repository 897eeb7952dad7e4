"""The extension, the schema and the tables: found, checked and, where allowed, created; imports source, names, tables.

Tables of one collection are made like the parents and inherit from them; `docs/decisions/0010` says why.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

import psycopg

from ...errors import StoreUnreachableError
from .faults import explained
from .names import Names
from .source import Cursor, Source

__all__ = ["Server", "attach_content", "create_content", "drop_content", "next_content", "prepare"]

_NEEDED = (0, 8, 0)
_SOUND = (0, 8, 4)
_PARALLEL = (0, 8, 2)
_PAGE = 8160
"""`toast_tuple_target`: whole records stay on their page as long as they fit, since they are read together."""
_LOCK = 0x656E63766563
"""Advisory lock held while the schema is made."""

_EXTENSION = (
    b"SELECT n.nspname, e.extversion, t.oid::bigint FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
    b" JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector' WHERE e.extname = 'vector'"
)


@dataclass(frozen=True)
class Server:
    """What we know of the database."""

    names: Names
    vector_oid: int
    version: tuple[int, ...]
    """Of pgvector."""

    @property
    def parallel(self) -> bool:
        """Whether indexes may be built in parallel: before 0.8.2 that could corrupt them."""
        return self.version >= _PARALLEL


def prepare(source: Source) -> Server:
    """Find the extension and our tables, creating what is missing.

    Raises:
        StoreUnreachableError: something is missing or too old, and could not be created.
    """
    try:
        found = source.read(lambda cursor: cursor.execute(_EXTENSION).fetchone())
        if found is None and source.options.create:
            _create_extension(source)
            found = source.read(lambda cursor: cursor.execute(_EXTENSION).fetchone())
        if found is None:
            raise StoreUnreachableError(
                f"{source.place} lacks the extension pgvector: let a superuser run CREATE EXTENSION vector there"
            )
        where, text, oid = found
        version = _version(text)
        if version < _NEEDED:
            raise StoreUnreachableError(
                f"{source.place} has pgvector {text}; 0.8.0 or later is needed:"
                " install it on the server, then run ALTER EXTENSION vector UPDATE"
            )
        if version < _SOUND:
            warnings.warn(
                f"pgvector {text} has defects that may damage indexes; upgrade the server's to 0.8.4 or later",
                RuntimeWarning,
                stacklevel=4,
            )
        names = Names(source.options.schema, where)
        _prepare_tables(source, names, where)
    except psycopg.Error as error:
        raise explained(error, "open", source.place) from None
    return Server(names, int(oid), version)


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
    from .tables import FORMAT

    def written(cursor: Cursor) -> int | None:
        there = cursor.execute(
            b"SELECT to_regclass(format('%%I.%%I', %s::text, 'meta')) IS NOT NULL", (names.schema,)
        ).fetchone()
        if there != (True,):
            return None
        row = cursor.execute(names.sql("SELECT value FROM {meta} WHERE name = 'format'")).fetchone()
        return row[0] if row else 0

    found = source.read(written)
    if found is None:
        if not source.options.create:
            raise StoreUnreachableError(f"{source.place} has no tables of encvec_store in schema {names.schema!r}")
        create_schema(source, names, extension)
    elif found != FORMAT:
        raise StoreUnreachableError(
            f"{source.place} has format {found} in schema {names.schema!r}; this version of encvec_store reads"
            f" {FORMAT}: {'upgrade it' if found > FORMAT else 'migrate the tables'}"
        )


def create_schema(source: Source, names: Names, extension: str) -> None:
    """Create the schema and the tables of the metadata, or wait for another process that does."""
    from sqlalchemy.dialects.postgresql import psycopg as dialect
    from sqlalchemy.schema import CreateIndex, CreateSequence, CreateTable, ExecutableDDLElement, SetTableComment

    from .tables import FORMAT, build_metadata

    metadata = build_metadata(names.schema)
    language = dialect.dialect()  # type: ignore[no-untyped-call]
    elements: list[ExecutableDDLElement] = [CreateSequence(sequence) for sequence in metadata._sequences.values()]
    for table in metadata.sorted_tables:
        elements.append(CreateTable(table))
        elements += [CreateIndex(index) for index in sorted(table.indexes, key=lambda index: str(index.name))]
        elements += [SetTableComment(table)] if table.comment else []
    statements = [str(element.compile(dialect=language)) for element in elements]
    with source.write() as cursor:
        cursor.execute(b"SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        # looked for first: IF NOT EXISTS asks for the right to make schemas also where there is one
        if not cursor.execute(b"SELECT FROM pg_namespace WHERE nspname = %s", (names.schema,)).fetchall():
            cursor.execute(names.sql("CREATE SCHEMA {schema}"))
        (there,) = cursor.execute(
            b"SELECT to_regclass(format('%%I.%%I', %s::text, 'meta')) IS NOT NULL", (names.schema,)
        ).fetchone() or (False,)
        if there:
            return
        source.set_local(cursor, {"search_path": f'pg_catalog, "{extension.replace(chr(34), chr(34) * 2)}"'})
        for statement in statements:
            cursor.execute(statement.encode())
        cursor.execute(names.sql("INSERT INTO {meta} VALUES ('format', {format})", format=FORMAT))


# The tables of one collection


def next_content(cursor: Cursor, names: Names) -> int:
    """Return a number for new tables."""
    (number,) = cursor.execute(names.sql("SELECT nextval({contents})")).fetchone() or (0,)
    return int(number)


def create_content(cursor: Cursor, names: Names, number: int, index_dim: int, envelope_size: int) -> None:
    """Create the tables of a number. They belong to no collection yet."""
    cursor.execute(
        names.sql(
            "CREATE TABLE {records} (LIKE {all_records} INCLUDING ALL EXCLUDING COMMENTS,"
            " CHECK (octet_length(token) = 16 AND octet_length(envelope) = {envelope_size}"
            " AND coalesce({vector_dims}(index_vector), 0) = {index_dim})) WITH (toast_tuple_target = {page})",
            number,
            envelope_size=envelope_size,
            index_dim=index_dim,
            page=_PAGE,
        )
    )
    # ciphertext does not compress, and a histogram of it tells nothing
    cursor.execute(
        names.sql(
            "ALTER TABLE {records} ALTER envelope SET STORAGE EXTERNAL, ALTER payload SET STORAGE EXTERNAL,"
            " ALTER index_vector SET STORAGE EXTERNAL, ALTER envelope SET STATISTICS 0,"
            " ALTER payload SET STATISTICS 0, ALTER index_vector SET STATISTICS 0",
            number,
        )
    )
    cursor.execute(names.sql("CREATE TABLE {terms} (LIKE {all_terms} INCLUDING ALL EXCLUDING COMMENTS)", number))


def attach_content(cursor: Cursor, names: Names, content: int) -> None:
    """Put tables under their parents, so that migrations reach them. Last, since it locks out other creators."""
    cursor.execute(names.sql("ALTER TABLE {records} INHERIT {all_records}", content))
    cursor.execute(names.sql("ALTER TABLE {terms} INHERIT {all_terms}", content))


def drop_content(cursor: Cursor, names: Names, content: int) -> None:
    """Drop a collection's tables, waiting for those who read them.

    Raises:
        psycopg.errors.LockNotAvailable: somebody reads on, a backup perhaps.
    """
    cursor.execute(names.sql("DROP TABLE IF EXISTS {records}, {terms}", content))
