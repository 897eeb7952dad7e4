"""Measure single-process stores with documents beside ours, in one run, and write results/embedded.jsonl.

Usage: python -m benchmarks.embedded [--n 100000] [--dim 384] [--updated] [--other-writer] [--quick]

    faiss, faiss-sq8   FAISS HNSW (float32, 8-bit codes) and documents in SQLite: plaintext, the floor
    chroma, lancedb    plaintext
    qdrant             plaintext; its local mode compares all vectors, meant for small collections
    encvec             `faiss:` with the scheme "sealed", everything encrypted
    encvec-sap         `faiss:` with the scheme "sap", if you name it
    encvec-records     "sealed" without an index, if you name it: what it writes are the records alone

Each runs in its own process; chroma, lancedb and qdrant in an environment of their own, made on first use. Each uses
the cheapest setting that finds 99% of the nearest records; LanceDB keeps several threads for reading. A store that
cannot be installed, or fails, is left out with a note.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks.datasets import DatasetError
from benchmarks.embedded.contest import RECALL, Contest, prepared, ratios
from benchmarks.embedded.during import during_ingest
from benchmarks.embedded.worker import TIMEOUT, System
from benchmarks.peers import missing, python
from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store import Keyset
from encvec_store.errors import InputError

KEYS = "ENCVEC_BENCH_KEYSET"
PEERS = {"chroma": "chromadb", "lancedb": "lancedb", "qdrant": "qdrant-client"}
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "faiss": ("faiss", {"storage": "float32"}),
    "faiss-sq8": ("faiss", {"storage": "sq8"}),
    "encvec": ("encvec", {"scheme": {"name": "sealed"}}),
    "encvec-records": ("encvec", {"scheme": {"name": "sealed"}, "connect": {"maintenance": "manual"}, "build": False}),
    "encvec-sap": ("encvec", {"scheme": {"name": "sap", "beta": 2.0}}),
    "chroma": ("chromadb", {}),
    "lancedb": ("lancedb", {}),
    "qdrant": ("qdrant", {}),
}
"""Name -> what `serve` calls it, and its options."""
DEFAULT = ("faiss", "faiss-sq8", "encvec", "chroma", "lancedb", "qdrant")
BASES = {"p50_over_faiss": "faiss", "p50_over_chroma": "chroma"}
QUICK = (600, 32, 40)
COLUMNS = {
    "ingest": ["what", "per_s", "write_s", "build_s", "bytes", "peak_rss_mb", "library_mb", "written_mb"],
    "opening": ["what", "state", "open_s", "import_s"],
    "search": ["what", "setting", "p50_ms", "p99_ms", "cpu_ms", "batch_ms", "recall@10", "p50_over_faiss",
               "p50_over_chroma", "rss_mb", "memory_mb", "process_threads"],
    "updated": ["what", "setting", "p50_ms", "p99_ms", "recall@10", "p50_over_fresh", "memory_mb", "bytes"],
    "other writer": ["what", "p50_ms", "next_ms", "extra_ms", "seen"],
    "during ingest": ["what", "per_s", "searches", "p50_ms", "idle_p50_ms", "p99_ms", "idle_p99_ms", "p99_over_idle"],
}  # fmt: skip
COLUMNS["update"] = COLUMNS["ingest"]


@contextmanager
def keyset() -> Iterator[None]:
    """Put a new keyset in the environment, where the stores' processes find it."""
    os.environ.pop(KEYS, None)
    Keyset.create(f"env:{KEYS}")
    try:
        yield
    finally:
        os.environ.pop(KEYS, None)


def available(names: Sequence[str], folder: Path, show: Show, connect: dict[str, Any]) -> list[System]:
    """Describe the stores of these names that can be run, each with a folder of its own."""
    found = []
    for name in names:
        store, how = SYSTEMS[name]
        if name in PEERS:
            show.note(f"{name}: checking its environment; the first use installs it")
            reason = missing(PEERS[name])
            if reason:
                show.note(f"{name} is left out: {reason}")
                continue
        place = folder / name
        place.mkdir()
        interpreter = python(PEERS[name]) if name in PEERS else Path(sys.executable)
        more = {"connect": {**how.get("connect", {}), **connect}} if store == "encvec" else {}
        found.append(System(name, store, interpreter, str(place), {**how, **more}))
    return found


def copied(system: System) -> System:
    """Copy a store's folder."""
    place = f"{system.place}-fresh"
    shutil.copytree(system.place, place)
    return replace(system, place=place)


def measured(
    contest: Contest, copy: Callable[[System], System], bases: dict[str, str], updated: bool, other_writer: bool
) -> list[Row]:
    """Run all parts, and add the ratios."""
    rows = contest.ingest()
    rows += contest.opening()
    rows += contest.search()
    ratios(rows, bases)
    if updated:
        rows += contest.updated(copy)
    if other_writer:
        seen = contest.other_writer()
        sharing = {row["what"] for row in seen if row.get("seen") == 1}
        rows += seen + during_ingest(contest, [system for system in contest.systems if system.name in sharing])
    return rows


def tables(show: Show, rows: Sequence[Row], columns: dict[str, list[str]]) -> None:
    """Print a table for each part and size."""
    for size in dict.fromkeys((row["dataset"], row["n"], row["d"]) for row in rows):
        name, n, dim = size
        here = [row for row in rows if (row["dataset"], row["n"], row["d"]) == size]
        for part in dict.fromkeys(row["part"] for row in here):
            some = [row for row in here if row["part"] == part]
            there = [key for key in columns[part] if any(row.get(key) is not None for row in some)]
            show.table(f"{name}, {n:,} x {dim}, {some[0]['k']} hits with documents: {part}", some, there)


