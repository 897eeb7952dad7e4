"""A database for a benchmark and the plaintext table beside ours.

The table is what somebody who wants speed writes by hand: psycopg, binary COPY of lines that NumPy packed, binary
parameters, prepared statements, an id, the vector and a field to filter by.
"""

from __future__ import annotations

import os
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.sql import SQL

from ...data import Matrix
from ...localpg import LocalServer
from ...storage.postgres import PostgresOptions, Raw, RawDumper, parse_url, vector

__all__ = ["PlainTable", "ScratchDatabase", "Search", "database"]

# A server of a user's own has these by default; our temporary one is faster, and would lose what was committed.
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "wal_level": "replica"}
SETTINGS = {**DURABLE, "max_wal_senders": "10", "shared_buffers": "1GB", "max_wal_size": "4GB"}
OPERATORS = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
_LINES = 256


@dataclass
class ScratchDatabase:
    """A fresh database with pgvector."""

    url: str
    versions: dict[str, str]
    pid: int | None
    """Of the server, if this process started it."""


@contextmanager
def database(**settings: str) -> Iterator[ScratchDatabase]:
    """Give a database on the server of ENCVEC_TEST_DSN, or on one that is started for it, as durable as any.

    `settings` are configuration parameters of a server that is started.
    """
    name, given = f"encvec_bench_{secrets.token_hex(4)}", os.environ.get("ENCVEC_TEST_DSN")
    if given is None:
        with LocalServer(settings={**SETTINGS, **settings}) as server:
            version = server.ensure_database(name)
            url = server.dsn(name)
            yield ScratchDatabase(url, {"pgvector": version, "postgresql": server.version}, server.pid)
        return
    with psycopg.connect(given, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        head, question, query = given.partition("?")
        url = f"{head.rpartition('/')[0]}/{name}{question}{query}"
        try:
            with psycopg.connect(url, autocommit=True) as inside:
                inside.execute("CREATE EXTENSION IF NOT EXISTS vector")
                found = inside.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
                server_version = inside.info.parameter_status("server_version") or ""
            yield ScratchDatabase(url, {"pgvector": str(found and found[0]), "postgresql": server_version}, None)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


class Search:
    """A prepared search with one connection per thread."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], setting: str | None, sql: str) -> None:
        self._connect, self._setting, self._sql = connect, setting, sql.encode()
        self._mine = threading.local()
        self._opened: list[psycopg.Connection[Any]] = []
        self._cursor()

    def __call__(self, query: Matrix) -> list[str]:
        """Return the ids nearest to a (d,) query."""
        return [id for (id,) in self._cursor().execute(self._sql, (vector(query),)).fetchall()]

    def all(self, queries: Matrix) -> list[list[str]]:
        """Return those for (q, d) queries, sent in a pipeline without waiting in between."""
        connection = self._cursor().connection
        with connection.pipeline():
            asked = [connection.cursor(binary=True).execute(self._sql, (vector(query),)) for query in queries]
            return [[id for (id,) in cursor.fetchall()] for cursor in asked]

    @property
    def pid(self) -> int:
        """Of the server's process for the first connection."""
        return self._opened[0].info.backend_pid

    def close(self) -> None:
        """Close the connections."""
        for connection in self._opened:
            connection.close()

    def _cursor(self) -> psycopg.Cursor[Any]:
        cursor: psycopg.Cursor[Any] | None = getattr(self._mine, "cursor", None)
        if cursor is None:
            connection = self._connect()
            if self._setting:
                connection.execute(f"SET {self._setting}")
            self._opened.append(connection)
            cursor = self._mine.cursor = connection.cursor(binary=True)
        return cursor


class PlainTable:
    """Plaintext in pgvector, as fast as psycopg goes: ids "0", "1", ... as the key, a vector, a group.

    It lives in a schema of its own, which goes with it.
    """

    name = "plain pgvector"

    def __init__(self, url: str, name: str, dim: int, metric: str = "cosine") -> None:
        """Connect by a store's URL or a libpq one."""
        self._target = parse_url(url, {})[0]
        self._schema, self._dim, self._near = name, dim, OPERATORS[metric]
        self._table, self._ops = f"{name}.plain", f"{metric}_ops"
        self._connection = self._connect()
        self._rows = 0
        self._more: list[Search] = []

    def __enter__(self) -> Self:
        self._connection.execute(f"CREATE SCHEMA {self._schema}")
        self._connection.execute(
            f"CREATE TABLE {self._table} (id text PRIMARY KEY, vector vector({self._dim}), part int NOT NULL)"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for search in self._more:
            search.close()
        self._connection.execute(f"DROP SCHEMA {self._schema} CASCADE")
        self._connection.close()

    @property
    def pid(self) -> int:
        """Process of the server that loads."""
        return self._connection.info.backend_pid

    def load(self, vectors: Matrix, first: int, groups: npt.NDArray[np.int64] | None = None) -> None:
        """Copy (n, d) vectors in one transaction, under the ids from `first` on."""
        self._rows += len(vectors)
        parts = np.zeros(len(vectors), np.int64) if groups is None else groups
        with self._connection.cursor() as cursor, cursor.copy(f"COPY {self._table} FROM STDIN BINARY") as copy:
            for chunk in _packed(first, vectors, parts):
                copy.write(chunk)

    def index(self, kind: str, memory: str = PostgresOptions.build_memory) -> float:
        """Build an index with the parameters that the store chooses, or none, in so much memory; returns seconds."""
        start = time.perf_counter()
        if kind == "none":
            return 0.0
        rows, ops = self._rows, self._ops
        graph = "WITH (m = 16, ef_construction = 64)"
        on = {
            "hnsw": f"hnsw (vector vector_{ops}) {graph}",
            "halfvec": f"hnsw ((vector::halfvec({self._dim})) halfvec_{ops}) {graph}",
            "ivfflat": f"ivfflat (vector vector_{ops}) WITH (lists = {max(16, rows // 1000)})",
            "bit": f"hnsw ((binary_quantize(vector)::bit({self._dim})) bit_hamming_ops) {graph}",
        }[kind]
        self._connection.execute(SQL("SET maintenance_work_mem = {}").format(memory))
        self._connection.execute(f"CREATE INDEX plain_index ON {self._table} USING {on}")
        return time.perf_counter() - start

    def index_groups(self) -> None:
        """Index the groups by a btree, with fresh statistics."""
        self._connection.execute(f"CREATE INDEX ON {self._table} (part)")
        self._connection.execute(f"VACUUM ANALYZE {self._table}")

    def size(self) -> int:
        """Return the bytes of the table with its key and indexes."""
        row = self._connection.execute(f"SELECT pg_total_relation_size('{self._table}')").fetchone()
        return int(row[0]) if row else 0

    def index_size(self) -> int:
        """Return the bytes of the index on vectors; 0 where there is none."""
        ask = f"SELECT coalesce(pg_relation_size(to_regclass('{self._schema}.plain_index')), 0)"
        row = self._connection.execute(ask).fetchone()
        return int(row[0]) if row else 0

    def searching(self, kind: str, effort: int, k: int) -> Search:
        """Return a search at an effort (probes, or ef_search; so many are re-ranked for bit)."""
        setting = {"ivfflat": f"ivfflat.probes = {effort}", "none": None}.get(
            kind, f"hnsw.ef_search = {min(1000, max(effort, k))}"
        )
        near = f"SELECT id FROM {self._table} ORDER BY "  # noqa: S608
        sql = {
            "halfvec": f"{near}vector::halfvec({self._dim}) {self._near} %b::vector::halfvec LIMIT {k}",
            "bit": f"SELECT id FROM (SELECT id, vector, v FROM {self._table}, (SELECT %b::vector AS v) AS q"  # noqa: S608
            f" ORDER BY binary_quantize(vector)::bit({self._dim}) <~> binary_quantize(v) LIMIT {effort}) AS wide"
            f" ORDER BY vector {self._near} v LIMIT {k}",
        }.get(kind, f"{near}vector {self._near} %b::vector LIMIT {k}")
        return self._prepared(setting, sql)

    def filtering(self, part: int, k: int) -> Search:
        """Return a search of one group."""
        ordered = f"ORDER BY vector {self._near} %b::vector LIMIT {k}"
        return self._prepared(None, f"SELECT id FROM {self._table} WHERE part = {part} {ordered}")  # noqa: S608

    def _prepared(self, setting: str | None, sql: str) -> Search:
        self._more.append(Search(self._connect, setting, sql))
        return self._more[-1]

    def _connect(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self._target, autocommit=True)
        connection.adapters.register_dumper(Raw, RawDumper)
        return connection


def _packed(first: int, vectors: Matrix, groups: Sequence[int] | npt.NDArray[np.int64]) -> Iterator[bytes]:
    """Yield a binary COPY stream, lines packed by NumPy."""
    n, dim = vectors.shape
    line = np.dtype(
        [("size", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("vector", ">f4", (dim,)), ("4", ">i4"), ("part", ">i4")]
    )
    lines = np.zeros(n, line)
    lines["size"], lines["dim"], lines["vector"], lines["4"], lines["part"] = 4 + 4 * dim, dim, vectors, 4, groups
    whole, size = lines.view(np.uint8).data, line.itemsize
    yield b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
    for start in range(0, n, _LINES):
        parts: list[Any] = []
        for i in range(start, min(start + _LINES, n)):
            id = str(first + i).encode()
            parts += (struct.pack(">hi", 3, len(id)), id, whole[i * size : (i + 1) * size])
        yield b"".join(parts)
    yield b"\xff\xff"
