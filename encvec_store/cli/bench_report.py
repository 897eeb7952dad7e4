"""`encvec bench compare` and `encvec bench report`: compare results, and draw them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import InputError
from .output import emit, note, table

__all__ = ["compare", "report"]


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def compare(before: Path, after: Path, as_json: bool) -> None:
    """Compare two runs: what both measured, as AFTER / BEFORE.

    BEFORE and AFTER are files of JSON lines, or folders that --out made. Each ratio of the encrypted side has the ratio
    of plaintext in the same runs beside it. If both changed alike, the machine was the reason.
    """
    from ..lab.bench.compare import compared
    from ..lab.bench.results import read

    found = compared(read([before]), read([after]))
    if not found:
        raise InputError("the two have no variant in common: same data, store, index, scheme and parameters")
    if as_json:
        emit(found)
        return
    from ..lab.bench.compare import SHOWN

    table([title for _, title in SHOWN], [[_ratio(row[key]) for key, _ in SHOWN] for row in found])


def _ratio(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--html", "page", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Write the page here."
)
@click.option(
    "--png",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write each chart as PNG too (extra `bench`).",
)
@click.option(
    "--leakage",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="ROWS.jsonl",
    help="Rows of the leakage lab: adds what noise costs an attacker.",
)
@click.option("--memory-price", type=float, default=3.0, show_default=True, help="Price of a GiB of memory a month.")
@click.option("--disk-price", type=float, default=0.1, show_default=True, help="Price of a GB of disk a month.")
@click.option("--core-price", type=float, default=25.0, show_default=True, help="Price of a processor core a month.")
@click.option("--currency", default="$", show_default=True, help="Of the prices: a sign, or a code such as EUR.")
@click.option("--rate", type=float, default=100.0, show_default=True, help="Queries a second to answer.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def report(
    results: tuple[Path, ...],
    page: Path,
    png: Path | None,
    leakage: Path | None,
    memory_price: float,
    disk_price: float,
    core_price: float,
    currency: str,
    rate: float,
    as_json: bool,
) -> None:
    """Draw results as one self-contained page.

    RESULTS are files of JSON lines, or folders that --out made.
    """
    from ..lab.bench.cost import Prices
    from ..lab.bench.report import write
    from ..lab.bench.results import machines, read

    prices = Prices(memory_price, disk_price, core_price, rate, currency)
    attacks = read([leakage]) if leakage else []
    write(page, read(results), machines(results), attacks, prices)
    written = [page]
    if png is not None:
        from ..lab.bench.pictures import draw

        written += draw(png, read(results), attacks)
    if as_json:
        emit({"written": [str(path) for path in written]})
    else:
        for path in written:
            note(f"wrote {path}")
