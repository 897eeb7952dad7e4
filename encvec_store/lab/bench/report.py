"""The bench's page: results to one HTML page that stands alone.

Nothing is loaded from anywhere and no script runs: the page's own policy forbids both. All text of rows is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..pages import shell
from ..pages.tables import framed
from . import figures
from .cost import Prices, cost
from .job import Row
from .reading import GOOD, Contest, contests, largest, series_of

__all__ = ["page", "write"]

READING = f"""<ul>
<li><b>By turns</b>: every query goes to every variant before the next one, in changing order, after a warm-up. Ratios
hold where milliseconds don't. The load of the machine stands in the table: where it is high, processor time says more
than time on the clock.</li>
<li><b>Recall@k</b>: the share of the true k nearest that came back; as near as the k-th counts.</li>
<li><b>Compared at</b> recall@10 of at least {100 * GOOD:g}%: the fastest setting of each side that reaches it.</li>
<li><b>Re-rank</b>: candidates are opened and scored exactly, so hits carry true scores. <b>Index alone</b> is what the
store ranks by ciphertexts: what it would answer without the keys.</li>
<li><b>Memory</b>: the most that a fresh process held which opens one side and answers queries, libraries and
touched pages of mapped files included; private memory is without either. On PostgreSQL it is the client's.</li>
<li><b>Queries a second</b> in plots: one client, one thread. By threads and in batch: in the table.</li></ul>"""


def write(
    path: Path,
    rows: Sequence[Row],
    machines: Sequence[Mapping[str, Any]] = (),
    attacks: Sequence[Row] = (),
    prices: Prices | None = None,
) -> None:
    """Write the page of results to a file: whole, or not at all. Raises InputError where no row can be read."""
    shell.write(path, page(rows, machines, attacks, prices))


def page(
    rows: Sequence[Row],
    machines: Sequence[Mapping[str, Any]] = (),
    attacks: Sequence[Row] = (),
    prices: Prices | None = None,
) -> str:
    """HTML page of rows as `run` returns them, and of the leakage lab's. Raises InputError where none can be read."""
    found = contests(rows)
    if not found:
        raise InputError("there are no rows of the bench to report on")
    assumed = prices or Prices()
    shown = largest(found)
    sized = [contest for contest in shown if len(contest.rows) > 1]
    curves = [contest for contest in sized if any(len(some) > 1 for some in contest.series().values())] or sized
    parts = [
        _head(shown),
        _section("Recall against speed", figures.pareto(curves), "Up and right is better. A line joins the settings of "
                 "one side that none of its others beats."),
        _section("What encryption costs", figures.overheads(sized), f"Ours over plaintext, at recall@10 of at least "
                 f"{100 * GOOD:g}% on both sides. Logarithmic; dashed mark: the same."),
        _section("What noise costs whom", figures.noise(attacks), "On the very same ciphertexts: the share of the true "
                 "ten among 100 candidates, and the share of records that the best attack names, by noise."),
        _section("How it grows", figures.growth(rows), "Fitted on the larger half of the sizes: value ~ n to the power "
                 "written beside each name."),
        _section("A million vectors, a month", _costs(shown, assumed), _assumptions(assumed)),
        f"<section><h2>How to read this</h2>{READING}</section>",
        _section("Everything measured", _table(found), "Medians, with quantiles. Effort: efSearch, or probes."),
        _origin(machines, rows),
    ]  # fmt: skip
    return shell.document("Benchmark report", parts)


# --------------------------------------------------------------------------------------------- inside


def _section(title: str, content: str, words: str) -> str:
    return f"<section><h2>{title}</h2><p>{escape(words)}</p>{content}</section>" if content else ""


def _head(found: Sequence[Contest]) -> str:
    lines = [line for contest in found if (line := _sentence(contest))]
    shown = "".join(f"<li><span></span><span></span><div>{line}</div></li>" for line in lines)
    return (
        "<header><h1>What encrypted search costs</h1><p>Plaintext and encrypted, the same vectors, the same queries, "
        f'by turns in one run.</p><ul class="verdicts plain">{shown}</ul></header>'
    )


def _sentence(contest: Contest) -> str:
    base = contest.cheapest(contest.plaintext)
    said = []
    for name, rows in contest.series().items():
        if rows[0]["scheme"] == "plaintext" or not rows[0]["reranked"]:
            continue
        best = contest.cheapest(rows)
        if best is None:
            said.append(f"<b>{escape(name)}</b> reaches recall@10 of {_most(rows):.4f} at most")
        elif base is None:
            said.append(f"<b>{escape(name)}</b> takes {best['p50_ms']:.2f} ms at {best['recall@10']:.4f}")
        else:
            said.append(
                f"<b>{escape(name)}</b> takes {best['p50_ms'] / base['p50_ms']:.1f} times as long "
                f"({best['p50_ms']:.2f} ms, recall@10 {best['recall@10']:.4f}{_processor(best, base)})"
            )
    if not said:
        return ""
    if base is not None:
        against = f"Plaintext: {base['p50_ms']:.2f} ms at {base['recall@10']:.4f}. "
    else:
        against = (
            f"Plaintext reaches recall@10 of {_most(contest.plaintext):.4f} at most. " if contest.plaintext else ""
        )
    return f"<h3>{escape(contest.title)}</h3><p>{against}{'; '.join(said)}.</p>"


