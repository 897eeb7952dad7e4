"""A database for a benchmark, the plaintext table beside ours, and the server's memory; imports localpg, psycopg."""

from __future__ import annotations

import os
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import psutil
import psycopg
from numpy.typing import NDArray

from encvec_store.backends.pgvector.wire import Raw, RawDumper, vector
from encvec_store.localpg import LocalServer

Floats = NDArray[np.float32]
# A server of a user's own has these by default; our temporary one is faster, and would lose what was committed.
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "wal_level": "replica"}
SETTINGS = {**DURABLE, "max_wal_senders": "10", "shared_buffers": "1GB", "max_wal_size": "4GB"}
_LINES = 256
_MIB = 1 << 20


@dataclass
class Database:
    """A fresh database with pgvector."""

    url: str
    versions: dict[str, str]
    pid: int | None
    """Of the server, if it is our own."""


@contextmanager
def database() -> Iterator[Database]:
    """Give a database on the server of ENCVEC_TEST_DSN, or on one that is started for it, as durable as any."""
    name, given = f"encvec_bench_{secrets.token_hex(4)}", os.environ.get("ENCVEC_TEST_DSN")
    if given is None:
        with LocalServer(settings=SETTINGS) as server:
            version = server.ensure_database(name)
            url = server.dsn(name)
            yield Database(url, {"pgvector": version, "postgresql": server.version}, server.pid)
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
            yield Database(url, {"pgvector": str(found and found[0]), "postgresql": server_version}, None)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def spent(pid: int | None) -> float:
    """Return the seconds that a process has run; NaN where that cannot be told (Linux tells)."""
    schedule = Path(f"/proc/{pid}/schedstat")
    return int(schedule.read_bytes().split()[0]) / 1e9 if pid and schedule.exists() else float("nan")


class Watched:
    """A search, and the processor time that it takes at both ends.

    On a machine that others use too, time on the clock says more of them than of a search; this says less.
    """

    def __init__(self, search: Callable[[Floats], Sequence[Any]], pid: int | None) -> None:
        self._search = search
        self._pid = pid
        self._client = self._server = 0.0
        self._asked = 0

    def __call__(self, query: Floats) -> Sequence[Any]:
        """Search."""
        server, client = spent(self._pid), time.thread_time()
        answer = self._search(query)
        self._client += time.thread_time() - client
        self._server += spent(self._pid) - server
        self._asked += 1
        return answer

    def row(self) -> dict[str, float | None]:
        """Return milliseconds a query."""
        client, server = (1e3 * part / self._asked for part in (self._client, self._server))
        return {"cpu_ms": client, "server_cpu_ms": None if np.isnan(server) else server}


