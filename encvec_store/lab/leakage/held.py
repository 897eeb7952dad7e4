"""What is stored in an experiment, under a key, and what an adversary holds of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from ...data import Matrix
from .algebra import Cells, Indices
from .cells import drawn
from .metrics import recall_in_candidates, scores
from .protocol import Keyed, Subject
from .stored import StoredRecords
from .views import Case, Groups

if TYPE_CHECKING:
    from .experiment import Experiment

__all__ = ["Locked", "held_case", "lock"]

_QUERIES = 300
_KEYS = 1_000
"""More than an experiment has keys: other dumps are under others."""
_Kind = TypeVar("_Kind", bound=np.generic)


def held_case(
    experiment: Experiment, adversary: str, pairs: int, key: int, rows: Indices, locked: Locked, needs: str
) -> Case | None:
    """Return what an adversary holds; None where nothing of it can be had."""
    truth, stored = experiment.victim[rows], locked.stored
    others, own = _corpus(adversary, len(rows), key)
    known = drawn(locked.cells, pairs, np.random.default_rng([key, pairs]))
    rng = np.random.default_rng([key, len(truth), 7])

    def held(theirs: npt.NDArray[_Kind], mine: npt.NDArray[_Kind]) -> npt.NDArray[_Kind]:
        """What is known of the corpus, of what is known of the experiment's and of the records."""
        return np.concatenate([theirs, mine[own]]) if others else mine[own]

    groups: dict[str, Groups] = {}
    dumps: tuple[Matrix, ...] = ()
    match needs:
        case "classes" | "tokens" if experiment.labels is not None:
            mine, theirs = experiment.labels[0][rows], experiment.labels[1]
            groups[needs] = mine, held(theirs, mine)
        case "sizes" if experiment.sizes_shown is not None:
            mine, theirs = experiment.sizes_shown[0][rows], experiment.sizes_shown[1]
            groups[needs] = mine, held(theirs, mine)
        case "order":
            mine = np.arange(len(rows)) // experiment.upsert
            groups[needs] = mine, mine[own]
        case "dumps":
            dumps = locked.dumps(truth, experiment.dumps - 1)
            if not dumps:
                return None
    background = experiment.corpus if adversary == "same" else None
    keyed = locked.keyed
    corpus = held(experiment.corpus, truth)
    return Case(stored, corpus, rng, keyed.noise, background, keyed.public, known, truth[known], groups, dumps)


def _corpus(adversary: str, n: int, key: int) -> tuple[bool, Indices]:
    """Say whether the adversary holds the experiment's corpus, and which of the n records, in his order."""
    match adversary:
        case "same":
            return False, np.random.default_rng(key).permutation(n)
        case "superset":
            return True, np.arange(n)
    return True, np.arange(0)


@dataclass(frozen=True)
class Locked:
    """Records under a key."""

    keyed: Keyed
    stored: Matrix
    cells: Cells
    owner: dict[str, Any]
    """`candidates` that the owner re-ranks for ten hits, and his `recall@10` among them and others."""
    again: Callable[[int], Keyed] | None
    """The subject under the key of another number; None for records that are attacked as they are stored."""

    def dumps(self, truth: Matrix, count: int) -> tuple[Matrix, ...]:
        """Return the same records under other keys. Empty where they cannot be encrypted again, or are in cells."""
        if self.again is None or len(np.unique(self.cells)) > 1:
            return ()
        return tuple(self.again(1 + dump).store(truth) for dump in range(count))


def lock(experiment: Experiment, subject: Subject, key: int, order: Indices, n: int) -> Locked:
    """Encrypt the first n records of an order under a key, or read them; measure the owner's recall."""
    keyed = subject.keyed(key, experiment.statistics)
    rows, rest = order[:n], order[n:]
    truth = experiment.victim[rows]
    stored, cells = subject.at_rest(rows) if isinstance(subject, StoredRecords) else keyed.spread(truth)
    others = experiment.victim[rest[:_QUERIES]] if len(rest) >= 50 else experiment.corpus[:_QUERIES]
    candidates = min(n, 10 * subject.oversample)
    counts = sorted({candidates, *(count for count in experiment.candidates if count <= n)})
    recall = recall_in_candidates(scores(stored, keyed.ask(others), cells), truth, others, counts)
    found = {str(count): round(value, 4) for count, value in recall.items()}
    again = None
    if not isinstance(subject, StoredRecords):
        again = lambda number: subject.keyed(key + _KEYS * number, experiment.statistics)  # noqa: E731
    return Locked(keyed, stored, cells, {"candidates": candidates, "recall@10": found}, again)
