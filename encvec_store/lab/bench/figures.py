"""Figures of the bench's page, as HTML with SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ..pages.charts import SHAPES, Axis, Line, Point, bar, plot, scale, sign
from .job import Row
from .reading import GOOD, Contest, frontier, growths, noises, series_of

__all__ = ["Look", "growth", "left_out", "looks", "noise", "overheads", "pareto"]

KINDS = ("plaintext", "sketch", "sap", "sealed", "cells")
PEER_COLOURS = 5
_RECALLS = [(0.5, "50%"), (0.1, "90%"), (0.01, "99%"), (0.001, "99.9%"), (0.0001, "100%")]
_QUANTITIES = (
    ("p50_ms", "p50 ms"),
    ("cpu_ms", "processor ms a query"),
    ("build_cpu_s", "processor s to build"),
    ("bytes", "bytes in all"),
    ("peak_rss_mb", "RSS MiB less libraries"),
)
_OVERHEADS = (
    ("p50_ms", "latency, p50"),
    ("p99_ms", "latency, p99"),
    ("cpu_ms", "processor time a query"),
    ("qps_threads", "queries/s by threads, theirs over ours"),
    ("qps_batch", "queries/s in batch, theirs over ours"),
    ("build_s", "time to build"),
    ("build_cpu_s", "processor time to build"),
    ("bytes", "bytes in all"),
    ("index_bytes", "bytes of the index"),
    ("private_mb", "private memory"),
)


def kind_of(row: Mapping[str, Any], peers: Sequence[str] = ()) -> str:
    """Return a row's class of the style sheet: names from rows never become one; peers by their place in `peers`."""
    if row.get("peer"):
        return f"peer{list(peers).index(row['peer']) % PEER_COLOURS}" if row["peer"] in peers else "other"
    name = row["scheme"] if row["scheme"] in KINDS else "other"
    return name if row["reranked"] or name == "plaintext" else f"{name} thin"


def peers_in(rows: Sequence[Row]) -> list[str]:
    """Return the peers there are, in the order of their colours."""
    return sorted({str(row["peer"]) for row in rows if row.get("peer")})


@dataclass(frozen=True)
class Look:
    """How a series is drawn: a class of the style sheet, and a marker that no other series of the plot has."""

    kind: str
    shape: str
    hollow: bool = False

    def line(self, points: Sequence[Point], *, joined: bool = True) -> Line:
        """Return points as this series draws them."""
        return Line(self.kind, points, joined, shape=self.shape, hollow=self.hollow)

    def sign(self, words: str) -> str:
        """Return its entry of a legend."""
        return sign(self.kind, self.shape, words, hollow=self.hollow)


_ALONE = ", index alone"


def looks(found: Mapping[str, Row], peers: Sequence[str] = ()) -> dict[str, Look]:
    """Return how each series is drawn, by name and one of its rows. An index alone has its scheme's marker, hollow."""
    shapes: dict[str, str] = {}
    out = {}
    for name, row in found.items():
        whole = name.replace(_ALONE, "")
        shape = shapes.setdefault(whole, SHAPES[len(shapes) % len(SHAPES)])
        out[name] = Look(kind_of(row, peers), shape, name != whole)
    return out


def left_out(names: Sequence[str]) -> str:
    """Return a sentence on the series that a figure does not show, because none of their rows reaches the recall."""
    if not names:
        return ""
    listed = "; ".join(escape(name) for name in names)
    return f"<p>Not shown, because no setting reaches recall@10 of {100 * GOOD:g}%: {listed}.</p>"


def pareto(found: Sequence[Contest]) -> str:
    """Recall@10 against queries a second, a plot for each contest."""
    out = []
    every = [row for contest in found for row in contest.rows if row.get("recall@10") is not None]
    drawn = looks({series_of(row): row for row in every}, peers_in(every))
    for contest in found:
        rows = [row for row in contest.rows if row.get("recall@10") is not None]
        if not rows:
            continue
        y = _decades("queries a second", [row["qps"] for row in rows])
        worst = max(1 - float(row["recall@10"]) for row in rows)
        x = Axis("recall@10", 0.0001, max(0.02, min(1.0, worst * 1.2)), _RECALLS, reverse=True)
        x = Axis(x.title, x.low, x.high, [tick for tick in _RECALLS if tick[0] <= x.high], reverse=True)
        lines = []
        for name, some in contest.series().items():
            some = [row for row in some if row in rows]
            if not some:
                continue
            best = frontier(some)
            lines.append(drawn[name].line([_point(row, name) for row in best]))
            rest = [row for row in some if row not in best]
            if rest:
                lines.append(drawn[name].line([_point(row, name) for row in rest], joined=False))
        out.append(
            f"<figure>{plot(x, y, lines, contest.title)}<figcaption>{escape(contest.title)}</figcaption></figure>"
        )
    legend = "".join(look.sign(name) for name, look in drawn.items())
    return f'<div class="legend">{legend}</div><div class="grids large">{"".join(out)}</div>' if out else ""


def _point(row: Row, name: str) -> Point:
    effort = "" if row.get("effort") is None else f", effort {row['effort']}"
    wide = "" if row.get("oversample") is None else f", {row['oversample']} candidates a hit"
    title = (
        f"{name}{effort}{wide}: recall@10 {row['recall@10']:.4f}, {row['qps']:,.0f} queries/s, "
        f"p50 {row['p50_ms']:.3f} ms, p95 {row['p95_ms']:.3f} ms"
    )
    return Point(max(1 - float(row["recall@10"]), 1e-9), row["qps"], row["qps"], row["qps"], title)


