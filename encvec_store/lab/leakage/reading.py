"""Read the experiment's rows for a report: trials, schemes, and verdicts in plain words.

A verdict is that of a scheme's worst trial without known pairs. If that trial does not differ from chance, given the
number of trials (Bonferroni), the verdict is "chance", never "safe".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from scipy.stats import binom

from .metrics import wilson
from .subjects import CONTROLS

__all__ = ["HELD", "LEVELS", "WAYS", "SchemeRow", "TrialRow", "held", "named", "percent", "read", "schemes", "who"]

HELD = {
    "disjoint": "other data of the same kind",
    "same": "the very same data (unordered)",
    "superset": "the very same data among others",
}
BESIDE = {
    "classes": "the value of a plain field of each",
    "tokens": "a blind field of each",
    "sizes": "the sizes of their payloads",
    "order": "the order in which they were written",
    "dumps": "several dumps, encrypted anew in between",
}
"""What stood beside the index vectors, in words."""
LEVELS = ("chance", "little", "leaks", "broken")
"""No better than chance; at most 1% of the records named; more than that; at least half."""
WAYS = {
    "together": "all cells together",
    "each": "each cell by itself",
    "told": "each cell, knowing its texts",
    "with pairs": "the cell with the pairs",
    "without pairs": "the other cells",
}
"""How a collection in cells was attacked, or which of its records count."""
_SIGNIFICANT = 0.05
_LITTLE, _HALF = 0.01, 0.5


@dataclass(frozen=True)
class TrialRow:
    """One row: one attack on n records under one key."""

    subject: str
    parameters: tuple[tuple[str, Any], ...]
    attack: str
    view: str
    adversary: str
    """A key of HELD, and behind a + one of BESIDE."""
    pairs: int
    corpus: str
    n: int
    key: int
    identified: float
    low: float
    high: float
    chance: float
    cosine: float | None
    recall: Mapping[int, float]
    versions: Mapping[str, str]
    counted: int
    """Number of records that the attack could name."""
    way: str = ""
    """A key of WAYS, for a collection in cells."""

    @property
    def luck(self) -> float:
        """The probability that guessing names at least as many records."""
        return float(binom.sf(round(self.identified * self.counted) - 1, self.counted, self.chance))

    @property
    def how(self) -> str:
        """The attack, the view and, for cells, the way."""
        return ", ".join(filter(None, (self.attack, self.view, WAYS.get(self.way, self.way))))

    @classmethod
    def of(cls, row: Any) -> TrialRow:
        """Read a row's JSON, which may lack optional fields. Raises KeyError, TypeError or ValueError."""
        n, pairs, identified = int(row["n"]), int(row.get("pairs", 0)), float(row["identified"])
        counted = int(row.get("counted", n - pairs))
        if not (0 <= pairs < n and 0 <= identified <= 1 and 0 < counted <= n):
            raise ValueError("out of range")
        low, high = wilson(round(identified * counted), counted)
        cosine = row.get("cosine_centered")
        trial = cls(
            str(row["subject"]),
            tuple((str(name), value) for name, value in dict(row.get("parameters", {})).items()),
            str(row["attack"]),
            str(row.get("view", "")),
            "+".join(str(row[name]) for name in ("adversary", "beside") if row.get(name)),
            pairs,
            str(row.get("corpus", "")),
            n,
            int(row.get("key", 0)),
            identified,
            float(row.get("ci_low", low)),
            float(row.get("ci_high", high)),
            float(row.get("chance", 1 / n)),
            None if cosine is None else float(cosine),
            {int(count): float(value) for count, value in dict(row.get("recall@10", {})).items()},
            {str(name): str(value) for name, value in dict(row.get("versions", {})).items()},
            counted,
            str(row.get("cells", "")),
        )
        shares = (trial.low, trial.high, trial.chance, *trial.recall.values())
        if not all(0 <= share <= 1 for share in shares) or not trial.chance or not math.isfinite(trial.cosine or 0):
            raise ValueError("out of range")
        return trial


def read(rows: Iterable[Any]) -> tuple[list[TrialRow], int]:
    """Read rows of `run`, or JSON lines. Returns the trials, and the number of rows that are cut off or no trials."""
    trials, refused = [], 0
    for row in rows:
        if isinstance(row, str) and not row.strip():
            continue
        try:
            trials.append(TrialRow.of(json.loads(row) if isinstance(row, str) else row))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
            refused += 1
    return trials, refused


