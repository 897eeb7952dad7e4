"""Read the probes' rows for a report: findings, how bad each is, in plain words.

A finding is measured against its null, what luck gives in one of twenty trials where nothing leaks, and called by the
share of the way from there to everything: none, at most a twentieth, less than half, more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .reading import named, percent
from .subjects import CONTROLS

__all__ = ["QUESTIONS", "Finding", "Leaks", "leaks", "part", "taken"]

Read = TypeVar("Read")

QUESTIONS = {
    "linkage": "Stolen under two keys: do records match?",
    "membership": "Is this very text stored?",
    "attributes": "What is a record about?",
    "attributes-known": "What is it about, knowing that of {known:,.0f}?",
    "cells": "What does its cell tell of a record?",
    "joining": "{queries:,.0f} logged queries: are cells one?",
    "identities": "Other pictures of somebody: which record is it?",
    "norms": "Do lengths follow the originals?",
    "averaging": "Stored {copies:,.0f} times: does the noise go?",
    "chosen-plaintext": "Had {records:,.0f} own records stored: names others?",
}
"""Probe -> what a thief would know, with fields of its details; in the order in which they are shown."""
_LITTLE, _HALF = 0.05, 0.5


@dataclass(frozen=True)
class Finding:
    """One probe of n records under one key: one row of the results."""

    subject: str
    parameters: tuple[tuple[str, Any], ...]
    probe: str
    measure: str
    corpus: str
    n: int
    key: int
    value: float
    chance: float
    null: float
    details: Mapping[str, Any]
    versions: Mapping[str, str]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Finding:
        """From a row's JSON. Raises KeyError, TypeError or ValueError."""
        finding = cls(
            str(row["subject"]),
            tuple((str(name), value) for name, value in dict(row.get("parameters", {})).items()),
            str(row["probe"]),
            str(row["measure"]),
            str(row.get("corpus", "")),
            int(row["n"]),
            int(row.get("key", 0)),
            float(row["value"]),
            float(row["chance"]),
            float(row["null"]),
            dict(row.get("details", {})),
            {str(name): str(value) for name, value in dict(row.get("versions", {})).items()},
        )
        if finding.n < 1 or not all(-1 <= x <= 1 for x in (finding.value, finding.chance, finding.null)):
            raise ValueError("out of range")
        # a detail that is missing or odd is refused here, not while a page is drawn
        finding.question()
        finding.sentence()
        finding.curve()
        finding.rates()
        return finding

    @property
    def level(self) -> str:
        """Which of reading.LEVELS it is."""
        gained = (self.value - self.null) / max(1e-9, 1 - self.null)
        if gained <= 1e-6:
            return "chance"
        return "little" if gained <= _LITTLE else "leaks" if gained < _HALF else "broken"

    def question(self) -> str:
        """What a thief would know."""
        return QUESTIONS.get(self.probe, self.probe).format(**self.details) if self.probe in QUESTIONS else self.probe

    def figure(self, value: float) -> str:
        """A value of this measure: a share in percent, but for what is no share."""
        digits = {"d_sys": 3, "cosine": 2, "rank_correlation": 2}.get(self.measure)
        return percent(value) if digits is None else f"{value:.{digits}f}"

    def curve(self) -> list[tuple[float, float]]:
        """D(s) of a linkage, as pairs of a score and D."""
        points = [(float(score), float(d)) for score, d in self.details.get("curve", ())]
        if not all(math.isfinite(score) and 0 <= d <= 1 for score, d in points):
            raise ValueError("out of range")
        return points

    def rates(self) -> list[tuple[str, dict[str, float]]]:
        """For the accuracy probe: each kind of score with its error rates."""
        if self.probe != "accuracy":
            return []
        reranked = {f"re-rank of {int(count):,}": rates for count, rates in dict(self.details["reranked"]).items()}
        kinds = {"originals": self.details["plain"], "ciphertexts alone": self.details["ciphertexts"], **reranked}
        names = ("eer", "tar@0.01", "tar@0.001", "rank_1")
        found = [(kind, {name: float(rates[name]) for name in names}) for kind, rates in kinds.items()]
        if not all(0 <= rate <= 1 for _, rates in found for rate in rates.values()):
            raise ValueError("out of range")
        return found

    def sentence(self) -> str:
        """What it means, for somebody who knows none of the terms. Empty where the figure says it all."""
        held = self.level == "chance"
        value, null = self.figure(self.value), self.figure(self.null)
        match self.probe:
            case "linkage" if self.level in ("chance", "little"):
                better = "no better" if held else "little better"
                return (
                    f"Copies stolen before and after a change of keys were matched {better} than by luck (D_sys "
                    f"{value} of 1; luck gives up to {null}): as far as was tried, the new key ends what the old copy "
                    "gives away of later ones."
                )
            case "linkage":
                right = percent(float(self.details.get("rank_1", 0.0)))
                return (
                    f"Copies stolen before and after a change of keys match: D_sys {value} of 1, where luck gives up "
                    f"to {null}; the right partner for {right} of the records. A new key undoes no theft."
                )
            case "cells":
                right, luck = (percent(float(self.details[name])) for name in ("named", "named_null"))
                return (
                    f"Which records share a cell shows. It tells {value} of what they are about (luck {null}): naming "
                    f"for each the commonest topic of its cell is right for {right} (luck {luck})."
                )
            case "membership" if held:
                return f"Whether a certain text is stored, the thief could only guess ({value} right; a coin has 50%)."
            case "membership":
                return f"Asked which of two texts is stored, the thief is right in {value} of cases; a coin has 50%."
        return ""


