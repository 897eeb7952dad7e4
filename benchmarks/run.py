"""All measurements, one after the other: `make bench`.

Usage: python -m benchmarks.run [--quick] [--peers] [--only NAME]... [--out FOLDER] [--json]

Each prints its tables and whether its targets were met, and writes benchmarks/results/NAME.jsonl. This takes about ten
minutes. With --quick it takes one minute on small data, to check that everything runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from benchmarks import ingest, kernel, pgvector, search, walk
from benchmarks.report import Row, Show, Target, one_thread, publish

ALL = ("kernel", "ingest", "search", "walk", "pgvector")


@click.command()
@click.option("--quick", is_flag=True, help="Use small data; keep nothing without --out.")
@click.option("--peers", is_flag=True, help="Also measure ironcore-alloy, installed on first use.")
@click.option("--only", multiple=True, type=click.Choice(ALL), help="Only these (repeatable).")
@click.option("--out", metavar="FOLDER", help="Write JSON lines here  [default: benchmarks/results].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines and nothing else.")
def main(quick: bool, peers: bool, only: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Run the benchmarks."""
    measures: dict[str, Callable[[Show], tuple[list[Row], list[Target]]]] = {
        "kernel": lambda show: kernel.run(quick, show, with_peers=peers),
        "ingest": lambda show: ingest.run(quick, show),
        "search": lambda show: search.run(quick, show),
        "walk": lambda show: walk.run(quick, show),
        "pgvector": lambda show: pgvector.run(quick, show),
    }
    for name in only or ALL:
        publish(name, measures[name], quick, as_json, str(Path(out) / f"{name}.jsonl") if out else None)


if __name__ == "__main__":
    one_thread("benchmarks.run")
    main()
