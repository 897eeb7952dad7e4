"""Measure which rows of a `sealed` collection a search reads, and what that costs.

Usage: python -m benchmarks.reads [--n 100000] [--dim 384] [--quick]

`candidates` reads the candidates of a query, `hits` only what it returns: the index then keeps vectors in half
precision in memory. Each is opened once, cold, and asked the same queries in turn, on one thread; every hit comes with
its document. Recall is that of whole searches, against a comparison of all vectors.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from benchmarks.datasets import Floats, load
from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store import Collection, Keyset, Store, connect
from encvec_store.lab.bench.job import throwaway_keys
from encvec_store.lab.bench.postgres import database
from encvec_store.lab.bench.timing import interleave

K, RECALL, SLOWER = 10, 0.99, 1.0
QUERIES, BATCH, QUICK = 500, 10_000, (6_000, 64)
READS = ("candidates", "hits")
COLUMNS = ["what", "open_s", "p50_ms", "p99_ms", "recall@10", "index_mb", "half_mb", "stored_mb"]


def filled(store: Store, vectors: Floats, metric: str, show: Show) -> None:
    """Put records with documents into a collection, and build its index."""
    n, dim = vectors.shape
    things = store.collection("bench", dim, metric, "sealed")
    with show.stage("records", n) as done:
        for start in range(0, n, BATCH):
            ids = [str(i) for i in range(start, min(start + BATCH, n))]
            things.upsert(ids, vectors[start : start + BATCH], documents=[f"the text of record {name}" for name in ids])
            done(len(ids))
    with show.stage("index", 1):
        things.maintain()


def recall(vectors: Floats, queries: Floats, answers: list[Any]) -> float:
    """Return the share of the nearest records that are in the answers."""
    nearest = np.argpartition(-(queries @ vectors.T), K - 1)[:, :K]
    shares = [
        len({int(hit.id) for hit in hits} & set(some.tolist())) / K for hits, some in zip(answers, nearest, strict=True)
    ]
    return float(np.mean(shares))


def measured(place: str, url: str, keys: Keyset, n: int, dim: int, show: Show) -> list[Row]:
    """Open one collection with each dial, and ask both."""
    data = load(f"synthetic:{n}x{dim}")
    vectors, queries = data.vectors, data.queries[:QUERIES]
    with connect(url, keyset=keys, maintenance="manual") as store:
        filled(store, vectors, data.metric, show)
    opening = {}
    for reads in READS:
        gc.collect()  # indexes are shared while somebody holds them
        began = time.perf_counter()
        with connect(url, keyset=keys, maintenance="manual", reads=reads) as store:
            store.collection("bench").search(queries[0], K)
            opening[reads] = time.perf_counter() - began
    stores = {reads: connect(url, keyset=keys, maintenance="manual", reads=reads) for reads in READS}
    try:
        opened = {reads: store.collection("bench") for reads, store in stores.items()}
        again = {f"{name}, again": things for name, things in opened.items() if name == "hits"}
        with show.stage("searching", len(queries)) as done:
            timed = interleave(_searches(opened), queries, progress=done)
        with show.stage("searching again", len(queries)) as done:
            timed |= interleave(_searches(again), queries, progress=done)
        about = {reads: things.stats() for reads, things in opened.items()}
    finally:
        for store in stores.values():
            store.close()
    rows: list[Row] = []
    for name, times in timed.items():
        reads = name.partition(",")[0]
        index, row = about[reads]["sealed_index"], times.row()
        half = index["half_bytes"] if reads == "hits" else 0
        rows.append(
            {
                **{"bench": "reads", "dataset": data.name, "n": n, "d": dim, "k": K, "scheme": "sealed", "threads": 1},
                "what": f"{place} {name}",
                "open_s": opening[reads] if name == reads else None,
                **row,
                "recall@10": recall(vectors, queries, times.answers),
                "index_mb": (index["memory_bytes"] - index["half_bytes"] + half) / 1e6,
                "half_mb": half / 1e6,
                "stored_mb": index["stored_bytes"] / 1e6,
            }
        )
    return rows


def _searches(opened: dict[str, Collection]) -> dict[str, Callable[[Floats], Any]]:
    def search(things: Collection) -> Callable[[Floats], Any]:
        return lambda query: things.search(query, K)

    return {name: search(things) for name, things in opened.items()}


def run(n: int, dim: int, show: Show) -> tuple[list[Row], list[Target]]:
    """Measure both dials in files and on PostgreSQL."""
    with throwaway_keys() as keys, tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder:
        rows = measured("faiss:", f"faiss:{folder}/store", keys, n, dim, show)
        with database() as scratch:
            rows += measured("postgresql:", scratch.url, keys, n, dim, show)
    show.table(f"{n:,} x {dim}", rows, COLUMNS)
    targets = []
    for place in ("faiss:", "postgresql:"):
        candidates, hits = [row for row in rows if row["what"] in (f"{place} candidates", f"{place} hits")]
        ratio = hits["p50_ms"] / candidates["p50_ms"]
        targets += [
            Target(f"{place} p50 of hits over that of candidates", ratio, "<=", SLOWER),
            Target(f"{place} recall@10 of hits", hits["recall@10"], ">=", RECALL),
        ]
    return rows, targets


@click.command()
@click.option("--n", type=click.IntRange(1_000), default=100_000, show_default=True, help="Records.")
@click.option("--dim", type=click.IntRange(2), default=384, show_default=True)
@options
def main(n: int, dim: int, quick: bool, as_json: bool, out: str | None) -> None:
    """Measure what the dial `reads` costs."""
    size, width = QUICK if quick else (n, dim)
    publish("reads", lambda show: run(size, width, show), quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.reads")
    main()
