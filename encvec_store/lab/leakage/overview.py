"""The report's first screen: who stole what, what he learns, and what would change it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from .lines import title, value
from .reading import SchemeRow, TrialRow, percent
from .sealed import Copied

__all__ = ["overview"]

_NOTHING = "nothing beyond sizes and counts"
_ORDER = "nothing beyond sizes, counts and order"
_UNTRIED = "not tried here"
_COLUMNS = (("sealed", "sealed (the default)"), ("sketch", "sketch"), ("sap", "sap"))
_HALF, _SURE = 0.5, 0.05


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
        "it sees which rows are read together",
        lambda t: not t.pairs and _beside(t) == "reads",
    ),
)
_SAME, _LABELS, _OPTIONAL, _WATCHING = 2, 4, 5, 6

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


def overview(found: Sequence[SchemeRow], copied: Sequence[Copied]) -> str:
    """Return the table of thefts and schemes, and what would change it.

    Cells of trials have the worst trial's figure. Those of `sealed` say "nothing" only where a copy was read that has
    no index vectors.
    """
    sealed = [one for one in copied if not one.index_vectors]
    cells = {(at, name): _cell(found, sealed, name, at) for at in range(len(_THEFTS)) for name, _ in _COLUMNS}
    shown = [
        at for at in range(len(_THEFTS)) if at != _OPTIONAL or any(_UNTRIED not in cells[at, n] for n, _ in _COLUMNS)
    ]
    lines = []
    for at in shown:
        who, more, _ = _THEFTS[at]
        parts = "".join(f'<td data-of="{words}">{cells[at, name]}</td>' for name, words in _COLUMNS)
        lines.append(f"<tr><th>{who}<small>{more}</small></th>{parts}</tr>")
    head = "".join(f"<th>{words}</th>" for _, words in _COLUMNS)
    table = f'<table class="thefts"><thead><tr><th>Who stole what</th>{head}</tr></thead><tbody>'
    return (
        f"<header><h1>Who can read your records</h1>{_lead(found, sealed)}</header>"
        f"<section>{table}{''.join(lines)}</tbody></table><p>Percent: records that the thief names, in the worst trial "
        "of this run. Broken: at least half. Whoever names a record knows what it says. What this run did not try, "
        "docs/threat-model.md has measured.</p></section>"
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
    for name, trial in worst.items():
        if trial is not None:
            verb = "is broken" if trial.identified >= _HALF else "was attacked"
            said.append(f"{name} {verb}: up to {percent(trial.identified)} of {trial.n:,} records are named.")
    if not any(worst.values()):
        said.append("sketch and sap were not tried: encvec leakage --data YOURS.npy --quick --html PAGE does that.")
    return "".join(f'<p class="lead">{escape(line)}</p>' for line in said)


def _worst(found: Sequence[SchemeRow], name: str, chosen: Callable[[TrialRow], bool]) -> TrialRow | None:
    trials = [trial for scheme in found for trial in scheme.trials if trial.subject == name and chosen(trial)]
    return max(trials, key=lambda trial: trial.identified - trial.chance, default=None)


def _cell(found: Sequence[SchemeRow], sealed: Sequence[Copied], name: str, at: int) -> str:
    trial = _worst(found, name, _THEFTS[at][2])
    stands = trial is None or trial.luck > _SURE
    if name == "sealed" and sealed and at not in (_WATCHING, _OPTIONAL) and stands:
        more = "" if trial is None else _by(trial)
        if at == _SAME and trial is None:
            more = "rare sizes and the order can name records: docs/threat-model.md"
        if at == _LABELS and any(one.plain or one.blind for one in sealed):
            more = "and these fields, which show anyway"
        said = _ORDER if at == _SAME else _NOTHING
        return f'<b class="chance">{said}</b>{f"<small>{more}</small>" if more else ""}'
    if trial is None:
        attacked = at == 0 and name != "sealed" and _worst(found, name, lambda trial: True) is not None
        alike = "<small>shows which records are alike: that is what an index is for</small>" if attacked else ""
        return f"<span>{_UNTRIED}</span>{alike}"
    level = "broken" if trial.identified >= _HALF else "leaks" if trial.luck <= _SURE else "little"
    word = "broken" if level == "broken" else "measured"
    known = f", {trial.pairs} pairs" if trial.pairs else ""
    figure = f'<b class="{level}" title="{escape(title(trial))}">{word}: {value(trial.identified)}</b>'
    return f"{figure}<small>{_by(trial)}{known}</small>"


def _by(trial: TrialRow) -> str:
    """Return what the figure is to be held against, and whose it is."""
    named = f"{percent(trial.identified)} named, " if trial.subject == "sealed" else ""
    return f"{named}{percent(trial.chance)} by luck; {escape(trial.attack)}"
