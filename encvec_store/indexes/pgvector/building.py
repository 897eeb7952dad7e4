"""Builds and finds indexes, one for each partition of a collection.

Vectors of different partitions cannot be compared and must not share a graph. An index is built while others read and
write, by one process at a time.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import errors as pg
from psycopg.sql import SQL, Identifier

from ...storage.postgres.names import kept
from ...storage.postgres.options import PostgresOptions
from ...storage.postgres.records import PostgresRecords
from ...storage.postgres.source import Cursor

__all__ = ["IndexState", "Indexer"]

log = logging.getLogger("encvec_store")
_EXISTING = (
    "SELECT c.relname, i.indisvalid, pg_relation_size(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " WHERE i.indrelid = format('%%I.%%I', %s::text, %s::text)::regclass"
)
"""Fails if the table is gone: it was replaced, and must not look like a table without indexes."""
_SIZE: LiteralString = (
    "SELECT coalesce(sum(pg_relation_size(indexrelid)), 0)::int8 FROM pg_index"
    " WHERE indrelid = to_regclass({records_name}) AND indpred IS NOT NULL"
)
_INDEXES = (("bit", "bit"), *itertools.product(("hnsw", "ivfflat"), ("float32", "float16")))
"""(kind, storage). If several exist, the last of these is used."""
_LOCK = 0x656E7658
"""The first half of the advisory lock; the number of the tables is the second."""


_DROP = SQL("DROP INDEX CONCURRENTLY IF EXISTS {}")
"""CONCURRENTLY, so that new readers need not wait while it waits for an old one."""


@dataclass(frozen=True)
class IndexState:
    """How one partition is indexed."""

    records: int
    kind: str
    """The kind of its index: none, hnsw, ivfflat, bit."""
    wanted: str
    """The kind that the options ask for."""
    storage: str
    """How the index keeps vectors: float32, float16, bit."""
    bytes: int


class Indexer:
    """Builds the indexes of one collection."""

    def __init__(self, records: PostgresRecords) -> None:
        self._records = records
        self._source = records.source
        self._server = records.server
        self._names = records.names
        self._options: PostgresOptions = records.source.options
        self._dim_of = records.dim_of

    @property
    def _half(self) -> bool:
        return self._records.spec.half

    def states(self, cursor: Cursor, content: int, counts: dict[int, int]) -> dict[int, IndexState]:
        """Return how each partition is indexed."""
        existing = cursor.execute(_EXISTING.encode(), (self._names.schema, f"records_{content}")).fetchall()
        valid = {name: size for name, sound, size in existing if sound}
        found, dim = {}, self._dim_of(content)
        for partition, records in counts.items():
            kind, storage, size = "none", "float32", 0
            for candidate, stored in _INDEXES:
                name = self._name(content, partition, candidate, stored)
                if name in valid and self._options.index in ("auto", "lists", candidate):
                    kind, storage, size = candidate, stored, valid[name]
            wanted = self._options.kind_for(records, dim, half=self._half)
            found[partition] = IndexState(records, kind, wanted, storage, size)
        return found

    def size(self, cursor: Cursor, content: int) -> int:
        """Return the bytes of all indexes of vectors, including those that the options do not use."""
        (size,) = cursor.execute(self._names.sql(_SIZE, content)).fetchone() or (0,)
        return int(size)

    def build(self, content: int, partition: int, state: IndexState) -> bool:
        """Build the index that a partition lacks; return False if another process does it.

        Raises:
            StoreLockedError: a transaction of another process did not end within the lock timeout.
            StoreUnreachableError: the server failed, refused, or had too little memory or space.
        """
        dim = self._dim_of(content)
        storage = self._options.storage_for(dim, half=self._half)
        statement = self._statement(content, partition, state, dim, concurrently=not self._options.pooler)
        if self._options.pooler:
            return self._build_in_transaction(content, state.records, dim, statement)
        with self._source.session() as cursor:
            lock = (_LOCK, content % (1 << 31))
            if cursor.execute(b"SELECT pg_try_advisory_lock(%s::int4, %s::int4)", lock).fetchone() != (True,):
                return False
            try:
                name = Identifier(self._names.schema, self._name(content, partition, state.wanted, storage))
                for _, setting, value in self._settings():
                    cursor.execute(b"SELECT set_config(%s, %s, false)", (setting, value))
                # what an interrupted build has left slows writes down and helps no search
                cursor.execute(_DROP.format(name))
                try:
                    with self._watched(cursor, state.records, dim):
                        self._with_less(cursor, statement, name)
                except (pg.DiskFull, pg.OutOfMemory):
                    with suppress(psycopg.Error):  # give the space back
                        cursor.execute(_DROP.format(name))
                    raise
            finally:
                if not cursor.connection.closed:
                    for reset, _, _ in self._settings():
                        cursor.execute(reset)
                    cursor.execute(b"SELECT pg_advisory_unlock(%s::int4, %s::int4)", lock)
            cursor.execute(self._names.sql("ANALYZE {terms}", content))
        return True

    def build_new(self, cursor: Cursor, content: int, counts: dict[int, int], dim: int) -> None:
        """Index tables in the transaction that created them, before others can see them."""
        self._source.set_local(cursor, {setting: value for _, setting, value in self._settings()[:-1]})
        for partition, records in counts.items():
            wanted = self._options.kind_for(records, dim, half=self._half)
            if wanted != "none":
                state = IndexState(records, "none", wanted, self._options.storage_for(dim, half=self._half), 0)
                with self._watched(cursor, records, dim):
                    cursor.execute(self._statement(content, partition, state, dim, concurrently=False))
        cursor.execute(self._names.sql("ANALYZE {terms}", content))

    def _build_in_transaction(self, content: int, records: int, dim: int, statement: bytes) -> bool:
        with self._source.write() as cursor:
            lock = (_LOCK, content % (1 << 31))
            if cursor.execute(b"SELECT pg_try_advisory_xact_lock(%s::int4, %s::int4)", lock).fetchone() != (True,):
                return False
            self._source.set_local(cursor, {setting: value for _, setting, value in self._settings()[:-1]})
            with self._watched(cursor, records, dim):
                cursor.execute(statement)
        return True

    @contextmanager
    def _watched(self, cursor: Cursor, records: int, dim: int) -> Iterator[None]:
        """Warn as soon as the server says that a graph does not fit in its memory: a restart may be faster."""

        def tell(notice: pg.Diagnostic) -> None:
            if "maintenance_work_mem" in (notice.message_primary or ""):
                log.warning(
                    "the graph of %d records does not fit in build_memory=%s: building it takes several times longer; "
                    "build_memory=%dMB would hold it",
                    records,
                    self._options.build_memory,
                    self._options.graph_memory(records, dim, half=self._half),
                )

        cursor.connection.add_notice_handler(tell)
        try:
            yield
        finally:
            cursor.connection.remove_notice_handler(tell)

    def _with_less(self, cursor: Cursor, statement: bytes, name: Identifier) -> None:
        try:
            cursor.execute(statement)
        except (pg.DiskFull, pg.OutOfMemory):
            # in containers, shared memory for parallel workers is often tiny
            cursor.execute(b"SELECT set_config('max_parallel_maintenance_workers', '0', false)")
            cursor.execute(_DROP.format(name))
            cursor.execute(statement)

    def _settings(self) -> list[tuple[bytes, str, str]]:
        workers = [] if self._server.parallel else [("max_parallel_maintenance_workers", "0")]
        settings = [
            ("maintenance_work_mem", self._options.build_memory),
            ("statement_timeout", "0"),
            *workers,
            ("lock_timeout", f"{round(self._options.lock_timeout * 1000)}ms"),
        ]
        return [(b"RESET " + name.encode(), name, value) for name, value in settings]

    def _name(self, content: int, partition: int, kind: str, storage: str) -> str:
        return f"records_{content}_s{partition}_{kind}{'_half' if storage == 'float16' else ''}"

    def _statement(self, content: int, partition: int, state: IndexState, dim: int, *, concurrently: bool) -> bytes:
        options = self._options
        lists = state.wanted == "ivfflat"
        storage = options.storage_for(dim, half=self._half)
        parameters = (
            SQL("lists = {}").format(options.lists_for(state.records))
            if lists
            else SQL("m = {}, ef_construction = {}").format(options.m, options.ef_construction)
        )
        return self._names.sql(
            "CREATE INDEX {concurrently} {name} ON {records} USING {kind} ({on} {opclass})"
            " WITH ({parameters}) WHERE partition = {partition}",
            content,
            concurrently=SQL("CONCURRENTLY" if concurrently else ""),
            name=Identifier(self._name(content, partition, state.wanted, storage)),
            kind=SQL("ivfflat" if lists else "hnsw"),
            parameters=parameters,
            partition=partition,
            **self._names.measure(storage, dim, kept(self._half)[0]),
        )
