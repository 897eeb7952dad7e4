"""Our store, and plaintext pgvector written by hand, as their processes use them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg.sql import SQL

from benchmarks.embedded.stores import Hits, Matrix, Setting, in_folder
from encvec_store import Keyset, __version__, connect
from encvec_store.storage.postgres import Raw, RawDumper, parse_url, vector

KEYS = "ENCVEC_BENCH_KEYSET"
"""The environment variable that holds the keyset, which is made for the run."""
_SIZE = """SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"""
_LINES = 256


class Ours:
    """Our collection, by its URL; hits with documents. Where it has an index to build, `finish` builds it."""

    SETTINGS: tuple[Setting, ...] = ({},)

    def __init__(self, place: str, dim: int, *, create: bool, shared: bool, options: dict[str, Any]) -> None:
        scheme, more = options["scheme"], options.get("connect", {})
        self.version = f"encvec-store {__version__}, {scheme['name']}"
        self._place, self._builds = place, options.get("build", True)
        url = place if place.startswith("postgresql:") else f"faiss:{place}"
        self._store = connect(url, keyset=Keyset.open(f"env:{KEYS}"), **more)
        self._docs = self._store.collection("docs", dim, "cosine", scheme) if create else self._store.collection("docs")

    def write(self, ids: Sequence[int], vectors: Matrix, documents: Sequence[str]) -> None:
        self._docs.upsert([str(i) for i in ids], vectors, documents=documents)

    def finish(self) -> None:
        if self._builds:
            self._docs.maintain()
            self._docs.flush()

    def set(self, setting: Setting) -> None:
        """Nothing to set: it chooses for itself."""

    def search(self, queries: Matrix, k: int) -> list[Hits]:
        found: Any = [self._docs.search(queries[0], k)] if len(queries) == 1 else self._docs.search(queries, k)
        return [[(int(hit.id), str(hit.document)) for hit in hits] for hits in found]

    def disk(self) -> int:
        if not self._place.startswith("postgresql:"):
            return in_folder(Path(self._place))
        with psycopg.connect(parse_url(self._place, {})[0]) as connection:
            return _disk(connection)

    def close(self) -> None:
        self._store.close()


class Pgvector:
    """A table with id, vector and document, and HNSW: psycopg, binary COPY, binary parameters, prepared statements.

    The graph has the defaults m = 16 and ef_construction = 64, and is built by one process. Updates go through a
    temporary table; `finish` then runs VACUUM ANALYZE.
    """

    SETTINGS = tuple({"ef": ef} for ef in (16, 24, 40, 64, 100, 200, 400))

    def __init__(self, place: str, dim: int, *, create: bool, shared: bool, options: dict[str, Any]) -> None:
        self._connection = psycopg.connect(parse_url(place, {})[0], autocommit=True)
        self._connection.adapters.register_dumper(Raw, RawDumper)
        run, half = self._connection.execute, options["storage"] == "half"
        if create:
            run("CREATE EXTENSION IF NOT EXISTS vector")
            run(f"CREATE TABLE docs (id bigint PRIMARY KEY, vector vector({dim}), document text NOT NULL)")
        found = run("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        server = self._connection.info.parameter_status("server_version")
        self.version = f"pgvector {found and found[0]}, PostgreSQL {server}"
        self._memory = str(options.get("build_memory", "512MB"))
        self._on = f"(vector::halfvec({dim})) halfvec_cosine_ops" if half else "vector vector_cosine_ops"
        near = f"vector::halfvec({dim}) <=> %b::vector::halfvec" if half else "vector <=> %b::vector"
        self._ask = f"SELECT id, document FROM docs ORDER BY {near} LIMIT ".encode()  # noqa: S608
        self._cursor = self._connection.cursor(binary=True)

    def write(self, ids: Sequence[int], vectors: Matrix, documents: Sequence[str]) -> None:
        newest = self._connection.execute("SELECT coalesce(max(id), -1) FROM docs").fetchone()
        if newest and min(ids) > newest[0]:
            self._copy("docs", ids, vectors, documents)
            return
        with self._connection.transaction():
            self._connection.execute("CREATE TEMPORARY TABLE given (LIKE docs) ON COMMIT DROP")
            self._copy("given", ids, vectors, documents)
            self._connection.execute(
                "INSERT INTO docs SELECT * FROM given"
                " ON CONFLICT (id) DO UPDATE SET vector = excluded.vector, document = excluded.document"
            )

    def _copy(self, table: str, ids: Sequence[int], vectors: Matrix, documents: Sequence[str]) -> None:
        with self._connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN BINARY") as copy:
            for chunk in _packed(ids, vectors, documents):
                copy.write(chunk)

    def finish(self) -> None:
        run = self._connection.execute
        there = run("SELECT to_regclass('docs_near') IS NOT NULL").fetchone()
        if there and there[0]:
            run("VACUUM ANALYZE docs")
        else:
            run(SQL("SET maintenance_work_mem = {}").format(self._memory))
            run("SET max_parallel_maintenance_workers = 0")
            run(f"CREATE INDEX docs_near ON docs USING hnsw ({self._on})")
            run("ANALYZE docs")

    def set(self, setting: Setting) -> None:
        self._connection.execute(f"SET hnsw.ef_search = {setting['ef']}")

    def search(self, queries: Matrix, k: int) -> list[Hits]:
        ask = self._ask + str(k).encode()
        return [self._cursor.execute(ask, (vector(query),)).fetchall() for query in queries]

    def disk(self) -> int:
        return _disk(self._connection)

    def close(self) -> None:
        self._connection.close()


def _disk(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(_SIZE).fetchone()
    return int(row[0]) if row else 0


def _packed(ids: Sequence[int], vectors: Matrix, documents: Sequence[str]) -> Iterator[bytes]:
    n, dim = vectors.shape
    line = np.dtype([("fields", ">i2"), ("8", ">i4"), ("id", ">i8"), ("size", ">i4"), ("dim", ">i2"), ("unused", ">i2"),
                     ("vector", ">f4", (dim,))])  # fmt: skip
    lines = np.zeros(n, line)
    lines["fields"], lines["8"], lines["id"], lines["size"] = 3, 8, ids, 4 + 4 * dim
    lines["dim"], lines["vector"] = dim, vectors
    whole, size = lines.view(np.uint8).data, line.itemsize
    yield b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
    for start in range(0, n, _LINES):
        parts: list[Any] = []
        for i in range(start, min(start + _LINES, n)):
            text = documents[i].encode()
            parts += (whole[i * size : (i + 1) * size], struct.pack(">i", len(text)), text)
        yield b"".join(parts)
    yield b"\xff\xff"
