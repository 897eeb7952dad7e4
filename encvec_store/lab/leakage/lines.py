"""The report's plots over records and over known pairs, and what all its figures share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ..pages.charts import Axis, Line, Point, plot
from .reading import HELD, SchemeRow, TrialRow, held, percent, who

__all__ = ["adversaries", "curves", "pairs", "safe", "title", "value"]


def value(share: float) -> str:
    """A figure, with the row's own number beside what is shown."""
    return f'<data value="{share!r}">{percent(share)}</data>'


def adversaries(trials: Iterable[TrialRow]) -> list[str]:
    """Whom the trials were made for, in the order of HELD."""
    names = {trial.adversary for trial in trials}
    return [name for name in HELD if name in names] + sorted(names - set(HELD))


def title(trial: TrialRow) -> str:
    """What is shown over a point or bar."""
    return (
        f"{percent(trial.identified)} of {trial.n:,} records, 95% interval {percent(trial.low)} to "
        f"{percent(trial.high)}, chance {percent(trial.chance)}; {trial.how}, key {trial.key}, "
        f"holding {held(trial)}"
    )


def safe(name: str) -> str:
    """A class of the style sheet: names from rows never become one."""
    corpus = name.partition("+")[0]
    return corpus if corpus in HELD else "other"


def curves(found: Sequence[SchemeRow], y: Axis) -> str:
    """Plots of what is named against records under a key; empty where each scheme has one size."""
    out, seen = [], set()
    for number, scheme in enumerate(found, 1):
        sizes = sorted({trial.n for trial in scheme.alone})
        if len(sizes) < 2:
            continue
        lines = [Line("chance", [Point(n, 1 / n, 1 / n, 1 / n, "") for n in sizes], marked=False)]
        for adversary in adversaries(scheme.alone):
            mine = [trial for trial in scheme.alone if trial.adversary == adversary]
            lines.append(Line(safe(adversary), _worst_by(mine, "n")))
            seen.add(adversary)
        x = Axis("records under one key", sizes[0] * 0.9, sizes[-1] * 1.1, _spread(sizes))
        out.append(
            f"<figure>{plot(x, y, lines, scheme.name)}<figcaption>{number} {escape(scheme.name)}</figcaption></figure>"
        )
    signs = {"disjoint": "●", "same": "■", "superset": "▲"}
    legend = "".join(
        f'<span class="{safe(name)}">{signs.get(name, "●")} {escape(who(name))}</span>'
        for name in [*(name for name in HELD if name in seen), *sorted(seen - set(HELD))]
    )
    return f'<div class="legend">{legend}</div><div class="grids">{"".join(out)}</div>' if out else ""


def pairs(found: Sequence[SchemeRow], y: Axis) -> str:
    """Plots of what is named against known pairs; of cells, those with the pairs and all others apart."""
    out = []
    for number, scheme in enumerate(found, 1):
        for n in sorted({trial.n for trial in scheme.trials if trial.pairs}):
            known = [trial for trial in scheme.trials if trial.pairs and trial.n == n]
            beyond = [trial for trial in known if trial.way == "without pairs"]
            mine = [trial for trial in known if trial.way != "without pairs"]
            counts = sorted({trial.pairs for trial in known})
            name = f"{number} {escape(scheme.name)}, n={n:,}"
            if len(counts) < 2:
                tops = [max(some, key=lambda trial: trial.identified) for some in (mine, beyond) if some]
                shown = "; ".join(f"{value(top.identified)} ({escape(top.how)})" for top in tops)
                out.append(f"<p>{name}: {counts[0]} pairs, {shown}.</p>")
                continue
            chance = [Point(count, 1 / n, 1 / n, 1 / n, "") for count in counts]
            lines = [Line("chance", chance, marked=False), Line("pairs", _worst_by(mine, "pairs"))]
            if beyond:
                lines.append(Line("disjoint", _worst_by(beyond, "pairs")))
                name += ": ◆ the cell with the pairs, ● all other cells"
            x = Axis("known pairs", counts[0] * 0.9, counts[-1] * 1.1, _spread(counts))
            out.append(f"<figure>{plot(x, y, lines, 'Known pairs')}<figcaption>{name}</figcaption></figure>")
    return f'<div class="grids">{"".join(out)}</div>' if out else ""


def _worst_by(trials: Sequence[TrialRow], field: str) -> list[Point]:
    top: dict[int, TrialRow] = {}
    for trial in sorted(trials, key=lambda t: t.identified):
        top[getattr(trial, field)] = trial
    return [Point(value, t.identified, t.low, t.high, title(t)) for value, t in sorted(top.items())]


def _spread(values: Sequence[int]) -> list[tuple[float, str]]:
    """Ticks at the values, left out where they would touch on a logarithmic axis."""
    ticks: list[tuple[float, str]] = []
    for value in values:
        if not ticks or value / ticks[-1][0] >= (values[-1] / values[0]) ** 0.16:
            ticks.append((value, f"{value:,}" if value < 10_000 else f"{value / 1000:g}k"))
    return ticks
