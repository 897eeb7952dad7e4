"""The `postgresql:` record store, plain and async: a schema of a database."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from ...errors import CollectionNotFoundError, InputError, StoreUnreachableError
from ..names import check_kind_of_names
from ..protocol import CollectionSpec
from . import sealed_names
from .connections import Connections
from .driver import Blocking
from .faults import explained, queued
from .inloop import InLoop, LoopPool
from .names import HALF, SINGLE
from .options import parse_url
from .records import PostgresRecords
from .schema import attach_content, create_content, drop_content, next_content, prepare
from .source import Cursor, Source
from .tenancy import for_tenant

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["AsyncPostgresStore", "PostgresStore"]

_TENANTS: LiteralString = (
    "SELECT tenant, count(*), coalesce(sum(n), 0)::int8, coalesce(sum(pg_total_relation_size(to_regclass(format("
    "'%%I.%%I', %(schema)s::text, 'records_' || content))) + pg_total_relation_size(to_regclass(format('%%I.%%I',"
    " %(schema)s::text, 'terms_' || content)))), 0)::int8 FROM {collections} c LEFT JOIN (SELECT collection,"
    " sum(records) AS n FROM {partitions} GROUP BY 1) s ON s.collection = c.id GROUP BY 1 ORDER BY 4 DESC, 1"
)


_OPEN: LiteralString = (
    "SELECT c.id, c.content, c.index_dim, c.envelope_size, CASE WHEN t.oid IS NOT NULL THEN ARRAY(SELECT"
    " attname::text FROM pg_attribute WHERE attrelid = t.oid AND NOT attisdropped) END FROM {collections} c,"
    " LATERAL (SELECT to_regclass(format('%%I.%%I', %s::text, 'records_' || c.content))::oid AS oid) t"
    " WHERE c.tenant = %s AND c.name = %s"
)
_ATTEMPTS = 5


class PostgresStore:
    """Implements `RecordStore` in a PostgreSQL database. Any number of processes may open it.

    A forked child opens connections of its own; with a pool or an engine of the caller's it must open the store anew.

    Args:
        url: `postgresql://user@host/database`, with what libpq knows (`?sslmode=verify-full`) and options of ours
            (`?schema=encvec&index=hnsw`); see `Options`. With a pool or an engine, `postgresql://` is enough.
        pool: a `psycopg_pool.ConnectionPool` of the caller's, which is never closed by us.
        engine: an SQLAlchemy engine over psycopg 3, likewise.
        options: the same as in the URL, as keyword arguments.

    Raises:
        UriError: the URL or an option cannot be understood.
        StoreUnreachableError: no connection, or the database lacks something. It says what.
    """

    def __init__(
        self, url: str, *, pool: ConnectionPool[Any] | None = None, engine: Engine | None = None, **options: Any
    ) -> None:
        target, self.url, self._options = parse_url(url, options)
        self.device = self._options.device
        self.index, self.ranked_options = self._options.index, self._options.ranked
        if pool is not None and engine is not None:
            raise InputError("give either pool or engine, not both")
        self._closed = False
        self._source = Source(self._connected(target, pool, engine))
        try:
            self._server = prepare(self._source)
        except BaseException:
            self._source.close()
            raise
        self._names = self._server.names

    def collections(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """List (tenant, name), sorted.

        Raises:
            InputError: no tenant is given, but row-level security shows this role one tenant at a time. A part of the
                list would look like all of it.
        """
        if tenant is None:
            self._see_all()
        sql = self._names.sql("SELECT tenant, name FROM {collections}")
        where = b"" if tenant is None else b" WHERE tenant = %s"
        found = self._read(sql + where, () if tenant is None else (tenant,), tenant or "")
        return sorted((owner, name) for owner, name in found)

    def tenants(self) -> list[dict[str, Any]]:
        """Return (tenant, collections, records, bytes) of every tenant, the largest first.

        Raises:
            InputError: row-level security shows this role one tenant at a time.
        """
        self._see_all()
        found = self._read(self._names.sql(_TENANTS), {"schema": self._names.schema}, "")
        return [dict(zip(("tenant", "collections", "records", "bytes"), row, strict=True)) for row in found]

    def open(self, tenant: str, name: str) -> PostgresRecords | None:
        """Open a collection, or return None where there is none. A new object every time."""
        sql = self._names.sql(_OPEN)
        # if the tables are gone, they were replaced after the collection's row was read: look again
        found: list[tuple[Any, ...]] = [(None,)]
        for _ in range(_ATTEMPTS):
            if found and found[0][-1] is None:
                found = self._read(sql, (self._names.schema, tenant, name), tenant)
        if not found:
            return None
        number, content, index_dim, envelope_size, columns = found[0]
        half, ranked = HALF in (columns or ()), not {HALF, SINGLE}.isdisjoint(columns or ())
        records = PostgresRecords(
            self._of(tenant),
            self._server,
            number,
            content,
            CollectionSpec(tenant, name, index_dim, envelope_size, half, ranked),
        )
        if ranked:
            if self._server.pgvector is None:  # it was created after the store was opened
                records.find_extension()
            self._server.check(self._source.place, name)
        return records

    def create(self, spec: CollectionSpec, config: bytes, sealed_name: bytes | None = None) -> PostgresRecords:
        """Create a collection, or open the one that another process created meanwhile."""
        with self._of(spec.tenant).write() as cursor, queued(self._source.place):
            content = next_content(cursor, self._names)
            made = cursor.execute(
                self._names.sql(
                    "INSERT INTO {collections} (tenant, name, index_dim, envelope_size, config, generation, next_row,"
                    " purged, content, stamp) VALUES (%s, %s, %s, %s, %b, 1, 1, 1, %s, %s::int8)"
                    " ON CONFLICT (tenant, name) DO NOTHING RETURNING id, {sealed}",
                    sealed=self._names.part(sealed_names.THERE),
                ),
                (
                    *(spec.tenant, spec.name, spec.index_dim, spec.envelope_size, config),
                    *(content, secrets.randbits(62)),
                ),
            ).fetchone()
            if made is not None:
                check_kind_of_names(self._source.place, sealed=made[1], given=sealed_name is not None)
                sealed_names.insert_name(cursor, self._names, made[0], sealed_name)
                create_content(cursor, self._source, self._server, content, spec, spec.index_dim)
                attach_content(cursor, self._names, content)
        collection = self.open(spec.tenant, spec.name)
        if collection is None:
            raise CollectionNotFoundError(f"collection {spec.called!r} was dropped by another process")
        return collection

    def drop(self, tenant: str, name: str) -> bool:
        """Delete a collection and everything in it; False where there is none."""
        with self._of(tenant).write() as cursor, queued(self._source.place):
            sql = self._names.sql("DELETE FROM {collections} WHERE tenant = %s AND name = %s RETURNING content")
            gone = cursor.execute(sql, (tenant, name)).fetchone()
            if gone is None:
                return False
            drop_content(cursor, self._names, gone[0])
        return True

    def name_key(self) -> bytes | None:
        """Return the sealed name key; None if names are in clear."""
        try:
            return self._source.read(lambda cursor: sealed_names.read_key(cursor, self._names))
        except psycopg.Error as error:
            raise explained(error, "read", self._source.place) from None

    def keep_name_key(self, sealed: bytes, expect: bytes | None = None) -> bool:
        """Store the sealed name key, if the one that is stored is as expected."""
        with self._source.write() as cursor, queued(self._source.place):
            return sealed_names.keep_key(cursor, self._names, self._source.place, sealed, expect)

    def named(self, tenant: str | None = None) -> list[tuple[str, str, bytes]]:
        """List (tenant, name, sealed name). Raises InputError as `collections` does."""
        if tenant is None:
            self._see_all()
        where = b"" if tenant is None else b" WHERE tenant = %s"
        found = self._read(
            self._names.sql(sealed_names.LISTED) + where, () if tenant is None else (tenant,), tenant or ""
        )
        return [(owner, name, bytes(sealed)) for owner, name, sealed in found]

    def close(self) -> None:
        """Close our own connections; a caller's pool or engine stays as it is. Idempotent."""
        self._closed = True
        self._source.close()

    def _connected(self, target: str, pool: Any, engine: Any) -> Connections:
        """Check what the caller gave, and return the connections."""
        from sqlalchemy import Engine

        if pool is not None and not isinstance(pool, ConnectionPool):
            raise InputError(f"pool must be a psycopg_pool.ConnectionPool, got {type(pool).__name__}")
        if engine is not None and not isinstance(engine, Engine):
            raise InputError(f"engine must be a synchronous SQLAlchemy Engine, got {type(engine).__name__}")
        return Connections(target, self.url, self._options, Blocking(), pool, engine)

    def _see_all(self) -> None:
        if self._server.row_security == "on" and not self._closed:
            raise InputError(
                f"row-level security in {self.url} shows this role one tenant at a time: name it, or connect as"
                " a superuser or a role with BYPASSRLS to see all"
            )

    def _of(self, tenant: str) -> Source:
        return self._source if self._server.row_security == "off" else for_tenant(self._source, tenant)

    def _read(self, sql: bytes, parameters: tuple[Any, ...] | dict[str, Any], tenant: str) -> list[tuple[Any, ...]]:
        def work(cursor: Cursor) -> list[tuple[Any, ...]]:
            return cursor.execute(sql, parameters).fetchall()

        try:
            return self._of(tenant).read(work)
        except psycopg.Error as error:
            raise explained(error, "read", self._source.place) from None


