"""Lists on demand: searches whose codes lie in the store, with all, half and none of the blocks open in memory.

    python -m benchmarks.ondemand [--n 100000] [--dim 128] [--data NAME] [--files] [--pgvector] [--queries 200]

A sealed collection is built with `index=lists`, closed, and opened again. Each search returns 10 hits with documents.
With --pgvector, plaintext halfvec under HNSW of pgvector is searched on the same server, in the same run, with the
least ef_search of a few that finds .99 of the ten nearest. Memory of the process is what no file backs. --data names
real vectors, as in `benchmarks.corpora`; several are joined by "+". All are compared by cosine.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

import encvec_store as ev
from benchmarks.corpora import find
from encvec_store.lab.bench.synthetic import clustered
from encvec_store.localpg import LocalServer

K, PORTION = 10, 20_000
EFS = (40, 80, 160, 320)


def memory() -> float:
    """Return the megabytes of this process that no file backs."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def nearest(records: Any, queries: Any) -> list[set[int]]:
    """Return the positions of the ten records nearest to each query, by cosine."""
    unit = records / np.linalg.norm(records, axis=1, keepdims=True)
    best = [np.argpartition(unit @ -query, K)[:K] for query in queries]
    return [set(map(int, each)) for each in best]


def timed(search: Callable[[Any], list[str]], queries: Any, truth: list[set[int]]) -> tuple[float, float, float]:
    """Return p50 and p99 in milliseconds, and recall@10."""
    times, right = [], 0
    for query, best in zip(queries, truth, strict=True):
        begun = time.perf_counter()
        found = search(query)
        times.append(1e3 * (time.perf_counter() - begun))
        right += len(set(map(int, found)) & best)
    return float(np.median(times)), float(np.quantile(times, 0.99)), right / K / len(truth)


def row(*cells: Any) -> None:
    """Print a row of the table."""
    print("| " + " | ".join(f"{cell:,.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |")


def ours(url: str, args: argparse.Namespace, records: Any, queries: Any, truth: list[set[int]]) -> None:
    """Build, search, and print."""
    keyset, lines = ev.Keyset.create("memory:"), ""
    options: dict[str, Any] = {"index": "lists", "maintenance": "manual", "index_memory": args.memory << 20}
    begun = time.perf_counter()
    if not (child := os.fork()):
        with ev.connect(url, keyset=keyset, **options) as store:
            things = store.collection("docs", args.dim, scheme="sealed")
            for start in range(0, len(records), PORTION):
                part = records[start : start + PORTION]
                ids = [str(start + i) for i in range(len(part))]
                things.upsert(ids, part, None, [f"document {id}" for id in ids])
            written, before = time.perf_counter() - begun, memory()
            things.maintain()
            print(f"wrote in {written:.0f} s, built in {time.perf_counter() - begun - written:.0f} s;", end=" ")
            print(f"{before:,.0f} MB before, {memory():,.0f} MB after", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    gc.collect()
    half = 0
    print(
        "\n| blocks open | first s | p50 ms | p99 ms | recall@10 | blocks a query | found | MB fetched a query | MB |"
    )
    print("|" + "---|" * 9)
    for name in ("none", "all", "half"):
        limit = {"none": 1, "half": half, "all": args.memory << 20}[name]
        with ev.connect(url, keyset=keyset, **options | {"index_memory": limit}) as store:
            before, begun = memory(), time.perf_counter()
            things = store.collection("docs")
            things.search(queries[0], K)
            first = time.perf_counter() - begun

            def search(query: Any, things: ev.Collection = things) -> list[str]:
                return [str(hit.id) for hit in things.search(query, K)]

            timed(search, queries, truth)  # blocks are fetched that stay
            was = things.stats()["sealed_index"]["blocks"]
            figures = timed(search, queries, truth)
            told = things.stats()["sealed_index"]
            found, fetched, size = (told["blocks"][each] - was[each] for each in ("found", "fetched", "fetched_bytes"))
            read = found + fetched
            share, size = found / max(read, 1), size / len(truth) / 1e6
            row(name, first, *figures, read / len(truth), share, size, memory() - before)
            if name == "all":
                half = told["memory_bytes"] - was["bytes"] // 2
                lines = things.explain(queries[0])
        del things, search
        gc.collect()
    print(f"\n{lines}", flush=True)


def plaintext(dsn: str, args: argparse.Namespace, records: Any, queries: Any, truth: list[set[int]]) -> None:
    """Search plaintext pgvector, and print."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(f"CREATE TABLE plain (id int, document text, v halfvec({args.dim}))")
        with connection.cursor().copy("COPY plain FROM STDIN") as copy:
            for i, record in enumerate(records):
                copy.write_row((i, f"document {i}", "[" + ",".join(f"{x:.5g}" for x in record) + "]"))
        connection.execute("SET maintenance_work_mem = '1GB'")
        begun = time.perf_counter()
        connection.execute("CREATE INDEX ON plain USING hnsw (v halfvec_cosine_ops)")
        print(
            f"\npgvector: built in {time.perf_counter() - begun:.0f} s\n\n| ef_search | p50 ms | p99 ms | recall@10 |"
        )
        print("|---|---|---|---|")
        cursor = connection.cursor(binary=True)

        def search(query: Any) -> list[str]:
            text = "[" + ",".join(map(str, query.tolist())) + "]"
            sql = "SELECT id, document FROM plain ORDER BY v <=> %s::halfvec LIMIT %s"
            return [str(id) for id, _ in cursor.execute(sql, (text, K), prepare=True).fetchall()]

        for ef in EFS:
            connection.execute(f"SET hnsw.ef_search = {ef}")
            timed(search, queries[:50], truth[:50])
            figures = timed(search, queries, truth)
            row(ef, *figures)
            if figures[2] >= 0.99:
                break


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000, help="records")
    parser.add_argument("--dim", type=int, default=128, help="coordinates")
    parser.add_argument("--data", help="real vectors in place of clustered ones")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--memory", type=int, default=1024, help="index_memory, in MiB")
    parser.add_argument("--files", action="store_true", help="a faiss: store; else PostgreSQL")
    parser.add_argument("--pgvector", action="store_true", help="beside plaintext pgvector")
    args = parser.parse_args()
    named = [find(name) for name in (args.data or "").split("+") if name]
    data = named or [clustered(args.n, args.dim, queries=args.queries)]
    records = np.concatenate([part for each in data for _, part in each.vectors.slices()])
    queries = np.concatenate([each.queries[: args.queries // len(data)] for each in data])
    args.dim = records.shape[1]
    print(f"{len(records):,} x {args.dim}")
    truth = nearest(records, queries)
    with ExitStack() as stack:
        if args.files:
            ours(f"faiss:{stack.enter_context(tempfile.TemporaryDirectory())}", args, records, queries, truth)
            return
        server = stack.enter_context(LocalServer())
        server.ensure_database("ondemand")
        dsn = server.dsn("ondemand")
        ours(dsn, args, records, queries, truth)
        if args.pgvector:
            plaintext(dsn, args, records, queries, truth)


if __name__ == "__main__":
    main()
