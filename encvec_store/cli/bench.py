"""`encvec bench`: what encryption costs on a data set, beside plain FAISS; imports bench, readers, output."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .common import Failure
from .output import emit, note, progress, table
from .readers import Columns, open_reader

__all__ = ["bench"]

_BATCH = 10_000
_HELD_OUT = 0.1
_COLUMNS: tuple[tuple[str, str, int | None], ...] = (
    ("store", "store", None),
    ("index", "index", None),
    ("scheme", "scheme", None),
    ("reranked", "re-rank", None),
    ("recall@1", "recall@1", 4),
    ("recall@10", "recall@10", 4),
    ("p50_ms", "p50 ms", 3),
    ("p95_ms", "p95 ms", 3),
    ("qps", "queries/s", 0),
    ("build_s", "build s", 2),
    ("ingest_per_s", "ingest/s", 0),
    ("bytes", "MB", 1),
    ("peak_rss_mb", "RSS MiB", 0),
)

Matrix = npt.NDArray[np.float32]


@click.command(short_help="Measure recall, latency and size beside plain FAISS.")
@click.option(
    "--data",
    required=True,
    metavar="FILE",
    help="npy, parquet, jsonl or ann-benchmarks hdf5; in a checkout also a name, such as banking77.",
)
@click.option("--queries-file", metavar="FILE", help="Queries; by default a tenth of the data is held out as queries.")
@click.option("--queries", "most", type=click.IntRange(1), default=500, show_default=True, help="Most queries asked.")
@click.option("--limit", type=click.IntRange(2), metavar="N", help="Most vectors stored.")
@click.option("--store", metavar="URL", help="Store to measure; by default faiss: in a temporary folder.")
@click.option("--metric", type=click.Choice(["cosine", "l2", "ip"]), help="By default the file's own, else cosine.")
@click.option("--scheme", type=click.Choice(["sketch", "sap", "sealed"]), default="sketch", show_default=True)
@click.option("--beta", type=float, help="Noise [default: the scheme's].")
@click.option("-k", "--k", type=click.IntRange(1), default=10, show_default=True, help="Hits per query.")
@click.option("--oversample", type=click.IntRange(1), default=10, show_default=True, help="Candidates per hit.")
@click.option("--index", type=click.Choice(["auto", "flat", "hnsw", "ivf"]), default="auto", show_default=True)
@click.option("--storage", type=click.Choice(["sq8", "float32"]), default="sq8", show_default=True)
@click.option("--ef-search", type=click.IntRange(1), default=100, show_default=True, help="Of HNSW, for both sides.")
@click.option("--passes", type=click.IntRange(1), default=1, show_default=True, help="Times every query is asked.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def bench(
    data: str,
    queries_file: str | None,
    most: int,
    limit: int | None,
    store: str | None,
    metric: str | None,
    scheme: str,
    beta: float | None,
    k: int,
    oversample: int,
    index: str,
    storage: str,
    ef_search: int,
    passes: int,
    as_json: bool,
) -> None:
    """Measure recall, latency, build time and size: plain FAISS, the encrypted index alone, and with re-rank.

    All are built from the same vectors and asked the same queries by turns on one thread; recall is against exact
    search. Keys and collection are made for the run and dropped. Set OPENBLAS_NUM_THREADS=1 and OMP_NUM_THREADS=1
    to keep NumPy on one thread, too.
    """
    from ..bench import Job, run

    if beta is not None and scheme == "sealed":
        raise click.UsageError("sealed has no noise, so it takes no --beta")
    vectors, queries, found = _load(data, queries_file, limit)
    job = Job(
        dataset=Path(data).stem if Path(data).suffix else data,
        vectors=vectors,
        queries=queries[:most],
        metric=metric or found or "cosine",
        k=k,
        store=store,
        options={"index": index, "storage": storage, "ef_search": ef_search},
        scheme={"name": scheme, **({} if beta is None else {"beta": beta})},
        oversample=oversample,
        passes=passes,
    )
    rows = run(job, _stages)
    if as_json:
        for row in rows:
            emit(row)
        return
    click.echo(
        f"{job.dataset}: {len(vectors):,} vectors of {vectors.shape[1]}, {job.metric}; "
        f"{len(job.queries):,} queries for {k} hits each"
    )
    table([title for _, title, _ in _COLUMNS], [[_cell(row, *column) for column in _COLUMNS] for row in rows])


def _cell(row: dict[str, Any], key: str, _: str, digits: int | None) -> Any:
    value = row[key]
    if key == "reranked":
        return "yes" if value else "-" if row["scheme"] == "plaintext" else "no"
    if digits is None or value is None:
        return value
    shown = round(value / 1e6 if key == "bytes" else value, digits)
    return shown if digits else int(shown)


@contextmanager
def _stages(text: str, steps: int) -> Iterator[Callable[[int], None]]:
    if text == "queries":  # a bar's own thread would disturb what is timed
        note(f"timing {steps:,} queries")
        yield lambda done: None
        return
    with progress(text, steps) as advance:
        yield lambda done: advance(done, None)


def _load(data: str, queries_file: str | None, limit: int | None) -> tuple[Matrix, Matrix, str | None]:
    """Return vectors, queries and the metric that the data names."""
    if not Path(data).suffix and not Path(data).exists():
        vectors, queries, metric = _by_name(data, limit)
    else:
        vectors, metric = _read(data)
        vectors, queries = _split(vectors, held_out=queries_file is None)
        vectors = vectors[:limit]
    if queries_file is not None:
        queries, _ = _read(queries_file)
    return vectors, queries, metric


def _read(path: str) -> tuple[Matrix, str | None]:
    reader = open_reader(path, None, Columns())
    parts = [np.asarray(batch.vectors, np.float32) for batch in reader.batches(_BATCH)]
    if not parts:
        raise InputError(f"{path} holds no vectors")
    return np.concatenate(parts), reader.metric


def _split(vectors: Matrix, *, held_out: bool) -> tuple[Matrix, Matrix]:
    if not held_out:
        return vectors, vectors[:0]
    if len(vectors) < 2:
        raise InputError("one vector is too few: nothing would be left to be found")
    order = np.random.default_rng(0).permutation(len(vectors))
    queries = max(1, int(_HELD_OUT * len(vectors)))
    return vectors[np.sort(order[queries:])], vectors[order[:queries]]


def _by_name(name: str, limit: int | None) -> tuple[Matrix, Matrix, str | None]:
    try:
        datasets: Any = importlib.import_module("benchmarks.datasets")
    except ImportError:
        raise Failure(
            "InputError", f"{name!r} is no file; the named data sets come with a checkout of the repository"
        ) from None
    try:
        found = datasets.load(name, limit=limit)
    except ValueError as error:
        raise InputError(str(error)) from None
    return found.vectors, found.queries, found.metric
