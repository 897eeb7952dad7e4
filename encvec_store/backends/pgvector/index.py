"""Building and finding indexes, one per key version of a collection; imports names, options, schema, source.

An index covers one space only: vectors of different key versions are not comparable, and must not share a graph.
It is built beside reads and writes, and by one process at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import LiteralString

from psycopg import errors as pg
from psycopg.sql import SQL, Composed, Identifier

from .names import Names
from .options import Options
from .schema import Server
from .source import Cursor, Source

__all__ = ["IndexState", "Indexer", "expression"]

_EXISTING = (
    "SELECT c.relname, i.indisvalid, pg_relation_size(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " WHERE i.indrelid = to_regclass(format('%%I.%%I', %s::text, %s::text))"
)
_LOCK = 0x656E7658
"""First half of the advisory lock; the number of the tables is the other."""


@dataclass(frozen=True)
class IndexState:
    """How one space stands."""

    records: int
    kind: str
    """Of the index there is: none, hnsw, ivfflat."""
    wanted: str
    """That the options ask for."""
    half: bool
    bytes: int


def expression(names: Names, column: LiteralString, dim: int, *, half: bool) -> Composed:
    """Return the expression that an index of `dim` coordinates is on; a search must order by the same."""
    return SQL("({}::{}({}))").format(SQL(column), names.sql_type(half=half), SQL(str(dim)))


class Indexer:
    """Builds the indexes of one collection."""

    def __init__(self, source: Source, server: Server, dim_of: Callable[[int], int]) -> None:
        self._source = source
        self._server = server
        self._names = server.names
        self._options: Options = source.options
        self._dim_of = dim_of

    def states(self, cursor: Cursor, content: int, counts: dict[int, int]) -> dict[int, IndexState]:
        """Return how each space is indexed."""
        existing = cursor.execute(_EXISTING.encode(), (self._names.schema, f"records_{content}")).fetchall()
        valid = {name: size for name, sound, size in existing if sound}
        found, dim = {}, self._dim_of(content)
        for space, records in counts.items():
            kind, half, size = "none", False, 0
            for candidate, halved in (("hnsw", False), ("hnsw", True), ("ivfflat", False), ("ivfflat", True)):
                name = self._name(content, space, candidate, half=halved)
                if name in valid and self._options.index in ("auto", candidate):
                    kind, half, size = candidate, halved, valid[name]
            wanted = self._options.kind_for(records, dim)
            found[space] = IndexState(records, kind, wanted, half, size)
        return found

    def build(self, content: int, space: int, state: IndexState) -> bool:
        """Build the index that a space lacks; False where another process is at it.

        Raises:
            StoreUnreachableError: the server failed or was too short of memory.
        """
        dim = self._dim_of(content)
        half = self._options.half(dim)
        statement = self._statement(content, space, state, dim, concurrently=not self._options.pooler)
        if self._options.pooler:
            return self._build_in_transaction(content, statement)
        with self._source.session() as cursor:
            lock = (_LOCK, content % (1 << 31))
            if cursor.execute(b"SELECT pg_try_advisory_lock(%s::int4, %s::int4)", lock).fetchone() != (True,):
                return False
            try:
                name = Identifier(self._names.schema, self._name(content, space, state.wanted, half=half))
                for _, setting, value in self._settings():
                    cursor.execute(b"SELECT set_config(%s, %s, false)", (setting, value))
                # what an interrupted build left is of no use to searches, and slows down writes
                cursor.execute(SQL("DROP INDEX IF EXISTS {}").format(name))
                self._with_less(cursor, statement)
            finally:
                if not cursor.connection.closed:
                    for reset, _, _ in self._settings():
                        cursor.execute(reset)
                    cursor.execute(b"SELECT pg_advisory_unlock(%s::int4, %s::int4)", lock)
            cursor.execute(self._names.sql("ANALYZE {terms}", content))
        return True

    def build_new(self, cursor: Cursor, content: int, counts: dict[int, int], dim: int) -> None:
        """Index tables that nobody else sees yet, in the transaction that made them."""
        self._source.set_local(cursor, {setting: value for _, setting, value in self._settings()[:-1]})
        for space, records in counts.items():
            wanted = self._options.kind_for(records, dim)
            if wanted != "none":
                state = IndexState(records, "none", wanted, self._options.half(dim), 0)
                cursor.execute(self._statement(content, space, state, dim, concurrently=False))
        cursor.execute(self._names.sql("ANALYZE {terms}", content))

    def _build_in_transaction(self, content: int, statement: bytes) -> bool:
        with self._source.write() as cursor:
            lock = (_LOCK, content % (1 << 31))
            if cursor.execute(b"SELECT pg_try_advisory_xact_lock(%s::int4, %s::int4)", lock).fetchone() != (True,):
                return False
            self._source.set_local(cursor, {setting: value for _, setting, value in self._settings()[:-1]})
            cursor.execute(statement)
        return True

    def _with_less(self, cursor: Cursor, statement: bytes) -> None:
        try:
            cursor.execute(statement)
        except (pg.DiskFull, pg.OutOfMemory):
            # in containers, shared memory for parallel workers is often tiny
            cursor.execute(b"SELECT set_config('max_parallel_maintenance_workers', '0', false)")
            name = statement.split(b" ON ")[0].split()[-1]
            cursor.execute(b"DROP INDEX IF EXISTS " + self._names.sql("{schema}.") + name)
            cursor.execute(statement)

    def _settings(self) -> list[tuple[bytes, str, str]]:
        workers = [] if self._server.parallel else [("max_parallel_maintenance_workers", "0")]
        settings = [
            ("maintenance_work_mem", self._options.build_memory),
            ("statement_timeout", "0"),
            *workers,
            ("lock_timeout", "0"),
        ]
        return [(b"RESET " + name.encode(), name, value) for name, value in settings]

    def _name(self, content: int, space: int, kind: str, *, half: bool) -> str:
        return f"records_{content}_s{space}_{kind}{'_half' if half else ''}"

    def _statement(self, content: int, space: int, state: IndexState, dim: int, *, concurrently: bool) -> bytes:
        options = self._options
        half = options.half(dim)
        parameters = (
            SQL("m = {}, ef_construction = {}").format(options.m, options.ef_construction)
            if state.wanted == "hnsw"
            else SQL("lists = {}").format(options.lists_for(state.records))
        )
        return self._names.sql(
            "CREATE INDEX {concurrently} {name} ON {records} USING {kind} ({on} {opclass})"
            " WITH ({parameters}) WHERE space = {space}",
            content,
            concurrently=SQL("CONCURRENTLY" if concurrently else ""),
            name=Identifier(self._name(content, space, state.wanted, half=half)),
            kind=SQL("hnsw" if state.wanted == "hnsw" else "ivfflat"),
            on=expression(self._names, "index_vector", dim, half=half),
            opclass=self._names.opclass(half=half),
            parameters=parameters,
            space=space,
        )
