"""The report's first screen: who stole what, what he learns, and what would change it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from .lines import title, value
from .reading import SchemeRow, TrialRow, percent, schemes
from .reference import IN_ORDER, REFERENCE, WATCHED, WHENCE
from .sealed import Copied
from .watched import Watched

__all__ = ["overview"]

_NOTHING = "nothing beyond sizes and counts"
_ORDER = "nothing beyond sizes, counts and order"
_UNTRIED, _ELSEWHERE = "not tried here", " elsewhere"
_COLUMNS = (("sealed", "sealed (the default)"), ("sketch", "sketch"), ("sap", "sap"))
_HALF, _SURE = 0.5, 0.05
_HIDES = 'threat="watching-server"'


def _beside(trial: TrialRow) -> str:
    return trial.adversary.partition("+")[2]


def _corpus(trial: TrialRow) -> str:
    return trial.adversary.partition("+")[0]


def _alone(trial: TrialRow, *corpora: str) -> bool:
    return not trial.pairs and _corpus(trial) in corpora and trial.attack != "naive"


_THEFTS: tuple[tuple[str, str, Callable[[TrialRow], bool]], ...] = (
    ("A copy of the store", "files, a dump, a backup; nothing else", lambda t: t.attack == "naive" and not t.pairs),
    (
        "The copy, and other texts of the kind",
        "what anybody can collect",
        lambda t: _alone(t, "disjoint") and not _beside(t),
    ),
    (
        "The copy, and the very same texts",
        "a partner, or who had the source; also in the order of writing",
        lambda t: _alone(t, "same", "superset") and _beside(t) in ("", "order", "sizes"),
    ),
    ("The copy, and some known pairs", "he knows which records these are", lambda t: bool(t.pairs)),
    (
        "The copy, and labels",
        "a plain or blind field shows a class of each record",
        lambda t: not t.pairs and _beside(t) in ("classes", "tokens"),
    ),
    ("Several copies over time", "encrypted anew in between", lambda t: not t.pairs and _beside(t) == "dumps"),
    (
        "A server that watches searches",
        "it has the copy, and sees which rows are read together",
        lambda t: not t.pairs and _beside(t) == "reads",
    ),
)
_OTHERS, _SAME, _LABELS, _OPTIONAL, _WATCHING = 1, 2, 4, 5, 6
_MORE = {3: "without a pair", _LABELS: "without labels", _WATCHING: "by its copy alone"}
"""Thefts of more than the copy and other texts, and how to say that these alone are enough."""

_CHANGES = """<ul>
<li><b><code>sealed</code></b>, the default: the store keeps no index vectors, so no attack on vectors has anything to
begin with. <code>sketch</code> and <code>sap</code> let the store rank, and that is what is stolen.</li>
<li><b>Sizes.</b> Payloads are padded. A rare size still points to its record: split or pad long documents before you
write them.</li>
<li><b>Order.</b> Write in random order and in large batches (<code>encvec ingest --shuffle</code>).</li>
<li><b>Labels.</b> Declare fields <code>sealed</code>. <code>blind</code> ones show which values are equal,
<code>plain</code> ones show the values.</li>
<li><b>A server that watches.</b> <code>threat="watching-server"</code> hides what searches read.
<code>reads="hits"</code> only makes the server wait longer.</li>
<li><b>Names.</b> <code>names="sealed"</code> hides the names of collections and tenants.</li></ul>"""


def overview(found: Sequence[SchemeRow], copied: Sequence[Copied], watched: Sequence[Watched] = ()) -> str:
    """Return the table of thefts and schemes, and what would change it.

    Cells of trials have the worst trial's figure. Those of `sealed` say "nothing" only where a copy was read that has
    no index vectors. What the run did not try has the project's own figure, if there is one, and says so.
    """
    sealed = [one for one in copied if not one.index_vectors]
    cells = {
        (at, name): _sealed(found, sealed, watched, at) if name == "sealed" else _ranked(found, name, at)
        for at in range(len(_THEFTS))
        for name, _ in _COLUMNS
    }
    shown = [
        at for at in range(len(_THEFTS)) if at != _OPTIONAL or any(_UNTRIED not in cells[at, n] for n, _ in _COLUMNS)
    ]
    lines = []
    for at in shown:
        who, more, _ = _THEFTS[at]
        parts = "".join(f'<td data-of="{words}">{cells[at, name]}</td>' for name, words in _COLUMNS)
        lines.append(f"<tr><th>{who}<small>{more}</small></th>{parts}</tr>")
    head = "".join(f"<th>{words}</th>" for _, words in _COLUMNS)
    table = f'<table class="thefts"><thead><tr><th>Who has what</th>{head}</tr></thead><tbody>'
    tried = any(_worst(found, name, lambda trial: True) for name, _ in _COLUMNS[1:])
    mine = "larger <code>-n</code>" if tried else "<code>encvec leakage --data YOURS.npy --quick --html PAGE</code>"
    elsewhere = (
        f" <b>Elsewhere</b>: not measured in this run, but by this project on {WHENCE}. "
        f"For your own vectors: {mine}, and <code>--labels</code>."
    )
    return (
        f"<header><h1>Who can read your records</h1>{_lead(found, sealed)}</header>"
        f"<section>{table}{''.join(lines)}</tbody></table><p>Percent: records that are named, in the worst trial. Who "
        "names a record knows what it says. Broken: at least half. Luck: what guessing gives."
        f"{elsewhere if _ELSEWHERE in ''.join(lines) else ''}</p></section>"
        f"<section><h2>What would change it</h2>{_CHANGES}</section>"
    )


def _lead(found: Sequence[SchemeRow], sealed: Sequence[Copied]) -> str:
    said = []
    if sealed:
        records = sum(one.records for one in sealed)
        many = f"{records:,} stored records" if records != 1 else "the stored record"
        shown = " and what its plain and blind fields show" if any(one.plain or one.blind for one in sealed) else ""
        said.append(f"Under sealed, a stolen copy of {many} gives {_NOTHING}{shown}: it has no index vectors.")
    worst = {name: _worst(found, name, lambda trial: True) for name, _ in _COLUMNS[1:]}
    for broken in (True, False):
        those = {name: one for name, one in worst.items() if one is not None and (one.identified >= _HALF) == broken}
        if those:
            verb = "broken" if broken else "attacked"
            most = max(those.values(), key=lambda one: one.identified)
            names = f"{' and '.join(those)} {'are' if len(those) > 1 else 'is'}"
            said.append(f"{names} {verb}: up to {percent(most.identified)} of {most.n:,} records are named.")
    if not any(worst.values()):
        said.append("sketch and sap were not tried on these records. Elsewhere they are broken.")
    return "".join(f'<p class="lead">{escape(line)}</p>' for line in said)


def _worst(found: Sequence[SchemeRow], name: str, chosen: Callable[[TrialRow], bool]) -> TrialRow | None:
    trials = [trial for scheme in found for trial in scheme.trials if trial.subject == name and chosen(trial)]
    return max(trials, key=lambda trial: trial.identified - trial.chance, default=None)


def _sealed(found: Sequence[SchemeRow], sealed: Sequence[Copied], watched: Sequence[Watched], at: int) -> str:
    """Return a cell of the default."""
    if at == _WATCHING:
        return _watching(watched) if watched else _watching(WATCHED, _ELSEWHERE)
    trial = _worst(found, "sealed", _THEFTS[at][2])
    if not sealed or at == _OPTIONAL or (trial is not None and trial.luck <= _SURE):
        return _figure(trial) if trial is not None else f"<span>{_UNTRIED}</span>"
    more = "" if trial is None else _by(trial)
    if at == _SAME and trial is None:
        some = " and ".join(f"{percent(share)} of {what}" for what, share in IN_ORDER.items())
        more = f"these name {some}{_ELSEWHERE}"
    if at == _LABELS and any(one.plain or one.blind for one in sealed):
        more = "and these fields, which show anyway"
    return _bold("chance", _ORDER if at == _SAME else _NOTHING, more)


def _watching(watched: Sequence[Watched], elsewhere: str = "") -> str:
    """Say what a server learns that watches searches of the default, and what is left when it is hidden from."""
    seen = max((one for one in watched if not one.hidden), key=lambda one: one.neighbours, default=None)
    hidden = max((one for one in watched if one.hidden), key=lambda one: one.rows_read, default=None)
    if seen is None:
        return f"<span>{_UNTRIED}</span>"
    more = (
        f"{elsewhere} {value(seen.neighbours)} of neighbours found by {seen.searches:,} searches of {seen.records:,} "
        f"records, luck {percent(seen.neighbours_luck)}; named {percent(seen.named)}."
    )
    if hidden is not None:
        left = f"{percent(hidden.neighbours)} of neighbours" if hidden.rows_read else "nothing"
        more += f"</small><small>With <code>{_HIDES}</code>: {left}"
    return _bold("leaks", "which records are alike", more.strip())


def _ranked(found: Sequence[SchemeRow], name: str, at: int) -> str:
    """Return a cell of a scheme whose index vectors the store ranks."""
    chosen, others = _THEFTS[at][2], _THEFTS[_OTHERS][2]
    trial = _worst(found, name, chosen)
    if at == 0 and (trial is None or trial.luck > _SURE):
        return _bold("leaks", "which records are alike", "that is what an index is for")
    more = at in _MORE and _worst(found, name, others)
    if trial is None and more and more.identified >= _HALF:
        return _figure(more, _MORE[at])
    known = schemes(REFERENCE)
    elsewhere, alone = _worst(known, name, chosen), ""
    if elsewhere is None and at in _MORE:
        elsewhere, alone = _worst(known, name, others), _MORE[at]
    if trial is not None:
        return _figure(trial, elsewhere=elsewhere)
    return f"<span>{_UNTRIED}</span>" if elsewhere is None else _figure(elsewhere, alone, _ELSEWHERE)


def _figure(trial: TrialRow, alone: str = "", where: str = "", elsewhere: TrialRow | None = None) -> str:
    """Return a trial's figure and what it is to be held against.

    Args:
        trial: of this run, or of the project's own.
        alone: what the adversary does not even need for it.
        where: says that it is the project's own.
        elsewhere: the project's own, to be named where the run broke nothing.
    """
    level = "broken" if trial.identified >= _HALF else "leaks" if trial.luck <= _SURE else "little"
    said = {"broken": "broken", "leaks": "measured", "little": "not broken"}[level] + where
    more = [
        alone,
        f"{trial.pairs} pairs" if trial.pairs else "",
        f"of {trial.n:,} records" if where else "",
        _by(trial),
    ]
    if elsewhere is not None and level != "broken":
        more.append(f"elsewhere {percent(elsewhere.identified)} of {elsewhere.n:,}")
    return _bold(level, f"{said}: {value(trial.identified)}", "; ".join(filter(None, more)), title(trial))


def _bold(level: str, said: str, more: str, over: str = "") -> str:
    """Return what stands in a cell: HTML."""
    shown = f' title="{escape(over)}"' if over else ""
    return f'<b class="{level}"{shown}>{said}</b>' + (f"<small>{more}</small>" if more else "")


def _by(trial: TrialRow) -> str:
    """Return what the figure is to be held against, and whose it is."""
    named = f"{percent(trial.identified)} named, " if trial.subject == "sealed" else ""
    return f"{named}luck {percent(trial.chance)}; {escape(trial.attack)}"
