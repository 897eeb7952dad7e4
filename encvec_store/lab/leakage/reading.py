"""Read the experiment's rows for a report: trials, schemes, verdicts in plain words.

A verdict is the worst trial of a scheme without known pairs, and says of it no more than it shows: what is not told
apart from chance after as many trials as were made (Bonferroni) is called chance, never safe.
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

__all__ = ["HELD", "LEVELS", "WAYS", "SchemeRow", "TrialRow", "held", "named", "percent", "read", "schemes"]

HELD = {
    "disjoint": "other data of the same kind",
    "same": "the very same data (unordered)",
    "superset": "the very same data among others",
}
LEVELS = ("chance", "little", "leaks", "broken")
"""Not told from chance; at most 1% of the records named; more; at least half."""
WAYS = {
    "together": "all cells together",
    "each": "each cell by itself",
    "told": "each cell, knowing its texts",
    "with pairs": "the cell with the pairs",
    "without pairs": "the other cells",
}
"""How a collection in cells was attacked, or which of its records are counted."""
_SIGNIFICANT = 0.05
_LITTLE, _HALF = 0.01, 0.5


@dataclass(frozen=True)
class TrialRow:
    """A row: one attack on n records under one key."""

    subject: str
    parameters: tuple[tuple[str, Any], ...]
    attack: str
    view: str
    adversary: str
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
    """Records that could be named."""
    way: str = ""
    """Of WAYS, for a collection in cells."""

    @property
    def luck(self) -> float:
        """How likely guessing names as many."""
        return float(binom.sf(round(self.identified * self.counted) - 1, self.counted, self.chance))

    @property
    def how(self) -> str:
        """Attack and view, and what was attacked by itself."""
        return ", ".join(filter(None, (self.attack, self.view, WAYS.get(self.way, self.way))))

    @classmethod
    def of(cls, row: Any) -> TrialRow:
        """From a row's JSON; what is not essential may be missing. Raises KeyError, TypeError or ValueError."""
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
            str(row.get("adversary", "")),
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
    """Trials of rows as `run` returns them or as JSON lines, and how many were none (cut off, or of something else)."""
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
    """All trials of a subject with one set of parameters, on one collection of data."""

    name: str
    control: bool
    trials: Sequence[TrialRow]

    @property
    def alone(self) -> list[TrialRow]:
        """Trials without known pairs."""
        return [trial for trial in self.trials if not trial.pairs]

    def level(self, trial: TrialRow) -> str:
        """Which of LEVELS a trial is, given as many trials as this scheme saw under the same circumstances."""
        beside = sum(bool(other.pairs) == bool(trial.pairs) for other in self.trials)
        if trial.luck * beside > _SIGNIFICANT:
            return "chance"
        return "little" if trial.identified <= _LITTLE else "leaks" if trial.identified < _HALF else "broken"

    @property
    def worst(self) -> TrialRow | None:
        """The worst without pairs; None where all had some."""
        return max(self.alone, key=lambda t: (LEVELS.index(self.level(t)), t.identified), default=None)

    @property
    def verdict(self) -> str:
        """One of LEVELS, or "untried"."""
        return "untried" if self.worst is None else self.level(self.worst)

    def sentence(self) -> str:
        """What it means, for somebody who knows none of the terms."""
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
        """How much was tried without pairs: what "no better than chance" stands on."""
        attacks, keys = len({trial.attack for trial in self.alone}), len({trial.key for trial in self.alone})
        return f"{attacks} attack{'s' * (attacks > 1)}, {keys} key{'s' * (keys > 1)}"

    def breaking_pairs(self) -> TrialRow | None:
        """The fewest known pairs with which at least half of the other records were named."""
        broken = [trial for trial in self.trials if trial.pairs and trial.identified >= _HALF]
        return min(broken, key=lambda t: (t.pairs, -t.identified), default=None)

    def beyond(self) -> TrialRow | None:
        """The worst on cells without pairs, where those of one cell are known."""
        others = [trial for trial in self.trials if trial.pairs and trial.way == "without pairs"]
        return max(others, key=lambda t: (LEVELS.index(self.level(t)), t.identified), default=None)

    def recall(self, candidates: int) -> tuple[float, int] | None:
        """The owner's recall@10 among that many candidates, mean over keys, and in how many records.

        It is the largest collection's: among few records, all are candidates.
        """
        most = max((trial.n for trial in self.trials if candidates in trial.recall), default=0)
        each = {t.key: t.recall[candidates] for t in self.trials if t.n == most and candidates in t.recall}
        return (fmean(each.values()), most) if each else None


def schemes(trials: Sequence[TrialRow]) -> list[SchemeRow]:
    """Group trials; the user's schemes come before controls, in each the worst first."""
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
    """What a scheme with these parameters is called, on data of that name where there are several."""
    shown = " ".join(f"{name}={value:g}" for name, value in parameters if isinstance(value, int | float)
                     and (value or name == "beta"))  # fmt: skip
    return f"{subject} {shown}".strip() + (f", {corpus}" if corpus else "")


def held(trial: TrialRow) -> str:
    """What the adversary held, in words."""
    corpus = HELD.get(trial.adversary, trial.adversary or "data not stated")
    if trial.way == "told":
        return f"{corpus} and knows which cell each would lie in"
    of = " of one cell" if trial.way else ""
    return f"{trial.pairs} known pairs{of} and {corpus}" if trial.pairs else corpus


def percent(share: float) -> str:
    """A share as a percentage of two or three digits; 100% and 0% are said only where they are exact."""
    if share < 1e-12 or share == 1:  # an interval's end that is 0 but for rounding is 0
        return f"{share:.0%}"
    if share >= 0.99:
        return f"{min(100 * share, 99.99):.2f}%"
    return f"{100 * share:.2g}%" if share < 0.1 else f"{100 * share:.1f}%"
