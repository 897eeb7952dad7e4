"""The page of a calibration: recall by noise, what else was tried, what attacks found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ... import Calibration
from . import shell
from .charts import SHAPES, Axis, Line, Point, plot, scale, sign
from .tables import framed

__all__ = ["page"]

_KINDS = ("sketch", "sap", "sealed", "cells", "peer0", "peer2", "peer3")
_MARKERS = [shape for shape in SHAPES if shape != "star"]  # the star is what was chosen
_MISSED = [(1.0, "0%"), (0.5, "50%"), (0.1, "90%"), (0.01, "99%"), (0.001, "99.9%"), (0.0001, "100%")]
_NOTHING = 0.0001
"""Share of misses at the edge of the plot: 100% has no place on a logarithmic axis."""


def page(found: Calibration) -> str:
    """Return an HTML page that stands alone."""
    parts = [
        _head(found),
        _section("Recall by noise", _recalls(found), "More noise hides more and needs more candidates. Each line "
                 "is a number of re-ranked candidates, the star is what was chosen, the dashed line is the target."),
        _section("What else was tried", _choices(found), "The most noise that meets the target, by dimensions and by "
                 "the exponent on queries (gamma). Dashed: the floor, below which our own attacks succeed."),
        _section("What attacks found", _attack(found), "Share of the sample's own vectors that our attacks identify "
                 "without the key. Dashed: chance."),
        f"<section><h2>All figures</h2>{_facts(found)}</section>",
    ]  # fmt: skip
    return shell.document(f"Calibration of {found.scheme}", parts)


def _section(title: str, content: str, words: str) -> str:
    return f"<section><h2>{title}</h2><p>{escape(words)}</p>{content}</section>" if content else ""


def _head(found: Calibration) -> str:
    said = (
        f"Beta {found.beta:g} with {found.dimensions} dimensions finds {100 * found.recall:.2f}% of the true {found.k} "
        f"(at least {100 * found.recall_low:.2f}%) when {found.k * found.oversample:,} candidates are re-ranked."
    )
    weak = f"<p><b>{escape(found.weakness())}</b></p>" if found.weak else ""
    return f'<header><h1>Noise for {escape(found.scheme)}</h1><p class="lead">{escape(said)}</p>{weak}</header>'


def _recalls(found: Calibration) -> str:
    rows = found.frontier
    top = max(row["beta"] for row in rows)
    y = Axis(f"recall@{found.k}", _NOTHING, 1.0, _MISSED, reverse=True)
    lines = [_rule(0.0, top, max(1 - found.target_recall, _NOTHING))]
    legend = []
    for place, count in enumerate(sorted({row["candidates"] for row in rows})):
        kind, shape = _look(place)
        points = [
            _point(row["beta"], max(1 - row["recall"], _NOTHING), f"beta {row['beta']:g}, {count:g} candidates: "
                   f"{100 * row['recall']:.2f}%")
            for row in rows if row["candidates"] == count
        ]  # fmt: skip
        lines.append(Line(kind, points, shape=shape))
        legend.append(sign(kind, shape, f"{count:g} candidates"))
    chosen = _point(found.beta, max(1 - found.recall, _NOTHING), "chosen")
    lines.append(Line("other", [chosen], joined=False, shape="star"))
    return _framed(plot(_linear("noise, beta", max(top, found.beta)), y, lines, "Recall by noise"), legend)


def _choices(found: Calibration) -> str:
    met = [row for row in found.choices if row["beta"] is not None]
    if len(found.choices) < 2 or not met:
        return ""
    most = max(max(row["beta"] for row in met), found.floor)
    wide = max(row["dimensions"] for row in found.choices)
    lines = [_rule(0.0, wide, found.floor)] if found.floor else []
    legend = []
    for place, gamma in enumerate(sorted({row["gamma"] for row in met}, key=lambda gamma: gamma or 0.0)):
        kind, shape = _look(place)
        words = "without gamma" if gamma is None else f"gamma {gamma:g}"
        points = [
            _point(row["dimensions"], row["beta"], f"{row['dimensions']} dimensions, {words}: beta {row['beta']:.2f}")
            for row in sorted(met, key=lambda row: row["dimensions"]) if row["gamma"] == gamma
        ]  # fmt: skip
        lines.append(Line(kind, points, shape=shape))
        legend.append(sign(kind, shape, words))
    lines.append(Line("other", [_point(found.dimensions, found.beta, "chosen")], joined=False, shape="star"))
    drawn = plot(_linear("dimensions", wide), _linear("most noise, beta", most), lines, "Most noise by dimensions")
    missed = [row for row in found.choices if row["beta"] is None]
    told = "; ".join(
        f"{row['dimensions']} dimensions" + ("" if row["gamma"] is None else f", gamma {row['gamma']:g}")
        for row in missed
    )
    return _framed(drawn, legend) + (f"<p>Not shown, because no noise meets the target: {told}.</p>" if missed else "")


def _attack(found: Calibration) -> str:
    if not found.attack:
        return ""
    rows: Sequence[Mapping[str, Any]] = found.attack["by_beta"]
    chance = float(rows[0]["chance"])
    y = scale("identified without the key", chance)
    top = max(float(row["beta"]) for row in rows)
    points = [
        Point(row["beta"], max(row["identified"], y.low), row["ci_low"], row["ci_high"],
              f"beta {row['beta']:g}: {100 * row['identified']:.3g}% by {row['attack']}")
        for row in rows
    ]  # fmt: skip
    drawn = plot(_linear("noise, beta", top), y, [_rule(0.0, top, chance), Line("broken", points)], "Attacks by noise")
    lines = [
        f"<tr><td>{row['beta']:g}</td><td>{100 * row['identified']:.3g}%</td><td>{100 * row['chance']:.3g}%</td>"
        f'<td class="text">{escape(str(row["attack"]))}</td><td class="text">{escape(str(row["adversary"]))}</td>'
        f"<td>{row['n']:,}</td></tr>"
        for row in rows
    ]
    heads = ("beta", "identified", "chance", "attack", "adversary", "records")
    return _framed(drawn, []) + framed(heads, lines, {3, 4})


def _facts(found: Calibration) -> str:
    told = {name: value for name, value in found.to_dict().items() if name not in ("choices", "frontier", "attack")}
    shown = (
        f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{'' if value is None else escape(str(value))}</dd>"
        for name, value in told.items()
    )
    return f"<dl>{''.join(shown)}</dl>"


def _look(place: int) -> tuple[str, str]:
    return _KINDS[place % len(_KINDS)], _MARKERS[place % len(_MARKERS)]


def _point(x: float, y: float, title: str) -> Point:
    return Point(x, y, y, y, title)


def _rule(left: float, right: float, height: float) -> Line:
    """A dashed line across the plot."""
    return Line("chance", [_point(left, height, ""), _point(right, height, "")], marked=False)


def _linear(title: str, top: float) -> Axis:
    """From 0 to above the top, with up to seven round ticks."""
    high = 1.05 * top
    step = next(
        step for size in (0.1, 1, 10, 100, 1000, 10000) for step in (size, 2 * size, 5 * size) if high / step < 7
    )
    ticks = [step * place for place in range(int(high / step) + 1)]
    return Axis(title, 0.0, high, [(tick, f"{tick:g}") for tick in ticks], linear=True)


def _framed(drawn: str, legend: Sequence[str]) -> str:
    return f'<div class="legend">{"".join(legend)}</div><div class="single">{drawn}</div>'