@dataclass(frozen=True)
class SchemeRow:
    """All trials of a subject with one set of parameters, on one data set."""

    name: str
    control: bool
    trials: Sequence[TrialRow]

    @property
    def alone(self) -> list[TrialRow]:
        """Trials without known pairs."""
        return [trial for trial in self.trials if not trial.pairs]

    def level(self, trial: TrialRow) -> str:
        """Return the trial's level, one of LEVELS, given how many such trials (with pairs, or without) there were."""
        beside = sum(bool(other.pairs) == bool(trial.pairs) for other in self.trials)
        if trial.luck * beside > _SIGNIFICANT:
            return "chance"
        return "little" if trial.identified <= _LITTLE else "leaks" if trial.identified < _HALF else "broken"

    @property
    def worst(self) -> TrialRow | None:
        """The worst trial without pairs; None if all trials had pairs."""
        return max(self.alone, key=lambda t: (LEVELS.index(self.level(t)), t.identified), default=None)

    @property
    def verdict(self) -> str:
        """One of LEVELS, or "untried"."""
        return "untried" if self.worst is None else self.level(self.worst)

    def sentence(self) -> str:
        """Say what the verdict means, for readers who know none of the terms."""
        worst = self.worst
        if worst is None:
            return "Tried only against a thief who already knows some records: see known pairs below."
        if self.verdict == "chance":
            most = max(trial.n for trial in self.alone)
            return f"A thief does no better than chance in anything that was tried, with up to {most:,} records."
        times = worst.identified / worst.chance
        beside = f", {times:,.0f} times chance" if self.verdict == "little" else ""
        return f"A thief who has {held(worst)} names {percent(worst.identified)} of {worst.n:,} records{beside}."

    def tried(self) -> str:
        """Say how much was tried without pairs: the basis of "no better than chance"."""
        attacks, keys = len({trial.attack for trial in self.alone}), len({trial.key for trial in self.alone})
        return f"{attacks} attack{'s' * (attacks > 1)}, {keys} key{'s' * (keys > 1)}"

    def breaking_pairs(self) -> TrialRow | None:
        """Return the trial that named at least half of the other records with the fewest known pairs."""
        broken = [trial for trial in self.trials if trial.pairs and trial.identified >= _HALF]
        return min(broken, key=lambda t: (t.pairs, -t.identified), default=None)

    def beyond(self) -> TrialRow | None:
        """Return the worst trial on the other cells, when all known pairs are in one cell."""
        others = [trial for trial in self.trials if trial.pairs and trial.way == "without pairs"]
        return max(others, key=lambda t: (LEVELS.index(self.level(t)), t.identified), default=None)

    def recall(self, candidates: int) -> tuple[float, int] | None:
        """Return the owner's recall@10 among that many candidates, the mean over keys, and the number of records.

        It is that of the largest collection: in a small one, all records are candidates.
        """
        most = max((trial.n for trial in self.trials if candidates in trial.recall), default=0)
        each = {t.key: t.recall[candidates] for t in self.trials if t.n == most and candidates in t.recall}
        return (fmean(each.values()), most) if each else None


def schemes(trials: Sequence[TrialRow]) -> list[SchemeRow]:
    """Group the trials by scheme: the user's schemes before the controls, the worst first in each."""
    many = len({trial.corpus for trial in trials}) > 1
    groups: dict[str, list[TrialRow]] = {}
    for trial in trials:
        groups.setdefault(json.dumps([trial.corpus, trial.subject, trial.parameters], default=str), []).append(trial)
    found = []
    for group in groups.values():
        first = group[0]
        name = named(first.subject, first.parameters, first.corpus if many else "")
        found.append(SchemeRow(name, first.subject in CONTROLS, group))
    order = ("untried", *LEVELS)

    def rank(scheme: SchemeRow) -> tuple[bool, int, float]:
        worst = scheme.worst
        return scheme.control, -order.index(scheme.verdict), -worst.identified if worst else 0.0

    return sorted(found, key=rank)


def named(subject: str, parameters: Iterable[tuple[str, Any]], corpus: str = "") -> str:
    """Name a scheme with these parameters, and its data set if there are several."""
    shown = " ".join(f"{name}={value:g}" for name, value in parameters if isinstance(value, int | float)
                     and (value or name == "beta"))  # fmt: skip
    return f"{subject} {shown}".strip() + (f", {corpus}" if corpus else "")


def held(trial: TrialRow) -> str:
    """Say in words what the adversary held."""
    corpus = who(trial.adversary)
    if trial.way == "told":
        return f"{corpus} and knows which cell each would lie in"
    of = " of one cell" if trial.way else ""
    return f"{trial.pairs} known pairs{of} and {corpus}" if trial.pairs else corpus


def percent(share: float) -> str:
    """Format a share as a percentage of two or three digits; only exact values become 100% or 0%."""
    if share < 1e-12 or share == 1:  # an end of an interval may differ from 0 by rounding
        return f"{share:.0%}"
    if share >= 0.99:
        return f"{min(100 * share, 99.99):.2f}%"
    return f"{100 * share:.2g}%" if share < 0.1 else f"{100 * share:.1f}%"


def who(adversary: str) -> str:
    """Say in words what the adversary of a trial held: a corpus, and what stood beside the index vectors."""
    corpus, _, beside = adversary.partition("+")
    words = HELD.get(corpus, corpus or "data not stated")
    return f"{words}, and {BESIDE.get(beside, beside)}" if beside else words