class PlainTable:
    """Plaintext in pgvector, as fast as psycopg goes: ids "0", "1", ... as the key, a vector, a group."""

    def __init__(self, db: Database, name: str, dim: int) -> None:
        self._url, self._local, self._name, self._dim = db.url, db.pid is not None, name, dim
        self._connection = self._connect()
        self._rows = 0
        self._more: list[psycopg.Connection[Any]] = []

    def __enter__(self) -> Self:
        self._connection.execute(
            f"CREATE TABLE {self._name} (id text PRIMARY KEY, vector vector({self._dim}), part int NOT NULL)"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._more:
            connection.close()
        self._connection.execute(f"DROP TABLE {self._name}")
        self._connection.close()

    @property
    def pid(self) -> int | None:
        """Process of the server that loads, if the server is our own."""
        return self._connection.info.backend_pid if self._local else None

    def load(self, vectors: Floats, first: int, groups: NDArray[np.int64] | None = None) -> None:
        """Copy (n, d) vectors in one transaction, under the ids from `first` on."""
        self._rows += len(vectors)
        parts = np.zeros(len(vectors), np.int64) if groups is None else groups
        with self._connection.cursor() as cursor, cursor.copy(f"COPY {self._name} FROM STDIN BINARY") as copy:
            for chunk in _packed(first, vectors, parts):
                copy.write(chunk)

    def index(self, kind: str) -> float:
        """Build an index with the parameters that the store chooses; returns seconds."""
        rows = self._rows
        on = {
            "hnsw": "hnsw (vector vector_cosine_ops) WITH (m = 16, ef_construction = 64)",
            "halfvec": f"hnsw ((vector::halfvec({self._dim})) halfvec_cosine_ops) WITH (m = 16, ef_construction = 64)",
            "ivfflat": f"ivfflat (vector vector_cosine_ops) WITH (lists = {max(16, rows // 1000)})",
            "bit": f"hnsw ((binary_quantize(vector)::bit({self._dim})) bit_hamming_ops)"
            " WITH (m = 16, ef_construction = 64)",
        }[kind]
        self._connection.execute("SET maintenance_work_mem = '512MB'")
        start = time.perf_counter()
        self._connection.execute(f"CREATE INDEX {self._name}_index ON {self._name} USING {on}")
        return time.perf_counter() - start

    def index_groups(self) -> None:
        """Index the groups by a btree, with fresh statistics."""
        self._connection.execute(f"CREATE INDEX ON {self._name} (part)")
        self._connection.execute(f"VACUUM ANALYZE {self._name}")

    def size(self) -> int:
        """Return the bytes of the table with its key."""
        row = self._connection.execute(f"SELECT pg_total_relation_size('{self._name}')").fetchone()
        return int(row[0]) if row else 0

    def index_size(self) -> int:
        """Return the bytes of the index on vectors."""
        row = self._connection.execute(f"SELECT pg_relation_size('{self._name}_index')").fetchone()
        return int(row[0]) if row else 0

    def searching(self, kind: str, effort: int, k: int) -> Watched:
        """Return a search at an effort (probes, or ef_search; so many are re-ranked for bit)."""
        connection = self._connect()
        self._more.append(connection)
        setting = "ivfflat.probes" if kind == "ivfflat" else "hnsw.ef_search"
        connection.execute(f"SET {setting} = {max(effort, k)}")
        near = f"SELECT id FROM {self._name} ORDER BY "  # noqa: S608
        sql = {
            "halfvec": f"{near}vector::halfvec({self._dim}) <=> %b::vector::halfvec LIMIT {k}",
            "bit": f"SELECT id FROM (SELECT id, vector, v FROM {self._name}, (SELECT %b::vector AS v) AS q"  # noqa: S608
            f" ORDER BY binary_quantize(vector)::bit({self._dim}) <~> binary_quantize(v) LIMIT {effort}) AS wide"
            f" ORDER BY vector <=> v LIMIT {k}",
        }.get(kind, f"{near}vector <=> %b::vector LIMIT {k}")
        return self._prepared(connection, sql)

    def filtering(self, part: int, k: int) -> Watched:
        """Return a search of one group."""
        sql = f"SELECT id FROM {self._name} WHERE part = {part} ORDER BY vector <=> %b::vector LIMIT {k}"  # noqa: S608
        return self._prepared(self._connection, sql)

    def _prepared(self, connection: psycopg.Connection[Any], sql: str) -> Watched:
        cursor = connection.cursor(binary=True)
        text = sql.encode()
        return Watched(
            lambda query: [id for (id,) in cursor.execute(text, (vector(query),)).fetchall()],
            connection.info.backend_pid if self._local else None,
        )

    def _connect(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self._url, autocommit=True)
        connection.adapters.register_dumper(Raw, RawDumper)
        return connection


def _packed(first: int, vectors: Floats, groups: NDArray[np.int64]) -> Iterator[bytes]:
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


class Memory:
    """The most memory that both ends hold while a `with` block runs, looked at five times a second."""

    def __init__(self, db: Database) -> None:
        self._pid = db.pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.client = self.server = 0
        """Bytes: resident, and of the server what its processes hold with shared memory counted once."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        mine = psutil.Process()
        while True:
            self.client = max(self.client, mine.memory_info().rss)
            self.server = max(self.server, self._held())
            if self._over.wait(0.2):
                return

    def _held(self) -> int:
        if self._pid is None:
            return 0
        held = 0
        try:
            postmaster = psutil.Process(self._pid)
            for process in (postmaster, *postmaster.children(recursive=True)):
                try:
                    held += process.memory_full_info().pss
                except (psutil.Error, AttributeError):  # gone meanwhile; or a system that does not tell
                    continue
        except psutil.Error:
            return 0
        return held

    def row(self, part: str) -> dict[str, float | None]:
        """Return columns of results, in MiB."""
        server = self.server / _MIB if self.server else None
        return {f"{part}_client_mb": self.client / _MIB, f"{part}_server_mb": server}

    @staticmethod
    def table(row: dict[str, Any]) -> list[dict[str, Any]]:
        """Turn these columns of one row into lines for a table."""
        parts = [key.removesuffix("_client_mb") for key in row if key.endswith("_client_mb")]
        return [
            {"what": part, "client_mb": row[f"{part}_client_mb"], "server_mb": row[f"{part}_server_mb"]}
            for part in parts
        ]