@dataclass(frozen=True)
class Leaks:
    """Findings of a subject with one set of parameters, on one collection of data and one number of records."""

    name: str
    control: bool
    n: int
    by_probe: Mapping[str, Sequence[Finding]]
    """Probe -> one finding for each key, in the order of QUESTIONS."""

    def worst(self, probe: str) -> Finding:
        """The largest value over keys."""
        return max(self.by_probe[probe], key=lambda finding: finding.value)

    def bounds(self, probe: str) -> tuple[float, float]:
        """Smallest and largest value over keys."""
        values = [finding.value for finding in self.by_probe[probe]]
        return min(values), max(values)


def part(rows: Iterable[Any]) -> tuple[list[Finding], list[Any]]:
    """Take the probes' findings out of rows or JSON lines; what else there is comes back, for `reading.read`."""
    return taken(rows, "probe", Finding.of)


def taken(rows: Iterable[Any], mark: str, read: Callable[[Mapping[str, Any]], Read]) -> tuple[list[Read], list[Any]]:
    """Take what `read` makes of rows or JSON lines that have the key `mark` out of them; what else there is comes back.

    Rows of attacks are left, and what `read` refuses.
    """
    found: list[Read] = []
    others = []
    for row in rows:
        try:
            given = json.loads(row) if isinstance(row, str) and f'"{mark}"' in row else row
            if isinstance(given, Mapping) and mark in given and "attack" not in given:
                found.append(read(given))
                continue
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
            pass
        others.append(row)
    return found, others


def leaks(findings: Sequence[Finding]) -> list[Leaks]:
    """Group findings; the user's schemes come before controls, and the most linkable first."""
    many = len({finding.corpus for finding in findings}) > 1
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        key = [finding.corpus, finding.subject, finding.parameters, finding.n]
        groups.setdefault(json.dumps(key, default=str), []).append(finding)
    found = []
    for group in groups.values():
        first = group[0]
        order = [*QUESTIONS, *sorted({finding.probe for finding in group} - set(QUESTIONS))]
        by_probe = {probe: [finding for finding in group if finding.probe == probe] for probe in order}
        name = named(first.subject, first.parameters, first.corpus if many else "")
        shown = {probe: each for probe, each in by_probe.items() if each}
        found.append(Leaks(name, first.subject in CONTROLS, first.n, shown))

    def rank(one: Leaks) -> tuple[bool, float, str, int]:
        linked = max((finding.value for finding in one.by_probe.get("linkage", ())), default=0.0)
        return one.control, -linked, one.name, one.n

    return sorted(found, key=rank)
