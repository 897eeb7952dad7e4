"""Compare cells with one rotation for all records, and with plaintext, as a collection grows.

Usage: python -m benchmarks.cells [--quick] [--large]

Synthetic vectors like those of texts, 100,000 x 128 (--large: also 1,000,000 x 128), in the `faiss:` store:

    plaintext      FAISS HNSW, float32, at the cheapest efSearch with recall@10 >= .99
    one rotation   `sketch` with {"cells": 1}: no limit of records under a key
    cells          the default: the collection spreads over more cells by itself while it is filled, in batches

Recall is that of whole searches, re-ranked and opened. Each query goes to all variants in turn, on one thread.
`build s` includes encrypting, writing, every move to more cells, and the index.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from benchmarks.datasets import Floats, load
from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store import connect
from encvec_store.data import metric
from encvec_store.indexes.faiss import FaissOptions
from encvec_store.lab.bench.encrypted import Encrypted, fill
from encvec_store.lab.bench.job import throwaway_keys
from encvec_store.lab.bench.plain import Plain
from encvec_store.lab.bench.timing import interleave
from encvec_store.lab.bench.truth import Truth
from encvec_store.schemes import BUDGET

DATA, LARGE, QUICK = "synthetic:100000x128", "synthetic:1000000x128", "synthetic:6000x128"
K, RECALL, SLOWER = 10, 0.99, 10.0
EFS = (10, 16, 24, 32, 48, 64, 100, 128, 192, 256, 384, 512, 768)
SCHEMES: dict[str, Any] = {"one rotation": {"name": "sketch", "cells": 1}, "cells": "sketch"}


def contest(name: str, show: Show) -> list[Row]:
    """Fill the variants with a data set, and search them."""
    data = load(name)
    n, measure = len(data.vectors), metric(data.metric)
    queries = data.queries[:200]
    common: Row = {"bench": "cells", "dataset": data.name, "n": n, "d": data.dim}
    with show.stage("exact neighbours", 1):
        truth = Truth(measure, data.vectors, queries, K)
    with show.stage("plaintext HNSW", 1):
        plain = Plain(measure, data.vectors, FaissOptions(index="hnsw", storage="float32"))
    for ef in EFS:
        plain.set_ef(ef)
        if truth.recall([plain.search(query, K) for query in queries], K) >= RECALL:
            break
    variants: dict[str, Callable[[Floats], Any]] = {"plaintext": lambda query: plain.search(query, K)}
    built: dict[str, Row] = {"plaintext": {"build_s": plain.build_s, "ef_search": ef}}
    held: dict[str, Encrypted] = {}
    with throwaway_keys() as keys, tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder, ExitStack() as stack:
        for what, scheme in SCHEMES.items():
            if n <= BUDGET and what == "cells":
                scheme = {"name": "sketch", "cells": 4}  # so few records get no cells by themselves
            store = stack.enter_context(
                connect(f"faiss:{Path(folder) / what.replace(' ', '-')}", keyset=keys, maintenance="inline")
            )
            collection = store.collection("bench", data.dim, data.metric, scheme)
            with show.stage(f"{what}: records", n) as done:
                written = fill(collection, data.vectors, done)
            ours = held[what] = Encrypted(store, collection)
            with show.stage(f"{what}: index", 1):
                indexed = ours.build()
            stats = ours.stats()
            built[what] = {
                "build_s": written + indexed,
                "per_s": n / written,
                "cells": (stats["cells"] or {}).get("count"),
                "candidates": K * stats["oversample"],
                "index_mb": stats["store"]["bytes"].get("index", 0) / 1e6,
            }
            variants[what] = lambda query, ours=ours: ours.search(query, K)  # type: ignore[misc]
            variants[f"{what}, index alone"] = lambda query, ours=ours, at=built[what]: ours.candidates(  # type: ignore[misc]
                query, at["candidates"]
            )
        with show.stage("searching", len(queries)) as done:
            timed = interleave(variants, queries, progress=done)
        rows = []
        for what, measured in timed.items():
            owner = held.get(what.partition(",")[0])
            answers = owner.places(measured.answers) if owner else measured.answers
            recalls = {} if "alone" in what else {f"recall@{k}": truth.recall(answers, k) for k in (1, 10)}
            cpu = {"cpu_ms": processor(variants[what], queries)}
            rows.append({**common, "what": what, **built.get(what, {}), **measured.row(), **cpu, **recalls})
    base, least = rows[0]["p50_ms"], rows[0]["cpu_ms"]
    return [{**row, "p50_ratio": row["p50_ms"] / base, "cpu_ratio": row["cpu_ms"] / least} for row in rows]


def processor(search: Callable[[Floats], Any], queries: Floats) -> float:
    """Return milliseconds of processor time per query: a busy machine hardly changes them."""
    start = time.process_time()
    for query in queries:
        search(query)
    return 1e3 * (time.process_time() - start) / len(queries)


def run(quick: bool, large: bool, show: Show) -> tuple[list[Row], list[Target]]:
    """Measure the data sets."""
    rows: list[Row] = []
    for name in (QUICK,) if quick else (DATA, LARGE) if large else (DATA,):
        found = contest(name, show)
        shown = [{key: row[key] for key in row if key not in ("bench", "dataset", "n", "d")} for row in found]
        show.table(f"{name}: cells", shown)
        rows += found
    cells = next(row for row in rows if row["what"] == "cells" and row["n"] == rows[-1]["n"])
    size = f"{cells['n']:,} x {cells['d']}"
    return rows, [
        Target(f"search in cells, {size}: p50 over plaintext HNSW's", cells["p50_ratio"], "<=", SLOWER),
        Target(f"search in cells, {size}: recall@10", cells["recall@10"], ">=", RECALL),
    ]


@click.command()
@click.option("--large", is_flag=True, help="A million records as well: half an hour, and 8 GB of memory.")
@options
def main(quick: bool, large: bool, as_json: bool, out: str | None) -> None:
    """Measure cells."""
    publish("cells", lambda show: run(quick, large, show), quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.cells")
    main()