def value(rows: Sequence[Row], part: str, key: str, what: str = "encvec", state: str | None = None) -> float:
    """Return one figure; NaN if it was not measured."""
    for row in rows:
        if (row["part"], row["what"]) == (part, what) and state in (None, row["state"]) and row.get(key) is not None:
            return float(row[key])
    return float("nan")


def targets(rows: Sequence[Row]) -> list[Target]:
    """Judge each size."""
    told = []
    for n, dim in dict.fromkeys((row["n"], row["d"]) for row in rows):
        here, size = [row for row in rows if (row["n"], row["d"]) == (n, dim)], f"{n:,} x {dim}: "
        large = n >= 1_000_000
        told += [
            Target(f"{size}recall@10", value(here, "search", "recall@10"), ">=", RECALL),
            Target(f"{size}p50 over FAISS and SQLite", value(here, "search", "p50_over_faiss"), "<=",
                   1.5 if large else 3.5),
            Target(f"{size}p50 over Chroma", value(here, "search", "p50_over_chroma"), "<=", 0.3),
            Target(f"{size}opening to the first answer, s", value(here, "opening", "open_s", state="warm"), "<=",
                   3.0 if large else 0.3),
        ]  # fmt: skip
        if any(row["part"] == "updated" for row in here):
            told.append(Target(f"{size}p50 after every record was updated, over fresh",
                               value(here, "updated", "p50_over_fresh"), "<=", 1.5))  # fmt: skip
        if any(row["part"] == "other writer" for row in here):
            told.append(Target(f"{size}search after another process wrote, ms more",
                               value(here, "other writer", "extra_ms"), "<=", 5.0))  # fmt: skip
            told.append(Target(f"{size}p99 while another process writes, over idle",
                               value(here, "during ingest", "p99_over_idle"), "<=", 5.0))  # fmt: skip
    return [target for target in told if not math.isnan(target.measured)]  # of stores that were not asked for


def pairs(given: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE options of `connect`."""
    found: dict[str, Any] = {}
    for one in given:
        name, sign, text = one.partition("=")
        if not sign:
            raise click.BadParameter(f"{one!r} is not NAME=VALUE", param_hint="--option")
        found[name] = int(text) if text.isdigit() else text
    return found


@click.command()
@click.option(
    "--n", "sizes", type=click.IntRange(20), multiple=True, help="Records; repeat for more.  [default: 10000]"
)
@click.option("--dim", type=click.IntRange(2), default=384, show_default=True)
@click.option("--k", type=click.IntRange(1), default=10, show_default=True)
@click.option("--queries", type=click.IntRange(10), default=300, show_default=True)
@click.option("--systems", default=",".join(DEFAULT), show_default=True, help="Their names, with commas.")
@click.option("--data", "name", default="clustered", show_default=True,
              help="clustered, synthetic or iid; or a name of benchmarks.corpora, such as banking77.")  # fmt: skip
@click.option("--document-bytes", type=click.IntRange(1), default=300, show_default=True, help="Least length of each.")
@click.option("--updated", is_flag=True, help="Also search after every record was replaced once.")
@click.option("--other-writer", is_flag=True, help="Also search after another process wrote a record.")
@click.option("--openings", type=click.IntRange(1), default=3, show_default=True, help="Times each store is opened.")
@click.option("--option", "given", multiple=True, metavar="NAME=VALUE", help="An option of our connect; repeatable.")
@click.option("--timeout", type=float, default=TIMEOUT, show_default=True, help="Most seconds of one step of a store.")
@options
def main(
    sizes: tuple[int, ...],
    dim: int,
    k: int,
    queries: int,
    systems: str,
    name: str,
    document_bytes: int,
    updated: bool,
    other_writer: bool,
    openings: int,
    given: tuple[str, ...],
    timeout: float,
    quick: bool,
    as_json: bool,
    out: str | None,
) -> None:
    """Measure single-process stores."""
    names = [one.strip() for one in systems.split(",") if one.strip()]
    unknown = [one for one in names if one not in SYSTEMS]
    if unknown or not names:
        raise click.BadParameter(
            f"unknown store {', '.join(unknown) or 'name'}: there are {', '.join(SYSTEMS)}", param_hint="--systems"
        )
    connect = pairs(given)
    if quick:
        sizes, (_, dim, queries) = QUICK[:1], QUICK

    def measure(show: Show) -> tuple[list[Row], list[Target]]:
        rows: list[Row] = []
        for n in sizes or (10_000,):
            with tempfile.TemporaryDirectory(prefix="encvec-bench-") as place, keyset():
                folder = Path(place)
                try:
                    job = prepared(name, n, dim, folder, queries, k, document_bytes)
                except (DatasetError, InputError) as error:
                    raise click.BadParameter(str(error), param_hint="--data") from None
                contest = Contest(job, available(names, folder, show, connect), show, "embedded", timeout)
                contest.repeats = 1 if quick else openings
                rows += measured(contest, copied, BASES, updated, other_writer)
        tables(show, rows, COLUMNS)
        return rows, targets(rows)

    publish("embedded", measure, quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.embedded")
    main()