def _decades(title: str, values: Sequence[float]) -> Axis:
    low = 10.0 ** math.floor(math.log10(max(1e-9, min(values) * 0.9)))
    high = 10.0 ** math.ceil(math.log10(max(values) * 1.1))
    powers = range(round(math.log10(low)), round(math.log10(high)) + 1)
    step = max(1, len(powers) // 6)
    return Axis(title, low, max(high, low * 10), [(10.0**power, _short(10.0**power)) for power in powers[::step]])


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def overheads(found: Sequence[Contest]) -> str:
    """Bars of ours over plaintext, at the recall that both reach."""
    axis = Axis("ratio", 0.1, 100, [(0.1, "0.1"), (1, "1x"), (10, "10x"), (100, "100x")])
    out: list[str] = []
    missing: list[str] = []
    for contest in found:
        base = contest.cheapest(contest.plaintext)
        if base is None:
            missing.append(f"{contest.title}: plaintext, and so all beside it")
            continue
        for name, rows in contest.series().items():
            if rows[0]["scheme"] == "plaintext" or not rows[0]["reranked"] or rows[0].get("peer"):
                continue
            best = contest.cheapest(rows)
            if best is None:
                missing.append(f"{contest.title}: {name}")
                continue
            out.append(f'<div class="name">{escape(contest.title)}: {escape(name)}</div>')
            for key, words in _OVERHEADS:
                if not best.get(key) or not base.get(key):
                    continue
                ratio = best[key] / base[key]
                if key.startswith("qps"):
                    ratio = 1 / ratio
                title = f"{words}: {ratio:.2f} times; ours {best[key]:,.6g}, plaintext {base[key]:,.6g}"
                drawn = bar(axis, ratio, ratio, ratio, 1.0, kind_of(best), title)
                out.append(
                    f'<div class="who">{escape(words)}</div>{drawn}'
                    f'<div class="figure"><data value="{ratio!r}">{ratio:.2f}x</data></div>'
                )
    if not out:
        return left_out(missing)
    ticks = "".join(f'<span style="left:{100 * axis.at(tick):.1f}%">{text}</span>' for tick, text in axis.ticks)
    line = f'<div class="who"></div><div class="ticks">{ticks}</div><div></div>'
    return f'<div class="bars">{line}{"".join(out)}{line}</div>{left_out(missing)}'


def noise(attacks: Sequence[Row]) -> str:
    """Recall and the best attack's success by noise, a plot for each subject of the leakage lab."""
    found = noises(attacks)
    if not found:
        return ""
    y = scale("share", min(subject.chance for subject in found))
    out = []
    for subject in found:
        betas = [beta for beta, _ in subject.named]
        x = Axis("noise, beta", betas[0] * 0.9, betas[-1] * 1.1, _apart(betas))
        chance = [Point(beta, subject.chance, subject.chance, subject.chance, "") for beta in betas]
        lines = [
            Line("chance", chance, marked=False),
            Line("sealed", [_share(beta, share, "recall among 100") for beta, share in subject.recall]),
            Line("sap", [_share(beta, share, "named by the best attack") for beta, share in subject.named]),
        ]
        name = escape(subject.subject)
        out.append(f"<figure>{plot(x, y, lines, subject.subject)}<figcaption>{name}</figcaption></figure>")
    legend = sign("sealed", "square", "true ten among 100 candidates")
    legend += sign("sap", "up", "records that an attack names")
    return f'<div class="legend">{legend}</div><div class="grids">{"".join(out)}</div>'


def _share(beta: float, share: float, words: str) -> Point:
    return Point(beta, share, share, share, f"beta {beta:g}: {100 * share:.4g}% {words}")


def _apart(values: Sequence[float]) -> list[tuple[float, str]]:
    ticks: list[tuple[float, str]] = []
    for value in values:
        if not ticks or value / ticks[-1][0] >= (values[-1] / values[0]) ** 0.14:
            ticks.append((value, f"{value:g}"))
    return ticks


def growth(rows: Sequence[Row]) -> str:
    """Quantities by number of records, with the exponent of each series."""
    out = []
    for quantity, words in _QUANTITIES:
        found = growths(rows, quantity)
        if not found:
            continue
        sizes = sorted({n for each in found for n, _ in each.points})
        x = Axis("records", sizes[0] * 0.9, sizes[-1] * 1.1, [(n, _short(n)) for n in _tens(sizes)])
        y = _decades(words, [value for each in found for _, value in each.points if value > 0])
        lines, told = [], []
        drawn = looks({each.name: each.row for each in found})
        for each in found:
            points = [
                Point(n, value, value, value, f"{each.name}: {words} {value:,.4g} at {n:,}")
                for n, value in each.points
                if value > 0
            ]
            lines.append(drawn[each.name].line(points))
            fitted = each.exponent
            power = f" <span>n<sup>{fitted[0]:.2f}</sup></span>" if fitted else ""
            told.append(f"<span>{drawn[each.name].sign(each.name)}{power}</span>")
        legend = f'<div class="legend">{"".join(told)}</div>'
        out.append(f"<figure>{plot(x, y, lines, words)}<figcaption>{escape(words)}</figcaption>{legend}</figure>")
    return f'<div class="grids">{"".join(out)}</div>' if out else ""


def _tens(sizes: Sequence[int]) -> list[int]:
    return [10**power for power in range(9) if sizes[0] <= 10**power <= sizes[-1]] or list(sizes)