def _most(rows: Sequence[Row]) -> float:
    return max(float(row.get("recall@10") or 0) for row in rows)


def _processor(ours: Row, base: Row) -> str:
    """Of a machine that others use too, this says more than time on the clock."""
    if not ours.get("cpu_ms") or not base.get("cpu_ms"):
        return ""
    return f"; {ours['cpu_ms'] / base['cpu_ms']:.1f} times the processor"


def _assumptions(prices: Prices) -> str:
    memory, disk, core = (prices.shown(price) for price in (prices.memory, prices.disk, prices.core))
    return (
        f"Assumed: {memory} for a GiB of memory, {disk} for a GB of disk, {core} for a core, a month; "
        f"{prices.rate:g} queries a second. Memory and disk in proportion to what was measured; cores for the size "
        "measured."
    )


def _costs(found: Sequence[Contest], prices: Prices) -> str:
    lines, missing = [], []
    for contest in found:
        for name, rows in contest.series().items():
            if not _whole(rows):
                continue
            best = contest.cheapest(rows)
            if best is None:
                missing.append(f"{contest.title}: {name}")
                continue
            worked = cost(best, prices)
            money = [worked.memory, worked.disk, worked.cores, worked.month]
            cells = [*("" if value is None else prices.shown(value) for value in money), f"{worked.building:,.2f}"]
            lines.append(
                f'<tr><th>{escape(contest.title)}</th><td class="text">{escape(name)}</td>'
                + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
                + "</tr>"
            )
    titles = ("data", "side", "memory", "disk", "cores", "a month", "core hours to build")
    return framed(titles, lines, {0, 1}) + figures.left_out(missing)


def _whole(rows: Sequence[Row]) -> bool:
    """Whether a series answers as users are answered, not by its index alone."""
    return bool(rows[0]["scheme"] == "plaintext" or rows[0]["reranked"])


_CELLS: tuple[tuple[str, str, int], ...] = (
    ("index", "index", 0), ("storage", "storage", 0), ("effort", "effort", 0), ("oversample", "candidates a hit", 0),
    ("recall@1", "recall@1", 4), ("recall@10", "@10", 4), ("recall@100", "@100", 4),
    ("distance_ratio", "distance ratio", 4),
    ("ndcg@10", "nDCG@10", 3), ("p50_ms", "p50 ms", 3), ("p50_low_ms", "from", 3), ("p50_high_ms", "to", 3),
    ("p95_ms", "p95", 3), ("p99_ms", "p99", 3), ("cpu_ms", "CPU ms", 3), ("qps", "queries/s", 0),
    ("qps_threads", "by threads", 0), ("qps_batch", "in batch", 0), ("build_s", "build s", 2),
    ("ingest_per_s", "ingest/s", 0),
    ("index_bytes", "index bytes", 0), ("bytes", "all bytes", 0), ("peak_rss_mb", "RSS MiB", 0),
    ("private_mb", "private MiB", 0), ("load", "load", 1),
)  # fmt: skip


def _table(found: Sequence[Contest]) -> str:
    every = [row for contest in found for row in contest.rows]
    columns = [cell for cell in _CELLS if any(row.get(cell[0]) is not None for row in every)]
    lines = []
    for contest in found:
        for row in contest.rows:
            cells = "".join(f"<td>{_cell(row.get(key), digits)}</td>" for key, _, digits in columns)
            lines.append(
                f'<tr><th>{escape(contest.title)}</th><td class="text">{escape(series_of(row))}</td>{cells}</tr>'
            )
    titles = ("data", "side", *(title for _, title, _ in columns))
    return f"<details><summary>{len(lines)} rows</summary>{framed(titles, lines, {0, 1})}</details>"


def _cell(value: Any, digits: int) -> str:
    match value:
        case None:
            return ""
        case bool() | str():
            return escape(str(value))
    return f'<data value="{value!r}">{value:,.{digits}f}</data>'


def _origin(machines: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> str:
    loads = [row["load"] for row in rows if row.get("load") is not None]
    facts = []
    for machine in machines:
        versions = machine.get("versions", {})
        told = [
            f"{machine.get('cpus')} x {machine.get('cpu')}",
            f"{machine['memory_gib']} GiB" if machine.get("memory_gib") else "",
            str(machine.get("system")),
            f"Python {machine.get('python')}",
            *(f"{name} {number}" for name, number in versions.items()),
        ]
        facts.append((str(machine.get("date", "Run")), escape(", ".join(filter(None, told)))))
    if loads:
        facts.append(("Load", f"{min(loads):.1f} to {max(loads):.1f} on average over a minute, ours included"))
    facts.append(("Rows", f"{len(rows):,}"))
    shown = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in dict.fromkeys(facts))
    return f"<section><h2>Where this comes from</h2><dl>{shown}</dl></section>"
