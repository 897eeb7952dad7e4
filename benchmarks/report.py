"""Helpers of all benchmarks: one thread, progress, tables, targets, results as JSON lines.

A results file holds one JSON object per line: first the machine, then the rows, then the targets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from encvec_store.lab.bench.machine import machine

__all__ = ["RESULTS", "Row", "Show", "Target", "machine", "one_thread", "options", "publish"]

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
T = TypeVar("T")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_WIDTH = 160
_REDRAW = 0.2
# Titles and digits of all columns of tables, in their order.
_COLUMNS: dict[str, tuple[str, int]] = {
    "what": ("", 0),
    "scheme": ("scheme", 0),
    "store": ("store", 0),
    "reranked": ("re-rank", 0),
    "effort": ("effort", 0),
    "oversample": ("candidates a hit", 0),
    "kernel": ("kernel", 0),
    "device": ("device", 0),
    "dataset": ("data", 0),
    "n": ("n", 0),
    "d": ("d", 0),
    "batch": ("batch", 0),
    "index": ("index", 0),
    "storage": ("storage", 0),
    "texts": ("texts", 0),
    "whole_per_s": ("records/s", 0),
    "whole_per_s_median": ("median", 0),
    "encrypt_per_s": ("encrypted/s", 0),
    "disk_per_s": ("disk alone/s", 0),
    "ef_search": ("ef", 0),
    "cells": ("cells", 0),
    "candidates": ("candidates", 0),
    "recall@1": ("recall@1", 4),
    "recall@10": ("recall@10", 4),
    "rank-1": ("rank-1", 4),
    "attack": ("from", 0),
    "identified": ("identified", 4),
    "holds": ("", 0),
    "plaintext": ("plaintext", 4),
    "sealed": ("sealed", 4),
    "sketch": ("sketch", 4),
    "least": ("least", 4),
    "most": ("most", 4),
    "chance": ("chance", 4),
    "p50_ms": ("p50 ms", 3),
    "p95_ms": ("p95 ms", 3),
    "p99_ms": ("p99 ms", 3),
    "p50_ratio": ("p50 ratio", 2),
    "cpu_ms": ("client CPU ms", 3),
    "cpu_ratio": ("CPU ratio", 2),
    "server_cpu_ms": ("server CPU ms", 3),
    "distances": ("distances", 0),
    "qps": ("queries/s", 0),
    "qps_batch": ("in one batch", 0),
    "per_s": ("per second", 0),
    "per_s_median": ("median", 0),
    "us": ("us each", 2),
    "furthest_apart": ("furthest apart", 8),
    "server_us": ("server us each", 2),
    "sap_takes": ("sap takes x", 2),
    "build_s": ("build s", 2),
    "ingest_per_s": ("ingest/s", 0),
    "peak_rss_mb": ("RSS MiB", 0),
    "ingest_peak_mb": ("ingest RSS MiB", 0),
    "bytes": ("bytes", 0),
    "mb": ("MB", 1),
    "index_mb": ("index MB", 1),
    "rows_read": ("rows a search", 1),
    "dimension": ("effective dimension", 0),
    "nearest": ("cosine to the nearest", 3),
    "shown_nearest": ("in a sketch", 3),
    "of_20": ("20 pairs", 4),
    "of_50": ("50 pairs", 4),
    "ami": ("topics (AMI)", 3),
    "labels": ("labels learned", 3),
    "query": ("query's topic", 3),
    "pairs": ("neighbours", 3),
    "named": ("named", 4),
    "named_50": ("with 50 known", 4),
    "half_mb": ("of it half-precision", 1),
    "stored_mb": ("stored MB", 1),
    "index_private_mb": ("private MiB", 1),
    "peak_mb": ("peak RSS MiB", 1),
    "library_mb": ("of it libraries", 1),
    "client_mb": ("client MiB", 0),
    "server_mb": ("server MiB", 0),
    "memory_ratio": ("memory ratio", 2),
    "open_s": ("open s", 2),
    "state": ("state", 0),
    "setting": ("setting", 0),
    "write_s": ("write s", 2),
    "written_mb": ("written MiB", 0),
    "import_s": ("import s", 2),
    "batch_ms": ("ms each of 100", 3),
    "p50_over_faiss": ("over faiss", 2),
    "p50_over_chroma": ("over chroma", 2),
    "p50_over_pgvector": ("over pgvector", 2),
    "p50_over_fresh": ("over fresh", 2),
    "rss_mb": ("RSS MiB", 0),
    "memory_mb": ("without libraries", 1),
    "process_threads": ("threads", 0),
    "next_ms": ("next ms", 3),
    "extra_ms": ("ms more", 3),
    "seen": ("saw it", 2),
    "idle_p50_ms": ("idle p50", 3),
    "idle_p99_ms": ("idle p99", 3),
    "p99_over_idle": ("over idle", 2),
    "searches": ("searches", 0),
    "refused": ("refused", 0),
    "statements": ("statements", 2),
    "transactions": ("of it BEGIN, COMMIT, SET", 2),
    "both_mb": ("both MiB", 0),
}


@dataclass(frozen=True)
class Target:
    """A target, and the measured value."""

    name: str
    measured: float
    relation: str
    """>= or <="""
    wanted: float

    @property
    def met(self) -> bool:
        """True if the target was met."""
        return self.measured >= self.wanted if self.relation == ">=" else self.measured <= self.wanted


def one_thread(module: str) -> None:
    """Restart `module` with linear algebra on one thread, if needed: libraries read these variables when they load."""
    if any(os.environ.get(name) != "1" for name in _THREADS):
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        sys.exit(subprocess.run(command, env={**os.environ, **dict.fromkeys(_THREADS, "1")}, check=False).returncode)
    import faiss

    faiss.omp_set_num_threads(1)


class Show:
    """Show progress on stderr if it is a terminal, and tables on stdout, as Markdown if it is not a terminal."""

    def __init__(self, *, quiet: bool = False, width: int = _WIDTH) -> None:
        terminal = sys.stdout.isatty()
        self.out = Console(width=None if terminal else width, highlight=False, quiet=quiet)
        self._bars = Console(stderr=True)
        self._quiet = quiet

    def note(self, text: str) -> None:
        """Print a message that is no result."""
        if not self._quiet:
            self._bars.print(text, highlight=False, markup=False)

    def title(self, text: str) -> None:
        """Begin a section."""
        if self.out.is_terminal:
            self.out.print()
            self.out.rule(f"[bold]{text}[/]", align="left", style="dim")
        else:
            self.out.print(f"\n## {text}\n", markup=False)

    @contextmanager
    def stage(self, text: str, steps: int) -> Iterator[Callable[[int], None]]:
        """Draw a bar, and yield the function that advances it."""
        if not self._bars.is_terminal or self._quiet:
            yield lambda done: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # the caller's thread draws it between two steps: a separate thread would disturb the timing
        with Progress(*columns, console=self._bars, transient=True, auto_refresh=False) as bar:
            task = bar.add_task(text, total=steps)
            bar.refresh()
            drawn = time.monotonic()

            def advance(done: int) -> None:
                nonlocal drawn
                bar.advance(task, done)
                if time.monotonic() - drawn > _REDRAW:
                    bar.refresh()
                    drawn = time.monotonic()

            yield advance

    def each(self, items: Sequence[T], text: str, name: Callable[[T], str]) -> Iterable[T]:
        """Iterate over a few items, and show a bar with the name of each."""
        for item in items:
            with self.stage(f"{text} {name(item)}", 1):
                yield item

    def table(self, title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
        """Print rows; by default with every known column that any row fills."""
        names = columns or [key for key in _COLUMNS if any(row.get(key) is not None for row in rows)]
        terminal = self.out.is_terminal
        drawn = Table(title=title if terminal else None, box=box.SIMPLE_HEAD if terminal else box.MARKDOWN)
        for name in names:
            numeric = all(isinstance(row.get(name), int | float | None) for row in rows)
            drawn.add_column(_COLUMNS[name][0], justify="right" if numeric else "left", no_wrap=name != "what")
        for row in rows:
            drawn.add_row(*(_cell(row.get(name), _COLUMNS[name][1]) for name in names))
        if not terminal:
            self.out.print(f"\n{title}\n", markup=False)
        self.out.print(drawn)

    def targets(self, targets: Sequence[Target]) -> None:
        """Print the targets, and whether they were met."""
        for target in targets:
            verdict = "[green]met[/]" if target.met else "[bold red]MISSED[/]"
            self.out.print(
                f"  {verdict:<8} {target.name}: {target.measured:,.4g} (target {target.relation} {target.wanted:,g})"
            )


def _cell(value: Any, digits: int) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case str():
            return value
    return f"{value:,.{digits}f}"


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --quick, --json and --out to a benchmark's command."""
    for option in (
        click.option("--out", metavar="FILE", help="Write JSON lines here  [default: benchmarks/results/NAME.jsonl]."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON lines and nothing else."),
        click.option("--quick", is_flag=True, help="Use small sizes, as a check; keep nothing without --out."),
    ):
        command = option(command)
    return command


def publish(
    name: str,
    measure: Callable[[Show], tuple[list[Row], list[Target]]],
    quick: bool,
    as_json: bool,
    out: str | None,
) -> list[Target]:
    """Measure, print the targets, and write the results file. `measure` prints its own tables."""
    show = Show(quiet=as_json)
    on = machine()  # read before measuring, so that the load is that of other processes
    rows, targets = measure(show)
    lines = [
        {"kind": "machine", "bench": name, "quick": quick, **on},
        *({"kind": "row", **row} for row in rows),
        *({"kind": "target", **asdict(target), "met": target.met} for target in targets),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if as_json:
        click.echo(text, nl=False)
    elif quick:
        show.note("--quick: too small to judge the targets by")
    else:
        show.targets(targets)
    if out or not quick:
        path = Path(out) if out else RESULTS / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return targets
