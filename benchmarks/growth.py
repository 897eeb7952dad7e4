"""Measure how time and memory grow with the number of records, and write results/growth/.

Usage: python -m benchmarks.growth [--n 1000 ... 1000000] [--dim 128] [--scheme sap] [--oversample 10 ...] [--json]
       python -m benchmarks.growth --n 10000000 --dim 96 --index ivf --storage pq --effort 64 --effort 256

For every size it runs `encvec bench`: plaintext FAISS and the `faiss:` store side by side, on clustered vectors. They
are generated while they are read, so no process ever holds all data. A separate process only ingests, to measure what
that takes. A stopped run continues with the size that it had reached.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from benchmarks.report import RESULTS, Show, one_thread
from encvec_store import Keyset, connect
from encvec_store.indexes.faiss import INDEX_KINDS, STORAGES
from encvec_store.lab.bench import BenchJob, Measured, measure
from encvec_store.lab.bench.child import resident
from encvec_store.lab.bench.encrypted import fill
from encvec_store.lab.bench.results import Results, key_of
from encvec_store.lab.bench.synthetic import clustered

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
QUERIES = 300


def job(n: int, dim: int, scheme: dict[str, Any], how: Mapping[str, Any]) -> BenchJob:
    """Describe what to measure at one size. By default the store chooses the index and the effort."""
    return BenchJob(clustered(n, dim, queries=QUERIES), schemes=(scheme,), passes=2, rounds=0, **how)


def ingest(n: int, dim: int, scheme: dict[str, Any]) -> dict[str, Any]:
    """Ingest in a separate process. Returns its peak memory in MiB, that of the libraries alone, and its rate."""
    told = json.dumps([n, dim, scheme])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", "--ingest", told], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ingest_here(told: str) -> None:
    """Ingest, in that process."""
    n, dim, scheme = json.loads(told)
    library, _ = resident()
    with tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder:
        store = connect(f"faiss:{folder}", keyset=Keyset.create("memory:"), maintenance="inline")
        collection = store.collection("grown", dim, scheme=scheme)
        took = fill(collection, clustered(n, dim, queries=QUERIES).vectors)
        peak, _ = resident()
        print(json.dumps({"ingest_peak_mb": peak, "ingest_library_mb": library, "ingest_alone_per_s": n / took}))
        store.close()


def one(n: int, dim: int, scheme: dict[str, Any], how: Mapping[str, Any], show: Show) -> list[Measured]:
    """Measure one size."""
    found = measure(job(n, dim, scheme, how), lambda text, steps: show.stage(f"{n:,}: {text}", steps))
    alone = ingest(n, dim, scheme)
    for measured in found:
        if measured.row["scheme"] != "plaintext":
            measured.row.update(alone)
    return found


@click.command()
@click.option("--n", "sizes", type=int, multiple=True, help="Number of records; repeat for more.")
@click.option("--dim", type=int, default=128, show_default=True)
@click.option("--scheme", default="sap", show_default=True)
@click.option("--beta", type=float, help="Noise.  [default: 2 under sap, the floor of sketch]")
@click.option(
    "--oversample",
    "oversamples",
    type=int,
    multiple=True,
    help="Candidates per hit; repeat for more.",
)
@click.option("--index", type=click.Choice(INDEX_KINDS), help="Kind of index on both sides.  [default: by n]")
@click.option("--storage", type=click.Choice(STORAGES), help="How the store's index keeps vectors.  [default: sq8]")
@click.option("--effort", "efforts", type=int, multiple=True, help="efSearch or probes; repeat for more.")
@click.option("--out", metavar="FOLDER", type=click.Path(path_type=Path), default=RESULTS / "growth")
@click.option("--ingest", "told", hidden=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines and nothing else.")
def main(
    sizes: tuple[int, ...],
    dim: int,
    scheme: str,
    beta: float | None,
    oversamples: tuple[int, ...],
    index: str | None,
    storage: str | None,
    efforts: tuple[int, ...],
    out: Path,
    told: str | None,
    as_json: bool,
) -> None:
    """Measure growth."""
    if told is not None:
        ingest_here(told)
        return
    show = Show(quiet=as_json)
    results = Results(out, hdf5=False)
    beta = 2.0 if beta is None and scheme == "sap" else beta
    spec: dict[str, Any] = {"name": scheme, **({} if beta is None else {"beta": beta})}
    options = {name: value for name, value in (("index", index), ("storage", storage)) if value}
    how = {"oversamples": oversamples, "efforts": efforts, "options": options}
    for n in sizes or SIZES:
        key = key_of(job(n, dim, spec, how))
        rows = results.of(key) if results.done(key) else results.add(key, one(n, dim, spec, how, show))
        if as_json:
            click.echo("".join(json.dumps(row) + "\n" for row in rows), nl=False)
        else:
            show.table(f"{n:,} x {dim}", rows, COLUMNS)


COLUMNS = ["scheme", "index", "reranked", "effort", "oversample", "recall@10", "p50_ms", "p95_ms", "qps", "build_s",
           "ingest_per_s", "bytes", "peak_rss_mb", "ingest_peak_mb"]  # fmt: skip

if __name__ == "__main__":
    one_thread("benchmarks.growth")
    main()
