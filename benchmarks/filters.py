"""Measure filtered searches of a `sealed` collection beside unfiltered ones.

Usage: python -m benchmarks.filters [--n 100000] [--dim 384] [--quick]

Filters on sealed metadata let a share of the records pass: 50% to .01%, drawn by chance (`random`), or those least or
most like the queries (`far`, `near`). Every variant is asked every query in turn, on one thread. The first filter loads
the columns and is timed apart. Recall is that of whole searches, against a comparison of all vectors that pass.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.datasets import Floats, load
from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store import Collection, connect
from encvec_store.lab.bench.job import throwaway_keys
from encvec_store.lab.bench.timing import interleave

K, RECALL, SLOWER = 10, 0.99, 2.0
SHARES = (0.5, 0.1, 0.01, 0.001, 0.0001)
QUERIES, BATCH, QUICK = 200, 10_000, (3_000, 64)
Where = dict[str, Any] | None
Mask = npt.NDArray[np.bool_]


def filters(vectors: Floats, queries: Floats) -> tuple[list[dict[str, Any]], dict[str, tuple[Where, Mask]]]:
    """Return the metadata of all records, and by name a filter and the records that pass it."""
    n = len(vectors)
    chance = np.random.default_rng(0).random(n)
    near = np.argsort(np.argsort(vectors @ queries.mean(axis=0))) / n  # 0 is the least like the queries
    metadata = [{"random": float(a), "near": float(b)} for a, b in zip(chance, near, strict=True)]
    found: dict[str, tuple[Where, Mask]] = {"no filter": (None, np.ones(n, np.bool_))}
    for share in SHARES:
        found[f"random {share:.2%}"] = {"random": {"lt": share}}, chance < share
        found[f"far {share:.2%}"] = {"near": {"lt": share}}, near < share
        found[f"near {share:.2%}"] = {"near": {"gte": 1 - share}}, near >= 1 - share
    return metadata, {name: (where, passing) for name, (where, passing) in found.items() if passing.any()}


def recall(vectors: Floats, queries: Floats, passing: Mask, answers: list[Any]) -> float:
    """Return the share of the nearest records that pass which are in the answers."""
    rows = np.flatnonzero(passing)
    k = min(K, len(rows))
    scores = queries @ vectors[rows].T
    found = [
        len({int(hit.id) for hit in hits} & set(rows[np.argpartition(-some, k - 1)[:k]].tolist())) / k
        for hits, some in zip(answers, scores, strict=True)
    ]
    return float(np.mean(found))


def measured(n: int, dim: int, show: Show) -> list[Row]:
    """Fill a collection, and search it with every filter."""
    data = load(f"synthetic:{n}x{dim}")
    queries = data.queries[:QUERIES]
    metadata, wanted = filters(data.vectors, queries)
    common: Row = {"bench": "filters", "dataset": data.name, "n": n, "d": dim, "k": K, "scheme": "sealed", "threads": 1}
    with (
        throwaway_keys() as keys,
        tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder,
        connect(f"faiss:{folder}/store", keyset=keys, maintenance="manual") as store,
    ):
        things = store.collection("bench", dim, data.metric, "sealed")
        with show.stage("records", n) as done:
            for start in range(0, n, BATCH):
                part = slice(start, min(start + BATCH, n))
                things.upsert([str(i) for i in range(n)[part]], data.vectors[part], metadata[part])
                done(part.stop - start)
        with show.stage("index", 1):
            things.maintain()
        things.search(queries[0], K)
        began = time.perf_counter()
        things.search(queries[0], K, where={"random": {"lt": 0.5}})
        first = time.perf_counter() - began
        variants = {name: _search(things, where) for name, (where, _) in wanted.items()}
        with show.stage("searching", len(queries)) as done:
            timed = interleave(variants, queries, progress=done)
    base = timed["no filter"].row()["p50_ms"]
    rows: list[Row] = [{**common, "what": "first filter", "open_s": first}]
    for name, times in timed.items():
        row, passing = times.row(), wanted[name][1]
        found = recall(data.vectors, queries, passing, times.answers)
        more = {"records": int(passing.sum()), "p50_ratio": row["p50_ms"] / base, "recall@10": found}
        rows.append({**common, "what": name, **row, **more})
    return rows


def _search(things: Collection, where: Where) -> Callable[[Floats], Any]:
    return lambda query: things.search(query, K, where=where)


def run(sizes: tuple[int, ...], dim: int, show: Show) -> tuple[list[Row], list[Target]]:
    """Measure collections of these sizes."""
    rows: list[Row] = []
    targets: list[Target] = []
    for n in sizes:
        found = measured(n, dim, show)
        show.table(f"{n:,} x {dim}", found, ["what", "open_s", "p50_ms", "p99_ms", "p50_ratio", "recall@10"])
        filtered = found[2:]
        slowest = max(filtered, key=lambda row: row["p50_ratio"])
        targets += [
            Target(f"{n:,} x {dim}: p50 over unfiltered, {slowest['what']}", slowest["p50_ratio"], "<=", SLOWER),
            Target(f"{n:,} x {dim}: least recall@10", min(row["recall@10"] for row in filtered), ">=", RECALL),
        ]
        rows += found
    return rows, targets


@click.command()
@click.option("--n", "sizes", type=click.IntRange(1_000), multiple=True, help="Records; repeatable.  [default: 100000]")
@click.option("--dim", type=click.IntRange(2), default=384, show_default=True)
@options
def main(sizes: tuple[int, ...], dim: int, quick: bool, as_json: bool, out: str | None) -> None:
    """Measure filtered searches."""
    chosen, width = ((QUICK[0],), QUICK[1]) if quick else (sizes or (100_000,), dim)
    publish("filters", lambda show: run(chosen, width, show), quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.filters")
    main()
