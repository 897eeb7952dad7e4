"""Many small tenants in one process, and forked workers over one index: time, memory, and what the system lends.

    python -m benchmarks.open_tenants [--tenants 300 3000] [--postgres] [--forks 100000x384]

Each tenant has a sealed collection of 200 records of 384 coordinates. Another process writes them. Then each is
opened and searched, once cold and once warm, and what the process takes is noted along the way. Memory is what no
file backs. The last part loads one index, forks eight workers that search, and adds up what each adds (Pss).
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import psycopg

import encvec_store as ev
from encvec_store.localpg import LocalServer

RECORDS, DIM, WORKERS = 200, 384, 8
LIMIT = 64 << 20
HEADS = ["tenants", "cold ms: p50", "p99", "cold CPU ms", "warm ms", "kB each, open", "MB in all"]
HEADS += ["threads", "descriptors", "connections", "MB of backends"]


def memory(pid: str = "self") -> int:
    """Return the bytes of a process that no file backs."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def pss(pid: int) -> int:
    """Return the bytes of a process without files, where a page shared by n processes counts 1/n."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(rollup.split("Pss_Anon:")[1].split()[0])


def apart(work: Callable[[], None]) -> None:
    """Do some work in a process that ends then."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the process failed")


def backends(dsn: str | None) -> tuple[int, int]:
    """Return the number of connections to the database, and the bytes of their processes that no file backs."""
    if dsn is None:
        return 0, 0
    with psycopg.connect(dsn) as connection:
        sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        pids = [pid for (pid,) in connection.execute(sql).fetchall()]
    return len(pids), sum(memory(str(pid)) for pid in pids)


def written(url: str, keyset: ev.Keyset, tenants: int) -> None:
    """Write the tenants, and print how long it takes."""
    vectors = np.random.default_rng(0).standard_normal((RECORDS, DIM)).astype(np.float32)
    ids, documents = list(map(str, range(RECORDS))), ["a sentence of some words " * 4] * RECORDS
    begun = time.perf_counter()
    with ev.connect(url, keyset=keyset, maintenance="manual") as store:
        for n in range(tenants):
            store.collection("docs", DIM, scheme="sealed", tenant=f"t{n}").upsert(ids, vectors, None, documents)
    print(f"\n{1e3 * (time.perf_counter() - begun) / tenants:.1f} ms a tenant to create and fill", flush=True)


