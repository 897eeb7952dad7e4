"""The lab's report: rows to one HTML page that stands alone and says who can read what.

Nothing is loaded from anywhere and no script runs: the page's own policy forbids both. All text of rows is escaped.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from ...errors import InputError
from ...sealing import DEFAULT_SCHEME
from ..pages import shell
from ..pages.charts import Axis, Line, Point, bar, plot, scale
from ..pages.tables import framed
from .findings import Finding, leaks, part
from .leaks_page import INTRODUCTION, accuracy, questions
from .lines import adversaries, curves, pairs, safe, title, value
from .overview import overview
from .reading import HELD, LEVELS, SchemeRow, TrialRow, held, percent, read, schemes, who
from .sealed import copies
from .theft import Telling
from .watched import watchers
from .words import LIMITS, READING

__all__ = ["page", "write"]

_WORDS = {
    "chance": ("No better than chance", "○"),
    "little": ("Leaks a little", "□"),
    "leaks": ("Leaks", "△"),
    "broken": ("Broken", "◆"),
    "untried": ("Not tried", "?"),
}
_CANDIDATES = (200, 100, 500, 50, 10)


def write(path: Path, rows: Iterable[Any], command: str = "", told: Sequence[Telling] = ()) -> None:
    """Write the page of rows to a file: whole, or not at all. Raises InputError where no row can be read."""
    shell.write(path, page(rows, command, told))


def page(rows: Iterable[Any], command: str = "", told: Sequence[Telling] = ()) -> str:
    """Return the HTML page of rows: as `run`, `probe`, `sealed_rows` and `watched_rows` return them, or JSON lines.

    With `told`, what was read in a copy of a store stands there too. Raises InputError where no row can be read.
    """
    copied, others = copies(rows)
    watched, others = watchers(others)
    findings, others = part(others)
    trials, refused = read(others)
    if not trials and not findings and not copied:
        raise InputError("there are no rows of the leakage lab to report on")
    found = schemes(trials)
    shown = [scheme for scheme in found if not scheme.control] or found  # controls stand in the table
    axis = scale("records named", min((trial.chance for trial in trials), default=0.001))
    beside = leaks(findings)
    parts = [
        overview(found, copied, watched),
        _section("What a copy of the store tells", _told(told), "Read as a thief reads it, without a key."),
        _verdicts(found) if found else "",
        _section("What the thief held", _bars(shown, axis), "Worst attack without known pairs. Logarithmic: each "
                 "line is ten times the one before. Dashed mark: chance. Thin line: 95% interval."),
        _section("What it costs the owner", _frontier(shown, axis), "Numbers are those of the list above. Good "
                 "is low and right: true neighbours found, records not named."),
        _section("How much may stand under one key", curves(found, axis), "More ciphertexts under a key give a thief "
                 "more to align. Worst over attacks and keys; dashed: chance; none named is drawn at the foot."),
        _section("If the thief already knows some records", pairs(found, axis), "Known pairs: records whose vector "
                 "and ciphertext are both known. Counted are the others."),
        _section("Linkable, renewable, member or not", questions(beside), INTRODUCTION),
        _section("Does the right one come up?", accuracy(beside), "Vectors of those who are enrolled against other "
                 "ones of them: how often a right pair is refused as a wrong one is taken (equal error), and right "
                 "pairs accepted at 1% and 0.1% of wrong ones. The owner decides on re-ranked scores."),
        f"<section><h2>How to read this</h2>{READING}</section>" if found else "",
        f'<section class="limits"><h2>What this does not prove</h2>{LIMITS}{_gaps(found) if found else ""}</section>',
        _section("Every attack", _table(found), "Worst and median over keys. Cosine: of what the thief rebuilds with "
                 "the truth, the mean taken off; 1 is the record itself."),
        _origin([*trials, *findings], refused, command),
    ]  # fmt: skip
    return shell.document("Leakage report", parts)


# --------------------------------------------------------------------------------------------- inside


def _section(title: str, content: str, words: str) -> str:
    return f"<section><h2>{title}</h2><p>{words}</p>{content}</section>" if content else ""


def _verdicts(found: Sequence[SchemeRow]) -> str:
    own = [scheme for scheme in found if not scheme.control]
    controls = [scheme for scheme in found if scheme.control]
    tried = [scheme for scheme in own if scheme.worst]
    out = ["<section><h2>What a stolen index gives away</h2>"]
    if len(tried) == 1:
        out.append(f'<p class="lead">{escape(tried[0].name)}: {escape(tried[0].sentence())}</p>')
    elif tried:
        bad = sum(scheme.verdict in ("leaks", "broken") for scheme in tried)
        out.append(
            f'<p class="lead">In {bad} of {len(tried)} settings tried, a thief without the key puts the right name to '
            "more than 1% of the records.</p>"
        )
    out.append(
        "<p>The thief copied the stored index vectors, knows the program and its settings but not the key, and has "
        "other data to compare with. To name a record is to know what it says.</p>"
    )
    counts = {level: sum(scheme.verdict == level for scheme in own) for level in reversed(LEVELS)}
    chips = [
        f'<span class="{level}">{_WORDS[level][1]} <b>{count}</b> {_WORDS[level][0].lower()}</span>'
        for level, count in counts.items() if count
    ]  # fmt: skip
    out.append(f'<p class="legend chips">{"".join(chips)}</p>' if len(own) > 1 else "")
    if own:
        out.append('<ol class="verdicts">' + "".join(_verdict(at, s) for at, s in enumerate(own, 1)) + "</ol>")
    if controls:
        broke = sum(scheme.verdict in ("leaks", "broken") for scheme in controls)
        cards = "".join(_verdict(at, scheme) for at, scheme in enumerate(controls, len(own) + 1))
        out.append(
            f"<details{'' if own else ' open'}><summary>{broke} of {len(controls)} controls broke. They are built to "
            f'break, to show that the attacks work.</summary><ol class="verdicts">{cards}</ol></details>'
        )
    return "".join([*out, "</section>"])


def _told(lines: Sequence[Telling]) -> str:
    rows = [
        f'<tr><th>{escape(line.collection)}</th><td class="text">{escape(line.what)}</td><td>{escape(line.amount)}</td>'
        f'<td class="text">{escape(line.tells)}</td></tr>'
        for line in lines
    ]
    shown = framed(("collection", "what", "how much", "what it tells"), rows, {0, 1, 3})
    return f'<div class="told">{shown}</div>' if shown else ""


def _verdict(number: int, scheme: SchemeRow) -> str:
    word, sign = _WORDS[scheme.verdict]
    worst, broken, beyond = scheme.worst, scheme.breaking_pairs(), scheme.beyond()
    facts, share = [], "?"
    if worst:
        share = value(worst.identified)
        facts.append(f"Chance: {value(worst.chance)}. Attack: {escape(worst.attack)}.")
        if scheme.verdict == "chance":
            facts.append(f"Tried: {scheme.tried()}.")
    if broken:
        known, others = ("pairs in one cell", "its other records") if broken.way else ("pairs", "the others")
        facts.append(f"With {broken.pairs} known {known}: {value(broken.identified)} of {others}.")
    if beyond:
        most = max(trial.pairs for trial in scheme.trials if trial.way == "without pairs")
        facts.append(f"Up to {most} pairs in one cell: at most {value(beyond.identified)} of records in other cells.")
    for candidates in _CANDIDATES:
        if recall := scheme.recall(candidates):
            facts.append(
                f"The owner finds {percent(recall[0])} of the true ten ({candidates} of {recall[1]:,} fetched)."
            )
            break
    return (
        f'<li class="{scheme.verdict}"><span class="number">{number}</span>'
        f'<div class="share"><strong>{share}</strong></div>'
        f'<div><h3>{escape(scheme.name)} <span class="tag">{sign} {word}</span></h3>'
        f'<p>{escape(scheme.sentence())}</p><p class="facts">{" ".join(facts)}</p></div></li>'
    )


def _bars(found: Sequence[SchemeRow], axis: Axis) -> str:
    out = []
    for number, scheme in enumerate(found, 1):
        if not scheme.alone:
            continue
        out.append(f'<div class="name">{number} {escape(scheme.name)}</div>')
        for adversary in adversaries(scheme.alone):
            mine = SchemeRow(scheme.name, scheme.control, [t for t in scheme.alone if t.adversary == adversary])
            worst = mine.worst
            assert worst is not None  # noqa: S101 - the adversary is one of these trials'
            shown = bar(axis, worst.identified, worst.low, worst.high, worst.chance, safe(adversary), title(worst))
            out.append(
                f'<div class="who">{escape(who(adversary))}, n={worst.n:,}</div>{shown}'
                f'<div class="figure">{value(worst.identified)}</div>'
            )
    if not out:
        return ""
    ticks = "".join(f'<span style="left:{100 * axis.at(tick):.1f}%">{text}</span>' for tick, text in axis.ticks[::2])
    line = f'<div class="who"></div><div class="ticks">{ticks}</div><div></div>'
    return f'<div class="bars">{line}{"".join(out)}{line}</div>'


def _frontier(found: Sequence[SchemeRow], y: Axis) -> str:
    counted = {count: sum(s.recall(count) is not None for s in found if s.worst) for count in _CANDIDATES}
    candidates = max(_CANDIDATES, key=lambda count: counted[count])
    points: dict[str, list[Point]] = {}
    for number, scheme in enumerate(found, 1):
        recall, worst = scheme.recall(candidates), scheme.worst
        if recall is not None and worst is not None:
            said = f"{scheme.name}: recall {percent(recall[0])} of {recall[1]:,}; {title(worst)}"
            point = Point(max(1 - recall[0], 1e-9), worst.identified, worst.low, worst.high, said, str(number))
            points.setdefault(scheme.verdict, []).append(point)
    if not points:
        return ""
    ticks = [(0.3, "70%"), (0.1, "90%"), (0.01, "99%"), (0.001, "99.9%"), (0.0001, "99.99%")]
    x = Axis(f"true ten found among {candidates} candidates", 0.0001, 0.5, ticks, reverse=True)
    lines = [Line(level, points[level], joined=False) for level in LEVELS if level in points]
    legend = "".join(f'<span class="{level}">{_WORDS[level][1]} {_WORDS[level][0]}</span>' for level in points)
    return f'<div class="legend">{legend}</div><div class="single">{plot(x, y, lines, "Recall and attacker")}</div>'


def _table(found: Sequence[SchemeRow]) -> str:
    out = []
    for number, scheme in enumerate(found, 1):
        groups: dict[tuple[Any, ...], list[TrialRow]] = {}
        for trial in scheme.trials:
            groups.setdefault((trial.n, trial.adversary, trial.pairs, trial.attack, trial.view, trial.way), []).append(
                trial
            )
        for _, group in sorted(groups.items()):
            worst = max(group, key=lambda trial: trial.identified)
            cells = [
                f"<th>{number} {escape(scheme.name)}</th>",
                f"<td>{worst.n:,}</td>",
                f'<td class="text">{escape(held(worst))}</td>',
                f'<td class="text">{escape(worst.how)}</td>',
                f"<td>{value(worst.identified)}</td>",
                f"<td>{value(median(trial.identified for trial in group))}</td>",
                f"<td>{percent(worst.low)} to {percent(worst.high)}</td>",
                f"<td>{percent(worst.chance)}</td>",
                f"<td>{len({trial.key for trial in group})}</td>",
                f"<td>{'' if worst.cosine is None else f'{worst.cosine:.2f}'}</td>",
            ]
            out.append(f"<tr>{''.join(cells)}</tr>")
    titles = ("scheme", "records", "the thief held", "attack, view", "worst", "median", "95% of worst", "chance",
              "keys", "cosine")  # fmt: skip
    return framed(titles, out, {0, 2, 3})


def _gaps(found: Sequence[SchemeRow]) -> str:
    """What this page in particular has not tried."""
    said = []
    controls = [scheme for scheme in found if scheme.control and scheme.worst]
    standing = [scheme.name for scheme in controls if scheme.verdict in ("chance", "little")]
    if not controls:
        said.append("No control was run beside these schemes: nothing here shows that the attacks work on these data.")
    if standing:
        said.append(f"These controls should have broken and did not: {', '.join(standing)}. Where they stand, what was "
                    "tried was too weak to say anything of others.")  # fmt: skip
    for scheme in found:
        if scheme.verdict == "chance" and scheme.trials[0].subject != DEFAULT_SCHEME:  # of it nothing can be attacked
            tried = {trial.adversary for trial in scheme.alone}
            left = [words for name, words in HELD.items() if name not in tried]
            said.append(
                f"{scheme.name}: at most {max(trial.n for trial in scheme.alone):,} records {_where(scheme)}, "
                f"{scheme.tried()}" + (f"; not tried: a thief who has {' or '.join(left)}." if left else ".")
            )
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in said)}</ul>" if said else ""


def _where(scheme: SchemeRow) -> str:
    cells = dict(scheme.alone[0].parameters).get("cells", 1)
    return f"in {cells} cells" if cells != 1 else "under a key"


def _origin(trials: Sequence[TrialRow | Finding], refused: int, command: str) -> str:
    versions = sorted({f"{name} {number}" for trial in trials for name, number in trial.versions.items()})
    keys = sorted({trial.key for trial in trials})
    numbers = f"keys {keys[0]} to {keys[-1]}" if len(keys) > 1 else f"key {keys[0]}" if keys else ""
    seeds = f"{numbers}: a key's number seeds the key, the records drawn and the noise" if keys else ""
    facts = [
        ("Command", f"<code>{escape(command)}</code>" if command else "not told"),
        ("Data", escape(", ".join(sorted({trial.corpus for trial in trials})))),
        ("Seeds", seeds),
        ("Measured with", escape(", ".join(versions)) or "not told"),
        ("Page made on", escape(f"Python {platform.python_version()}")),
        ("Trials", f"{len(trials):,}" + (f"; {refused:,} lines were no rows and are left out" if refused else "")),
    ]
    shown = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts if value)
    return f"<section><h2>Where this comes from</h2><dl>{shown}</dl></section>"
