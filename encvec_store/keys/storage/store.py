"""Keysets beside the data: in a table of a store's database, or a file in its folder.

Whoever copies the store has the wrapped keyset too, and may guess at a passphrase for as long as they like. So these
have no wrapper by default: one must be named, and none at all is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ...errors import KeysetError, UriError
from ...runtime import urls
from ..wrappers.service import need
from .file import FileStorage

__all__ = ["FILE", "TABLE", "FolderStorage", "TableStorage", "beside_data"]

FILE = "keyset.json"
TABLE = "keyset"
_NONE = (
    "no keyset in {place}: if a store was written with it, bring it back from a backup, since no other keyset opens"
    " that store; for a new store, create one with `encvec keys create`"
)
_CREATE = (
    "CREATE TABLE IF NOT EXISTS {table} (one boolean PRIMARY KEY DEFAULT true CHECK (one), content bytea NOT NULL)"
)
_INSERT = "INSERT INTO {table} (content) VALUES (%s) ON CONFLICT DO NOTHING"
_UPDATE = "UPDATE {table} SET content = %s WHERE content = %s"
T = TypeVar("T")


class FolderStorage(FileStorage):
    """Keyset in the file `keyset.json` of a store's folder."""

    wrapper = ""

    def __init__(self, rest: str) -> None:
        folder, _ = urls.folder_of_store(urls.as_url(rest))
        super().__init__((folder / FILE).as_posix())
        self.uri = f"store:{rest}"


class TableStorage:
    """Keyset in the table `keyset`, of one row, in the schema of a store on PostgreSQL."""

    wrapper = ""
    lasting = True

    def __init__(self, rest: str) -> None:
        known = {option.keyword.decode() for option in need("psycopg", "postgres").pq.Conninfo.get_defaults()}
        try:
            self._dsn, self._schema = urls.database_of_store(rest, known)
        except ValueError as error:
            raise UriError(f"store: {error}") from None
        self.uri = f"store:{urls.shown(rest)}"
        self._seen: bytes | None = None

    def exists(self) -> bool:
        """Return True if there is a row."""
        return self._run(self._content) is not None

    def read(self) -> bytes:
        """Read the row."""
        content = self._run(self._content)
        if content is None:
            raise KeysetError(_NONE.format(place=self.uri))
        self._seen = content
        return content

    def create(self, content: bytes) -> None:
        """Add the row; first the schema and the table, if they are missing. Raises KeysetError if there is a row."""

        def work(connection: Any) -> bool:
            if not connection.execute("SELECT to_regnamespace(quote_ident(%s))", [self._schema]).fetchone()[0]:
                connection.execute(self._sql("CREATE SCHEMA IF NOT EXISTS {schema}"))
            connection.execute(self._sql(_CREATE))
            added = connection.execute(self._sql(_INSERT), [content])
            return bool(added.rowcount)

        if not self._run(work):
            raise KeysetError(f"{self.uri} holds a keyset already: open it, or choose another place")
        self._seen = content

    def replace(self, content: bytes) -> None:
        """Replace the row."""

        def work(connection: Any) -> bool:
            changed = connection.execute(self._sql(_UPDATE), [content, self._seen])
            return bool(changed.rowcount)

        if self._seen is None or not self._run(work):
            raise KeysetError(f"the keyset in {self.uri} has changed since: open it again")
        self._seen = content

    def _content(self, connection: Any) -> bytes | None:
        there = connection.execute(
            "SELECT 1 FROM pg_class WHERE relname = %s AND relnamespace = to_regnamespace(quote_ident(%s))",
            [TABLE, self._schema],
        ).fetchone()
        if there is None:
            return None
        row = connection.execute(self._sql("SELECT content FROM {table}")).fetchone()
        return None if row is None else bytes(row[0])

    def _sql(self, text: str) -> Any:
        sql = need("psycopg.sql", "postgres")
        schema, table = sql.Identifier(self._schema), sql.Identifier(self._schema, TABLE)
        return sql.SQL(text).format(schema=schema, table=table)

    def _run(self, work: Callable[[Any], T]) -> T:
        """Do some work in a transaction of its own. Errors of the driver may hold the URL: only their class is told."""
        psycopg = need("psycopg", "postgres")
        try:
            with psycopg.connect(self._dsn) as connection:
                return work(connection)
        except psycopg.Error as error:
            name = type(error).__name__
        raise KeysetError(f"{self.uri} cannot be used ({name}): is the server there, and may this role use it?")


def beside_data(rest: str) -> FolderStorage | TableStorage:
    """Return the storage in the store that a URL names. Raises UriError."""
    return TableStorage(rest) if rest.partition(":")[0] in urls.POSTGRESQL else FolderStorage(rest)
