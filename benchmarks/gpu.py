"""Measure a GPU beside the CPU of the same machine, and write results/gpu/. One command; needs no network.

Usage: python -m benchmarks.gpu [--n 200000] [--dim 128] [--json]

    kernel  index vectors encrypted per second by `sap` and `sketch`, including nonces: on one thread of the CPU, and
            on the GPU, including transfers; how far the results differ; and the AES for nonces and noise, which the
            CPU always does
    search  what `encvec bench` runs: plaintext beside the `faiss:` store, with flat, IVF and HNSW indexes (on a GPU,
            CAGRA takes the place of HNSW), on both devices

It needs CuPy and a FAISS that was built for GPUs: `pip install 'encvec-store[gpu]'`, in the order that docs/gpu.md
gives. Without a GPU it says so and exits with 1.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.report import RESULTS, Row, Show
from encvec_store.crypto import Keystream, Pmac
from encvec_store.indexes.faiss import uses_gpu
from encvec_store.lab.bench import BenchJob, measure
from encvec_store.lab.bench.job import Stages
from encvec_store.lab.bench.machine import machine
from encvec_store.lab.bench.results import Results, key_of
from encvec_store.lab.bench.synthetic import clustered
from encvec_store.schemes import CPU, Device, KeyedScheme, Sketch, scheme
from encvec_store.schemes import find_device as device
from encvec_store.schemes import fit_profile as fit

DIMS = (384, 768, 1536)
KEPT = 250
RECORDS = 20_000
BETA = 2.0
REPEATS = 7
INDEXES: dict[str, tuple[int, ...]] = {"flat": (), "ivf": (16, 64), "hnsw": (64, 128, 256)}
"""Kinds of index, with their probes or efSearch."""


def kernels(dim: int, gpu: Device, repeats: int) -> list[Row]:
    """Measure encryption at one dimension: one row for each scheme and device, and one for AES."""
    draw = np.random.default_rng(dim)
    points = draw.standard_normal((RECORDS, dim), dtype=np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    tokens = draw.integers(0, 256, (RECORDS, 16), np.uint8)
    profile, root = fit(points).profile(KEPT), os.urandom(32)
    made: dict[str, Callable[[Device], KeyedScheme]] = {
        "sap": lambda at: scheme({"name": "sap", "beta": BETA}).keyed(root, ("", "gpu", b""), dim, device=at),
        "sketch": lambda at: Sketch(beta=BETA).fitted(profile).keyed(root, ("", "gpu", b""), dim, profile, at),
    }
    sides = {(name, at.name): make(at) for name, make in made.items() for at in (CPU, gpu)}
    apart: dict[str, float] = {}
    for name in made:
        ours, theirs = (sides[name, at.name].encrypt(points, tokens, points)[0] for at in (CPU, gpu))
        apart[name] = float(np.abs(ours - theirs).max())
    tags, stream = Pmac(root), Keystream(root)

    def aes() -> None:
        nonces = tags.tags(tokens, points.view(np.uint8))
        for _ in stream.batches(nonces, dim + 2):
            pass

    work: dict[tuple[str, str], Callable[[], Any]] = {
        place: lambda keyed=keyed: keyed.encrypt(points, tokens, points)  # type: ignore[misc]
        for place, keyed in sides.items()
    }
    work["aes", "cpu"] = aes
    times: dict[tuple[str, str], list[float]] = {place: [] for place in work}
    with threadpool_limits(1):
        for _ in range(repeats):
            for place, run in work.items():
                start = time.perf_counter()
                run()
                times[place].append((time.perf_counter() - start) / RECORDS)
    return [
        {
            "kind": "row",
            "bench": "gpu",
            "kernel": name,
            "device": where,
            "d": dim,
            "k": KEPT if name == "sketch" else dim,
            "n": RECORDS,
            "beta": BETA,
            "per_s": 1 / min(taken),
            "per_s_median": 1 / statistics.median(taken),
            "us": 1e6 * min(taken),
            "furthest_apart": apart.get(name),
            "repeats": len(taken),
        }
        for (name, where), taken in times.items()
    ]


def searches(n: int, dim: int, out: Path, show: Show) -> list[Row]:
    """Measure every kind of index on both devices; a stopped run continues."""
    results, rows = Results(out, hdf5=False), []
    data = clustered(n, dim, queries=200)
    for index, efforts in INDEXES.items():
        for where in ("cpu", "cuda"):
            job = BenchJob(
                data,
                options={"index": index, "device": where, "storage": "float32"},
                schemes=({"name": "sap", "beta": BETA},),
                efforts=efforts,
                oversamples=(10,),
                rounds=2,
                memory=False,
            )
            key = key_of(job)
            if not results.done(key):
                results.add(key, measure(job, _stages(show, f"{index}, {where}")))
            rows += results.of(key)
    return rows


def _stages(show: Show, where: str) -> Stages:
    return lambda text, steps: show.stage(f"{where}: {text}", steps)


@click.command()
@click.option("--n", type=int, default=200_000, show_default=True, help="Number of records to search.")
@click.option("--dim", type=int, default=128, show_default=True)
@click.option("--repeats", type=int, default=REPEATS, show_default=True)
@click.option("--out", metavar="FOLDER", type=click.Path(path_type=Path), default=RESULTS / "gpu")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines and nothing else.")
def main(n: int, dim: int, repeats: int, out: Path, as_json: bool) -> None:
    """Measure a GPU beside the CPU."""
    show = Show(quiet=as_json)
    gpu = device("cuda")
    if gpu is CPU or not uses_gpu("cuda"):
        sys.exit(1)  # both calls print the reason
    rows = [row for dim_ in show.each(DIMS, "kernel", lambda d: f"d={d}") for row in kernels(dim_, gpu, repeats)]
    out.mkdir(parents=True, exist_ok=True)
    lines = [{"kind": "machine", **machine()}, *rows]
    (out / "kernel.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    show.table("Encryption of index vectors, fastest of the repeats", rows, KERNEL)
    found = searches(n, dim, out, show)
    show.table(f"{n:,} x {dim}", found, SEARCH)
    if as_json:
        click.echo("".join(json.dumps(row) + "\n" for row in [*rows, *found]), nl=False)


KERNEL = ["kernel", "device", "d", "per_s", "per_s_median", "us", "furthest_apart"]
SEARCH = ["scheme", "index", "device", "reranked", "effort", "recall@10", "p50_ms", "qps", "qps_batch", "build_s",
          "ingest_per_s"]  # fmt: skip

if __name__ == "__main__":
    main()
