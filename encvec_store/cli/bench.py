"""`encvec bench`: measure what encryption costs on data sets, beside plaintext."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..sealing.config import DEFAULT_SCHEME, RANKED_SCHEME
from .bench_report import compare, report
from .output import emit, note, progress, table
from .settings import METRIC

__all__ = ["COLUMNS", "bench", "show"]

COLUMNS: tuple[tuple[str, str, int | None], ...] = (
    ("store", "store", None),
    ("index", "index", None),
    ("scheme", "scheme", None),
    ("beta", "beta", 1),
    ("reranked", "re-ranked", None),
    ("oversample", "per hit", None),
    ("effort", "effort", 0),
    ("recall@1", "recall@1", 4),
    ("recall@10", "recall@10", 4),
    ("recall@100", "recall@100", 4),
    ("ndcg@10", "nDCG@10", 3),
    ("p50_ms", "p50 ms", 3),
    ("p95_ms", "p95 ms", 3),
    ("p99_ms", "p99 ms", 3),
    ("qps", "queries/s", 0),
    ("qps_threads", "by threads", 0),
    ("qps_batch", "in batch", 0),
    ("build_s", "build s", 2),
    ("ingest_per_s", "ingest/s", 0),
    ("bytes", "MB", 1),
    ("peak_rss_mb", "RSS MiB", 0),
)
_ALWAYS = ("store", "index", "scheme", "reranked", "recall@1", "recall@10", "p50_ms", "p95_ms", "qps")


@click.group(short_help="Measure recall, latency and size beside plaintext.", invoke_without_command=True)
@click.option(
    "--data",
    "names",
    multiple=True,
    metavar="FILE",
    help="Data: npy, fvecs, bvecs, parquet, jsonl, ann-benchmarks hdf5, clustered:NxD or iid:NxD; with `python -m "
    "benchmarks bench` in a checkout also a name. Repeat for more.",
)
@click.option("--queries-file", metavar="FILE", help="File of queries [default: the data's own, or a tenth held out].")
@click.option("--queries", "most", type=click.IntRange(1), default=500, show_default=True, help="Most queries to ask.")
@click.option("--limit", type=click.IntRange(2), metavar="N", help="Store at most N vectors.")
@click.option(
    "--store",
    "stores",
    multiple=True,
    metavar="URL",
    help="Store to measure; repeat for more. faiss: is a temporary folder, postgresql: a temporary server.  [default: "
    "faiss:]",
)
@click.option("--metric", type=METRIC, help="Metric [default: the data's own, else cosine].")
@click.option(
    "--scheme", "schemes", multiple=True, metavar="NAME", help="Scheme; repeat for more [default: sealed and sketch]."
)
@click.option("--beta", "betas", multiple=True, type=float, help="Noise; repeat for more [default: the scheme's].")
@click.option("-k", "--k", type=click.IntRange(1), default=10, show_default=True, help="Hits per query.")
@click.option(
    "--oversample",
    "oversamples",
    multiple=True,
    type=click.IntRange(1),
    help="Candidates per hit; repeat for more [default: the collection chooses].",
)
@click.option(
    "--index",
    "indexes",
    multiple=True,
    metavar="KIND",
    help="Index: auto, flat, hnsw, ivf; on PostgreSQL auto, none, hnsw, ivfflat, bit. Repeat for more.",
)
@click.option(
    "--storage", metavar="KIND", help="How an index keeps vectors: sq8, float32, pq; on PostgreSQL float32, float16."
)
@click.option("--precision", type=click.Choice(["single", "half"]), help="Of stored vectors.  [default: single]")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Device on which faiss: and its baseline search flat and IVF indexes.  [default: cpu]",
)
@click.option(
    "--effort",
    "--ef-search",
    "efforts",
    multiple=True,
    type=click.IntRange(1),
    help="efSearch of HNSW or probes of IVF, for both sides; repeat for more [default: the store's].",
)
@click.option("--passes", type=click.IntRange(1), default=1, show_default=True, help="Ask every query N times.")
@click.option("--rounds", type=click.IntRange(0), default=3, show_default=True, help="Repeats by threads and in batch.")
@click.option("--threads", type=click.IntRange(0), default=0, help="Number of threads [default: one per processor].")
@click.option("--memory/--no-memory", default=True, help="Measure memory, in separate processes.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Keep results here, as JSON lines and as HDF5 of ann-benchmarks; continue a stopped run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list of rows.")
@click.pass_context
def bench(
    context: click.Context,
    names: tuple[str, ...],
    queries_file: str | None,
    most: int,
    limit: int | None,
    stores: tuple[str, ...],
    metric: str | None,
    schemes: tuple[str, ...],
    betas: tuple[float, ...],
    k: int,
    oversamples: tuple[int, ...],
    indexes: tuple[str, ...],
    storage: str | None,
    precision: str | None,
    device: str | None,
    efforts: tuple[int, ...],
    passes: int,
    rounds: int,
    threads: int,
    memory: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure recall, latency, throughput, build time and size: plaintext, sealed, and ranked by the server.

    Every data set goes into every store and index, under every scheme. Schemes that the server ranks are measured
    twice: their encrypted index alone, and with exact re-rank. All sides hold the same vectors and get the
    same queries in turn, on one thread; recall is against exact search. The baseline is plain FAISS for faiss:, and
    plain pgvector for postgresql:. Keys and collections are temporary. Set OPENBLAS_NUM_THREADS=1 and
    OMP_NUM_THREADS=1 to keep NumPy on one thread too.
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError(f"--json goes after {context.invoked_subcommand}", context)
        return
    if not names:
        raise click.UsageError("give --data FILE, or a command: compare, report", context)
    from ..lab.bench import BenchJob
    from ..lab.bench.results import Results
    from .bench_data import load

    results = Results(out) if out is not None else None
    rows: list[dict[str, Any]] = []
    for name in names:
        data = load(name, queries_file, limit, metric).first(most)
        for store, index in itertools.product(stores or ("faiss:",), indexes or (None,)):
            job = BenchJob(
                data,
                store=store,
                options={key: value for key, value in _options(store, index, storage, device) if value},
                schemes=_specs(schemes or (DEFAULT_SCHEME, RANKED_SCHEME), betas),
                precision=precision,
                efforts=efforts,
                oversamples=oversamples,
                k=k,
                passes=passes,
                rounds=rounds,
                threads=threads,
                memory=memory,
            )
            measured = _measured(job, results)
            rows += measured
            if not as_json:
                click.echo(
                    f"{data.name}: {len(data.vectors):,} vectors of {data.vectors.dim}, {data.metric}; "
                    f"{len(data.queries):,} queries for {k} hits each"
                )
                show(measured)
    if as_json:
        emit(rows)


def _options(store: str, index: str | None, storage: str | None, device: str | None) -> list[tuple[str, str | None]]:
    return [("index", index), ("storage", storage), ("device", device if store.startswith("faiss:") else None)]


def _measured(job: Any, results: Any) -> list[dict[str, Any]]:
    from ..lab.bench import measure
    from ..lab.bench.results import key_of

    if results is None:
        return [one.row for one in measure(job, _stages)]
    key = key_of(job)
    if results.done(key):
        note(f"{job.data.name}: measured before, taken from the results")
        found: list[dict[str, Any]] = results.of(key)
        return found
    return list(results.add(key, measure(job, _stages)))


def _specs(schemes: Sequence[str], betas: Sequence[float]) -> list[dict[str, Any]]:
    specs: list[dict[str, Any]] = []
    for scheme in dict.fromkeys(schemes):
        if scheme == "sealed" or not betas:
            specs.append({"name": scheme})
        else:
            specs += [{"name": scheme, "beta": beta} for beta in betas]
    if betas and not any("beta" in spec for spec in specs):
        raise click.UsageError("sealed has no noise, so it takes no --beta")
    return specs


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as a table, without empty columns."""
    columns = [c for c in COLUMNS if c[0] in _ALWAYS or any(row.get(c[0]) is not None for row in rows)]
    table([title for _, title, _ in columns], [[_cell(row, key, digits) for key, _, digits in columns] for row in rows])


def _cell(row: dict[str, Any], key: str, digits: int | None) -> Any:
    value = row.get(key)
    if key == "reranked":
        return (row.get("candidates") or "yes") if value else None if row["scheme"] == "plaintext" else "no"
    if digits is None or value is None:
        return value
    shown = round(value / 1e6 if key == "bytes" else value, digits)
    return shown if digits else int(shown)


@contextmanager
def _stages(text: str, steps: int) -> Iterator[Callable[[int], None]]:
    if text.startswith("queries"):  # the thread of a progress bar would disturb the timing
        note(f"timing {steps:,} {text}")
        yield lambda done: None
        return
    with progress(text, steps) as advance:
        yield lambda done: advance(done, None)


bench.add_command(compare)
bench.add_command(report)