class AsyncPostgresStore(PostgresStore):
    """The same for async callers: every call waits in their event loop, and must be in a walk of `concurrency.spawn`.

    Args:
        url: as above.
        pool: a `psycopg_pool.AsyncConnectionPool` of the caller's, open, which is never closed by us.
        engine: an `AsyncEngine` over psycopg 3, likewise.
        options: as above.
    """

    def __init__(
        self,
        url: str,
        *,
        pool: AsyncConnectionPool[Any] | None = None,
        engine: AsyncEngine | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url, pool=pool, engine=engine, **options)  # type: ignore[arg-type]

    def _connected(self, target: str, pool: Any, engine: Any) -> Connections:
        from sqlalchemy.ext.asyncio import AsyncEngine

        # psycopg would report it at each connection, as a server that cannot be reached
        if isinstance(asyncio.get_running_loop(), getattr(asyncio, "ProactorEventLoop", ())):
            raise StoreUnreachableError(
                "psycopg cannot use Windows' ProactorEventLoop: run your program with"
                " asyncio.run(main(), loop_factory=asyncio.SelectorEventLoop), or before Python 3.12 after"
                " asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())"
            )
        if pool is not None and not isinstance(pool, AsyncConnectionPool):
            raise InputError(f"pool must be a psycopg_pool.AsyncConnectionPool, got {type(pool).__name__}")
        if engine is not None and not isinstance(engine, AsyncEngine):
            raise InputError(f"engine must be an SQLAlchemy AsyncEngine, got {type(engine).__name__}")
        return Connections(
            target,
            self.url,
            self._options,
            InLoop(),
            None if pool is None else LoopPool(pool),
            None if engine is None else engine.sync_engine,
        )
