"""IVF-PQ over ciphertexts beside IVF-PQ over plaintext, at sizes that fit no other way: makes results/scale/.

Usage: python -m benchmarks.scale [--n 10000000] [--dim 96] [--json]

The `faiss:` store keeps whole index vectors, or a byte a coordinate; this asks what product quantisation (Jégou, Douze
and Schmid, TPAMI 2011) would make of ciphertexts. Clustered vectors are made as they are read and never held; each
side is built in a process of its own, whose peak memory is told, by the same FAISS factory string, a slice at a time.
Recall is the share of the true ten among so many candidates, which is what an exact re-rank of them returns; nothing
is sealed or written here, so latency is that of the index alone, a query's encryption included. Ten million take an
hour on two cores, and 2 GiB. Imports encvec_store.bench, encvec_store.crypto, benchmarks.report.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import faiss
import numpy as np

from benchmarks.report import RESULTS, Row, Show, one_thread
from encvec_store.bench.child import resident
from encvec_store.bench.machine import load, machine
from encvec_store.bench.results import read
from encvec_store.bench.synthetic import clustered
from encvec_store.bench.truth import Truth
from encvec_store.crypto.schemes import scheme
from encvec_store.metrics import metric

K, CANDIDATES, QUERIES, BETA = 10, (100, 500, 2000), 200, 2.0
PER_LIST = 40
"""Training vectors a list."""
PROBES = (16, 64, 256)


def factory(n: int, dim: int) -> str:
    """Return FAISS's description of the index: 4 sqrt(n) lists, a byte for two coordinates."""
    return f"IVF{max(16, min(int(4 * math.sqrt(n)), n // PER_LIST))},PQ{dim // 2}"


def side(told: str) -> None:
    """Build one side and search it; prints JSON. Be the process of that side."""
    n, dim, encrypted, folder = json.loads(told)
    library: Any = faiss
    data = clustered(n, dim, queries=QUERIES)
    keyed = scheme({"name": "sap", "beta": BETA}).keyed(hashlib.sha256(b"measured").digest(), "", "scale", dim)
    before, _ = resident()

    def points(vectors: Any, first: int) -> Any:
        if not encrypted:
            return vectors
        tokens = np.zeros((len(vectors), 16), np.uint8)
        tokens[:, :8] = np.arange(first, first + len(vectors), dtype=np.int64)[:, None].view(np.uint8)
        return np.ascontiguousarray(keyed.encrypt(vectors, tokens)[0])

    index = library.index_factory(dim, factory(n, dim), faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    start = time.perf_counter()
    index.train(points(data.vectors.take(min(n, PER_LIST * index.nlist)).whole(), 0))
    trained = time.perf_counter() - start
    added = 0.0
    for first, some in data.vectors.slices():
        start = time.perf_counter()
        index.add(points(some, first))
        added += time.perf_counter() - start
    rows: list[Row] = []
    most = min(max(CANDIDATES), n)
    for probes in PROBES:
        index.nprobe = min(probes, index.nlist)
        found, seconds = [], []
        for query in data.queries:
            start = time.perf_counter()
            asked = keyed.encrypt_queries(query[None])[0] if encrypted else query[None]
            found.append(index.search(np.ascontiguousarray(asked), most)[1][0])
            seconds.append(time.perf_counter() - start)
        np.save(Path(folder) / f"{encrypted}-{probes}.npy", np.stack(found))
        rows.append({"probes": probes, "p50_ms": 1e3 * float(np.median(seconds))})
    peak, _ = resident()
    size = len(faiss.serialize_index(index))
    common = {"train_s": trained, "build_s": trained + added, "ingest_per_s": n / added, "bytes": size,
              "peak_rss_mb": peak, "library_rss_mb": before, "index": factory(n, dim)}  # fmt: skip
    print(json.dumps([{**row, **common} for row in rows]))


def measured(n: int, dim: int, show: Show) -> list[Row]:
    """Measure both sides, and score what they found."""
    data = clustered(n, dim, queries=QUERIES)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="encvec-scale-") as folder:
        with show.stage("exact neighbours", n) as done:
            truth = Truth(metric("cosine"), data.vectors, data.queries, K, done)
        for encrypted in (False, True):
            with show.stage("encrypted" if encrypted else "plaintext", 1):
                told = json.dumps([n, dim, encrypted, folder])
                command = [sys.executable, "-m", "benchmarks.scale", "--side", told]
                run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            for row in json.loads(run.stdout):
                found = np.load(Path(folder) / f"{encrypted}-{row['probes']}.npy")
                shares = {f"recall@{K} in {some}": _share(truth.positions, found[:, :some]) for some in CANDIDATES}
                what = {"kind": "row", "bench": "scale", "dataset": data.name, "n": n, "d": dim, "load": load()}
                name = {"what": "sap" if encrypted else "plaintext", "beta": BETA if encrypted else None}
                rows.append({**what, **name, **row, **shares})
    return rows


def _share(wanted: Any, found: Any) -> float:
    """Share of (q, k) wanted positions among (q, m) found ones."""
    return float(np.mean([np.isin(true, near).mean() for true, near in zip(wanted, found, strict=True)]))


@click.command()
@click.option("--n", default=10_000_000, show_default=True, help="Vectors.")
@click.option("--dim", default=96, show_default=True, help="Their coordinates, an even number.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS / "scale", show_default="results/scale")
@click.option("--side", "told", hidden=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines and nothing else.")
def main(n: int, dim: int, out: Path, told: str | None, as_json: bool) -> None:
    """Measure IVF-PQ over ciphertexts."""
    if told is not None:
        side(told)
        return
    show = Show(quiet=as_json)
    path = out / "rows.jsonl"
    rows = [row for row in read([path]) if (row["n"], row["d"]) == (n, dim)] if path.exists() else []
    if not rows:
        on = {"kind": "machine", **machine()}
        rows = measured(n, dim, show)
        out.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in (on, *rows)))
    if as_json:
        click.echo("".join(json.dumps(row) + "\n" for row in rows), nl=False)
        return
    shares = [f"recall@{K} in {some}" for some in CANDIDATES]
    for row in rows:
        found = ", ".join(f"{name} {row[name]:.4f}" for name in shares)
        click.echo(
            f"{row['what']:10s} {row['index']}, {row['probes']} probes: {found}; p50 {row['p50_ms']:.2f} ms, "
            f"{row['bytes'] / 1e6:,.0f} MB, peak {row['peak_rss_mb']:,.0f} MiB, {row['ingest_per_s']:,.0f} vectors/s, "
            f"built in {row['build_s']:,.0f} s"
        )


if __name__ == "__main__":
    one_thread("benchmarks.scale")
    main()
