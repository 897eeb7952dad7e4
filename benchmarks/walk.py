"""Measure where the time of one search in the `faiss:` store goes.

Usage: python -m benchmarks.walk [--quick]

It times the parts inside whole searches: HNSW at efSearch 100, `sap` at beta 2, 100 candidates re-ranked for ten hits,
on synthetic vectors like text embeddings.

    query      lift and encrypt the query: at 768 dimensions this reads a matrix of 2.4 MB
    index      find the candidates, in FAISS
    fetch      read their sealed vectors from mapped files
    open       open them by AES-GCM, one call per vector
    score      compute exact scores under the metric
    payloads   read the payloads of the hits from SQLite, and open them
    store      the rest of the search: checks, locks, hits

Re-rank is fetch, open and score. A part is slower here than alone, because the other parts fill the caches.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import click
import numpy as np

from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store import Keyset, connect
from encvec_store.engine import Session
from encvec_store.engine import search as walk
from encvec_store.engine.candidates import EncryptedIndex
from encvec_store.indexes.faiss import AnnIndex
from encvec_store.indexes.faiss import index as faiss_index
from encvec_store.lab.bench.encrypted import Encrypted, fill
from encvec_store.lab.bench.synthetic import clustered

DIMS = (384, 768)
N, QUERIES, ROUNDS, BETA, K, CANDIDATES, EF = 20_000, 500, 3, 2.0, 10, 100, 100
PARTS: tuple[tuple[str, object, str], ...] = (
    ("query", EncryptedIndex, "ask"),
    ("index", AnnIndex, "search"),
    ("fetch", faiss_index, "mapped"),
    ("open", Session, "_open"),
    ("score", walk, "best"),
    ("payloads", Session, "open_payloads"),
)
RERANK = ("fetch", "open", "score")


@contextmanager
def timed(spent: dict[str, float]) -> Iterator[None]:
    """Add up the seconds of every part. No part calls another."""

    def timing(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - start

        return timed_call

    with ExitStack() as patches:
        for name, owner, method in PARTS:
            patches.enter_context(patch.object(owner, method, timing(name, getattr(owner, method))))
        yield


def parts(dim: int, n: int, rounds: int, show: Show) -> list[Row]:
    """Time the parts at one dimension, and the whole search without timing its parts; returns one row each."""
    data = clustered(n, dim, queries=QUERIES)
    taken: dict[str, list[float]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder,
        connect(f"faiss:{folder}", keyset=Keyset.create("memory:"), index="hnsw", flat_limit=0, ef_search=EF) as store,
    ):
        collection = store.collection("bench", dim, scheme={"name": "sap", "beta": BETA}, oversample=CANDIDATES // K)
        fill(collection, data.vectors)
        Encrypted(store, collection).build()
        for query in data.queries[:100]:
            collection.search(query, k=K)
        with show.stage(f"d={dim}", rounds * len(data.queries)) as done:
            for _ in range(rounds):
                for query in data.queries:
                    start = time.perf_counter()
                    collection.search(query, k=K)
                    taken["whole"].append(time.perf_counter() - start)
                spent: dict[str, float] = defaultdict(float)
                with timed(spent):
                    for query in data.queries:
                        spent.clear()
                        start = time.perf_counter()
                        collection.search(query, k=K)
                        whole = time.perf_counter() - start
                        for name, seconds in spent.items():
                            taken[name].append(seconds)
                        taken["re-rank"].append(sum(spent[name] for name in RERANK))
                        taken["store"].append(whole - sum(spent.values()))
                done(len(data.queries))
    order = [name for name, _, _ in PARTS] + ["store", "re-rank", "whole"]
    common = {"bench": "walk", "n": n, "d": dim, "index": "hnsw", "ef_search": EF, "candidates": CANDIDATES}
    return [{**common, "what": name, "p50_ms": 1e3 * float(np.median(taken[name]))} for name in order]


def run(quick: bool, show: Show) -> tuple[list[Row], list[Target]]:
    """Time every dimension."""
    rows: list[Row] = []
    for dim in DIMS:
        rows += parts(dim, 1_000 if quick else N, 1 if quick else ROUNDS, show)
    show.table("Where the time of a search goes", [{key: row[key] for key in ("what", "d", "p50_ms")} for row in rows])
    took = {row["what"]: row["p50_ms"] for row in rows if row["d"] == DIMS[-1]}
    return rows, [
        Target(f"re-rank of {CANDIDATES} at d={DIMS[-1]}, ms", took["re-rank"], "<=", 0.3),
        Target(f"the store's own Python at k={K}, d={DIMS[-1]}, ms", took["store"], "<=", 0.1),
    ]


@click.command()
@options
def main(quick: bool, as_json: bool, out: str | None) -> None:
    """Measure the parts of a search."""
    publish("walk", lambda show: run(quick, show), quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.walk")
    main()