def searched(url: str, keyset: ev.Keyset, tenants: int, limit: int, dsn: str | None) -> list[str]:
    """Open and search all tenants; return a row of the table."""
    queries = np.random.default_rng(0).standard_normal((RECORDS, DIM)).astype(np.float32)
    cold, processor, warm = list[float](), list[float](), list[float]()
    with ev.connect(url, keyset=keyset, maintenance="manual", index_memory=limit) as store:
        for n in range(min(20, tenants // 3)):
            store.collection("docs", tenant=f"t{n}").search(queries[0], 3)
        gc.collect()
        before, threads, files = memory(), threading.active_count(), len(os.listdir("/proc/self/fd"))
        connections, lent = backends(dsn)
        held = [store.collection("docs", tenant=f"t{n}") for n in range(tenants // 2)]
        opened = (memory() - before) / len(held)
        del held
        for n in range(tenants // 2, tenants):
            begun, used = time.perf_counter(), time.process_time()
            (first, *_) = store.collection("docs", tenant=f"t{n}").search(queries[n % RECORDS], 3)
            cold.append(1e3 * (time.perf_counter() - begun))
            processor.append(1e3 * (time.process_time() - used))
            assert first.id == str(n % RECORDS)
            begun = time.perf_counter()
            store.collection("docs", tenant=f"t{n}").search(queries[0], 3)
            warm.append(1e3 * (time.perf_counter() - begun))
        gc.collect()
        more = memory() - before
        now, then = backends(dsn)
        counts = [threading.active_count() - threads, len(os.listdir("/proc/self/fd")) - files, now - connections]
    figures = [*np.quantile(cold, [0.5, 0.99]), np.median(processor), np.median(warm)]
    sizes = [opened / 1e3, more / 1e6]
    row = [f"{tenants:,}", *(f"{value:.1f}" for value in [*figures, *sizes])]
    return [*row, *(f"{count:+d}" for count in counts), f"{(then - lent) / 1e6:+.1f}"]


def show(url: str, keyset: ev.Keyset, tenants: int, limit: int, dsn: str | None) -> None:
    """Print a row of the table."""
    print("| " + " | ".join(searched(url, keyset, tenants, limit, dsn)) + " |", flush=True)


def tables(dsn: str) -> None:
    """Print what the catalog holds."""
    with psycopg.connect(dsn) as connection:
        (count,) = connection.execute("SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'i', 't')").fetchone() or ()
        sizes = connection.execute("SELECT pg_database_size(current_database()), pg_relation_size('pg_attribute')")
        (whole, attributes) = sizes.fetchone() or ()
    print(
        f"\n{count:,} tables and indexes in the catalog, pg_attribute {attributes / 1e6:,.0f} MB of {whole / 1e6:,.0f}"
    )


def forked(folder: str, records: int, dim: int) -> None:
    """Load one index, fork workers that search, and print the memory of all beside that of one."""
    keyset = ev.Keyset.create("memory:")
    rng = np.random.default_rng(1)

    def write() -> None:
        with ev.connect(f"faiss:{folder}?index=hnsw", keyset=keyset, maintenance="manual") as store:
            things = store.collection("docs", dim, scheme="sealed")
            for start in range(0, records, 10_000):
                count = min(10_000, records - start)
                part = np.random.default_rng(start).standard_normal((count, dim)).astype(np.float32)
                things.upsert([str(n) for n in range(start, start + count)], part)
            things.maintain()

    apart(write)
    queries = rng.standard_normal((200, dim)).astype(np.float32)
    with ev.connect(f"faiss:{folder}?index=hnsw", keyset=keyset, maintenance="manual") as store:
        empty, things = pss(os.getpid()), store.collection("docs")
        for query in queries:
            things.search(query)
        gc.collect()
        alone = pss(os.getpid())
        index = things.stats()["sealed_index"]["memory_bytes"]
        reading, writing = os.pipe()
        ends = os.pipe()
        children = []
        for _ in range(WORKERS):
            child = os.fork()
            if not child:
                for query in queries:
                    things.search(query)
                os.write(writing, b".")
                os.read(ends[0], 1)
                os._exit(0)
            children.append(child)
        for _ in children:
            os.read(reading, 1)
        together = sum(map(pss, [os.getpid(), *children]))
        os.write(ends[1], b"." * WORKERS)
        for child in children:
            os.waitpid(child, 0)
    print(
        f"\n{records:,} x {dim}: index {index / 1e6:,.1f} MB; one process {alone / 1e6:,.1f} MB"
        f" ({empty / 1e6:,.1f} before it was loaded); it and {WORKERS} forked workers {together / 1e6:,.1f} MB,"
        f" {together / alone:.2f} times as much",
        flush=True,
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, nargs="*", default=[300, 3_000])
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--forks", nargs="*", default=[], metavar="RECORDSxDIM")
    parser.add_argument("--folder", help="where files are made, such as /dev/shm")
    given = parser.parse_args()
    for tenants in given.tenants:
        keyset = ev.Keyset.create("memory:")
        with ExitStack() as stack:
            dsn = None
            url = f"faiss:{stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder))}"
            if given.postgres:
                server = stack.enter_context(LocalServer())
                server.ensure_database("crowd")
                url = dsn = server.dsn("crowd")
            apart(partial(written, url, keyset, tenants))
            for limit in (16 << 30, LIMIT):
                print(f"\nindex_memory {limit >> 20:,} MB\n\n| " + " | ".join(HEADS) + " |\n|" + "---|" * len(HEADS))

                apart(partial(show, url, keyset, tenants, limit, dsn))
            if dsn is not None:
                tables(dsn)
    for size in given.forks:
        records, dim = map(int, size.split("x"))
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            forked(folder, records, dim)


if __name__ == "__main__":
    main()
