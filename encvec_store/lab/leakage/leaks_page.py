"""The report's sections on what leaks beside names, and on who comes up."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..pages.charts import Axis, Line, Point, bar, plot
from ..pages.tables import framed
from .findings import Finding, Leaks
from .reading import percent

__all__ = ["INTRODUCTION", "accuracy", "questions"]

INTRODUCTION = (
    "A thief may learn something without naming a record. Each bar is the most that any trial under any key gave; the "
    "dashed mark is what luck gives in one of twenty trials where nothing leaks, the thin line runs from the best key "
    "to the worst."
)
_AXIS = Axis("", 0.0, 1.0, [(0.0, "0"), (0.25, ""), (0.5, "50%"), (0.75, ""), (1.0, "100%")], linear=True)
_SIGNS = {"chance": "○", "little": "□", "leaks": "△", "broken": "◆"}


def questions(found: Sequence[Leaks]) -> str:
    """Bars of each scheme's findings, with linkage and membership in words; empty where there are none."""
    own = [one for one in found if not one.control and _asked(one)]
    controls = [one for one in found if one.control and _asked(one)]
    if not own and not controls:
        return ""
    out = "".join(map(_bars, own))
    if controls:
        shown = "".join(map(_bars, controls))
        if own:
            shown = f"<details><summary>{len(controls)} controls, built to leak</summary>{shown}</details>"
        out += shown
    return out + _curves(found)


def _asked(one: Leaks) -> list[str]:
    return [probe for probe in one.by_probe if probe != "accuracy"]


def _bars(one: Leaks) -> str:
    out, words = [], []
    for probe in _asked(one):
        worst, (low, high) = one.worst(probe), one.bounds(probe)
        value, null = worst.figure(worst.value), worst.figure(worst.null)
        words.append(worst.sentence())
        title = f"{worst.question()} {worst.measure} {value}, luck up to {null}; key {worst.key}"
        drawn = bar(_AXIS, max(0.0, worst.value), max(0.0, low), max(0.0, high), worst.null, worst.level, title)
        out.append(
            f'<div class="who">{escape(worst.question())}</div>{drawn}<div class="figure {worst.level}"><b>'
            f'{_SIGNS[worst.level]} <data value="{worst.value!r}">{value}</data></b> <small>{_unit(worst)} '
            f'<data value="{worst.null!r}">{null}</data></small></div>'
        )
    name = f'<div class="name">{escape(one.name)}, {one.n:,} records</div>'
    said = f'<p class="said">{escape(" ".join(word for word in words if word))}</p>' if any(words) else ""
    return f'<div class="bars asked">{name}{said}{"".join(out)}</div>'


def _unit(finding: Finding) -> str:
    words = {
        "d_sys": "D_sys, luck",
        "auc": "right, luck",
        "information": "told, luck",
        "joined": "of the way, luck",
        "accuracy": "right, luck",
        "identified": "named, luck",
        "cosine": "cosine, one copy",
        "rank_correlation": "correlation, luck",
    }
    return escape(words.get(finding.measure, f"{finding.measure}, luck"))


def _curves(found: Sequence[Leaks]) -> str:
    """D(s): where the scores of two copies of a record lie, and how surely they tell that it is the same."""
    out = []
    for one in found:
        if "linkage" not in one.by_probe or not (curve := (worst := one.worst("linkage")).curve()):
            continue
        low, high = min(-0.01, curve[0][0]), max(0.01, curve[-1][0])
        ticks = [(low, f"{low:.2f}"), (high, f"{high:.2f}")]
        x = Axis("score of a pair", low, high, ticks, linear=True)
        y = Axis("D(s)", 0.0, 1.0, [(0.0, "0"), (0.5, "0.5"), (1.0, "1")], linear=True)
        kind = "disjoint" if worst.level == "chance" else worst.level  # the sheet draws lines of chance dashed
        line = Line(kind, [Point(score, d, d, d, "") for score, d in curve], marked=False)
        name = f"{escape(one.name)}, {one.n:,} records: D_sys {worst.figure(worst.value)}"
        out.append(f"<figure>{plot(x, y, [line], one.name)}<figcaption>{name}</figcaption></figure>")
    if not out:
        return ""
    return (
        "<details><summary>D(s): how surely a score tells that two records under two keys are the same</summary>"
        "<p>0: no more likely the same than not; 1: surely the same. D_sys is its mean over the records (ISO/IEC "
        f'24745; Gomez-Barrero et al., 2018).</p><div class="grids">{"".join(out)}</div></details>'
    )


def accuracy(found: Sequence[Leaks]) -> str:
    """A table of error rates, the worst key's; empty where no identities were known."""
    out = []
    for one in found:
        if "accuracy" not in one.by_probe:
            continue
        for kind, rates in one.worst("accuracy").rates():
            cells = "".join(f'<td><data value="{rate!r}">{percent(rate)}</data></td>' for rate in rates.values())
            out.append(
                f'<tr><th>{escape(one.name)}</th><td>{one.n:,}</td><td class="text">{escape(kind)}</td>{cells}</tr>'
            )
    titles = ("scheme", "enrolled", "scores of", "equal error", "accepted at 1%", "at 0.1%", "right one first")
    return framed(titles, out, {0, 2})
