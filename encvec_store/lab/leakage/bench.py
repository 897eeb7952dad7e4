"""A subject under one key, and what all its probes share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...data import Matrix
from ...errors import InputError
from .attacks import ATTACKS
from .cells import LEAST, parts, ways
from .experiment import Experiment
from .probes import LUCK, Labels
from .protocol import Subject
from .views import Case, view

__all__ = ["ALIGNING", "MOST", "Bench", "Found", "Known"]

ALIGNING = ("naive", "coordinates", "pca-icp", "components")
"""The attacks that membership, attribute and identity probes use if an experiment names none: one of each kind."""
MOST = 1_000
Found = tuple[str, float, float, float, dict[str, Any]]
"""Measure, value, chance, null, details."""


@dataclass(frozen=True)
class Known:
    """What is known about the vectors: labels of the victim's (v,) and of the corpus (m,).

    `labels` are what an attribute is (a topic), `identities` who is shown; probes that need them are left out without.
    """

    labels: tuple[Labels, Labels] | None = None
    identities: tuple[Labels, Labels] | None = None

    def check(self, experiment: Experiment) -> None:
        """Raise InputError if there is not one label per vector."""
        for pair in (self.labels, self.identities):
            if pair is not None and tuple(map(len, pair)) != (len(experiment.victim), len(experiment.corpus)):
                raise InputError("labels must be given for every vector of the victim and of the corpus")


class Bench:
    """A subject under one key, and what all its probes share."""

    def __init__(self, experiment: Experiment, known: Known, subject: Subject, n: int, key: int) -> None:
        self.experiment, self.known, self.subject, self.key = experiment, known, subject, key
        order = np.random.default_rng([key, n]).permutation(len(experiment.victim))  # the records that attacks had
        self.rows, rest = order[:n], order[n : n + MOST]
        self.truth = experiment.victim[self.rows]
        self.keyed = subject.keyed(key, experiment.statistics)
        self.stored, self.cells = self.keyed.spread(self.truth)
        held = np.arange(len(experiment.corpus))
        if len(rest) >= min(100, n):
            self.strangers, self.held = experiment.victim[rest], held
        else:  # a stranger must not be one whom the adversary aligned by
            aside = min(MOST, len(held) // 4)
            self.strangers, self.held = experiment.corpus[held[-aside:]], held[:-aside]
        self.corpus = experiment.corpus[self.held]

    @cached_property
    def aligned(self) -> list[tuple[str, Matrix, Callable[[Matrix], Matrix]]]:
        """Where attacks without pairs locate the records, by a corpus that has none of them; and the frame of each.

        Empty where none of the attacks asked for can look at this subject.
        """
        chosen = [a for a in self.experiment.attacks or ALIGNING if ATTACKS[a].holds == "corpus"] or ALIGNING
        found = []
        for attack in chosen:
            for looked in self.experiment.looks(ATTACKS[attack]):
                for way in ways(self.subject.parameters(), paired=False):
                    placed = self._placed(attack, looked, way)
                    if placed is not None:
                        found.append((", ".join(filter(None, (attack, looked, way))), *placed))
        return found

    def _placed(self, attack: str, looked: str, way: str) -> tuple[Matrix, Callable[[Matrix], Matrix]] | None:
        """Run one attack on all cells. All cells share the frame of the corpus."""
        if way == "told":
            return None  # each cell has a corpus of its own there
        rng = np.random.default_rng([self.key, len(self.truth), 7])
        case = Case(self.stored, self.corpus, rng, self.keyed.noise, None, self.keyed.public)
        seen = view(looked, case)
        if seen is None:
            return None
        frame = seen.frame
        located = np.zeros((len(self.truth), frame(self.truth[:1]).shape[1]), np.float32)
        for part in parts(way, case, self.cells, None):
            seen = view(looked, part.case)
            if seen is None or len(part.rows) < LEAST:
                continue
            found = ATTACKS[attack].run(seen, part.case)
            if found.shape[1] != located.shape[1] or not np.isfinite(found).all():
                return None
            located[part.rows] = found
        return located, frame

    def best(
        self, figure: str, measure: Callable[[Matrix, Callable[[Matrix], Matrix], float], dict[str, float]]
    ) -> Found | None:
        """Return the best result of all alignments. The luck threshold is divided among them (Bonferroni)."""
        if not self.aligned:
            return None
        tried = [(name, measure(located, frame, LUCK / len(self.aligned))) for name, located, frame in self.aligned]
        by, top = max(tried, key=lambda pair: pair[1][figure])
        each = {name: round(found[figure], 5) for name, found in tried}
        return figure, top[figure], top["chance"], top["null"], {"by": by, "tried": each}
