"""What is attacked, by whom and how often, and what an attack on it found.

One row a trial (subject, attack, view, adversary, n, key), as JSON values. A verdict is the worst row of a subject.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...data import Matrix
from ...errors import InputError
from .algebra import float32, sample, unit
from .attacks import ATTACKS, Attack
from .attacks.expectation import Labels
from .cells import LEAST, Part, parts, ways
from .metrics import decoder, hits, mean_cosine, wilson
from .protocol import Subject
from .views import Case, view

__all__ = [
    "ADVERSARIES",
    "CANDIDATES",
    "Experiment",
    "Row",
    "attack_arrays",
    "attacked",
    "worst",
]

Row = dict[str, Any]
ADVERSARIES = ("disjoint", "same", "superset")
"""What the adversary's corpus is: other texts of the same kind; the same texts, unordered; or both together."""


CANDIDATES = (10, 50, 100, 200, 500)
_PROFILE = 20_000
_OF_THE_SAME = frozenset({"profiles", "graph", "cliques"})
"""They recognise records by exact similarities to others: against other texts of the kind they only take time."""
_DECODED = 4_000


@dataclass(frozen=True)
class Experiment:
    """What to run.

    Args:
        victim: (v, d) vectors of the victim, of unit length; each trial stores `n` of them.
        corpus: (m, d) vectors of the adversary, none of the victim's.
        subjects: pairs of a name and a subject; a name may come again with other parameters.
        attacks: names of attacks; None is the whole table.
        sizes: records under one key.
        keys: number of keys; each also draws other records.
        adversaries: of ADVERSARIES.
        pairs: numbers of known pairs, for attacks that need them.
        name: what the data is called in rows.
        candidates: numbers of re-ranked records for which the owner's recall is measured.
        views: only these; None is all in which an attack is tried.
        profile: (p, d) vectors that subjects fit their statistics on; None is the victim's.
        labels: classes of the victim's vectors (v,) and of the corpus (m,), as a `plain` or `blind` field shows them.
            Attacks that need them are left out without.
        sizes_shown: stored sizes of the victim's payloads (v,), and those that the corpus' texts would have (m,).
        upsert: records that are written together; their order tells in which upsert each was.
        dumps: snapshots that a thief has, each under a key of its own.
        enough: once an attack names this share of the records, others are not tried in the same situation. None: all
            are tried.
    """

    victim: Matrix
    corpus: Matrix
    subjects: Sequence[tuple[str, Subject]]
    attacks: Sequence[str] | None = None
    sizes: Sequence[int] = (1000, 4000)
    keys: int = 3
    adversaries: Sequence[str] = ("disjoint", "same")
    pairs: Sequence[int] = (50,)
    name: str = "data"
    candidates: Sequence[int] = CANDIDATES
    views: Sequence[str] | None = None
    profile: Matrix | None = None
    labels: tuple[Labels, Labels] | None = None
    sizes_shown: tuple[Labels, Labels] | None = None
    upsert: int = 100
    dumps: int = 2
    enough: float | None = None
    _grown: dict[tuple[int, int], Subject] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for side in (self.victim, self.corpus):
            if side.ndim != 2 or side.shape[1] != self.victim.shape[1] or not np.isfinite(side).all():
                raise InputError("victim and corpus must be finite (n, d) vectors with the same d")
        for name in self.attacks or ():
            if name not in ATTACKS:
                raise InputError(f"unknown attack {name!r}; there are: {', '.join(ATTACKS)}")
        for name in self.adversaries:
            if name not in ADVERSARIES:
                raise InputError(f"unknown adversary {name!r}; there are: {', '.join(ADVERSARIES)}")
        if not self.sizes or not 10 <= min(self.sizes) <= max(self.sizes) <= len(self.victim):
            raise InputError(
                f"sizes must be from 10 to the victim's {len(self.victim)} records, got {list(self.sizes)}"
            )
        for pair in (self.labels, self.sizes_shown):
            if pair is not None and tuple(map(len, pair)) != (len(self.victim), len(self.corpus)):
                raise InputError("labels and sizes must be given for every vector of the victim and of the corpus")
        if self.upsert < 1 or self.dumps < 1:
            raise InputError(f"upsert and dumps must be integers >= 1, got {self.upsert} and {self.dumps}")

    def __getstate__(self) -> dict[str, Any]:
        """For other processes, in which subjects are other objects: what was grown for these is theirs to grow."""
        return self.__dict__ | {"_grown": {}}

    @property
    def statistics(self) -> Matrix:
        """Vectors that subjects fit their statistics on."""
        return (self.victim if self.profile is None else self.profile)[:_PROFILE]

    def standing(self, subject: Subject, n: int) -> Subject:
        """The subject with the parameters that a collection of n records has."""
        key = id(subject), n
        if key not in self._grown:
            self._grown[key] = subject.grown(n, self.statistics)
        return self._grown[key]

    def looks(self, attack: Attack) -> tuple[str, ...]:
        """Views in which an attack is tried."""
        return tuple(name for name in attack.views if self.views is None or name in self.views)

    def situations(self, attack: Attack) -> list[tuple[str, int]]:
        """Adversaries against whom an attack is tried, with the number of known pairs; empty if it lacks something."""
        match attack.holds:
            case "pairs":
                return [("disjoint", pairs) for pairs in self.pairs]
            case "classes" | "tokens" if self.labels is None:
                return []
            case "sizes" if self.sizes_shown is None:
                return []
            case "dumps" if self.dumps < 2:
                return []
            case "sizes" | "order":  # other texts have neither the sizes nor the order of the victim's
                return [(adversary, 0) for adversary in self.adversaries if adversary == "same"]
            case "corpus" if attack.name in _OF_THE_SAME:
                return [(adversary, 0) for adversary in self.adversaries if adversary != "disjoint"]
        return [(adversary, 0) for adversary in self.adversaries]

    def trials(self) -> int:
        """Upper bound of the number of rows."""
        each = sum(
            len(self.looks(attack)) * len(self.situations(attack))
            * len(ways(self.standing(subject, n).parameters(), attack.holds == "pairs"))
            for attack in map(ATTACKS.__getitem__, self.attacks or ATTACKS)
            for _, subject in self.subjects for n in self.sizes
        )  # fmt: skip
        return each * self.keys


def worst(rows: Iterable[Row]) -> list[Row]:
    """Return for each subject, parameters, adversary and n the row with most identified, over attacks and keys.

    With `identified_median`: the median over keys of each key's own maximum. Where pairs of one cell are known, that
    cell's records and all others' are told apart.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        names = ("subject", "parameters", "adversary", "pairs", "corpus", "n")
        apart = row.get("beside"), row.get("cells") if row["pairs"] else None
        key = json.dumps([*(row[name] for name in names), *apart])
        groups.setdefault(key, []).append(row)
    found = []
    for group in groups.values():
        by_key: dict[int, float] = {}
        for row in group:
            by_key[row["key"]] = max(by_key.get(row["key"], 0.0), row["identified"])
        top = max(group, key=lambda row: row["identified"])
        found.append({**top, "identified_median": float(np.median(list(by_key.values()))), "keys": len(by_key)})
    return found


def attack_arrays(
    ciphertexts: Matrix, vectors: Matrix, corpus: Matrix, *, noise: float = 0.0, attacks: Sequence[str] | None = None
) -> list[Row]:
    """Attack index vectors (n, k) as a store holds them, such as `collection.index_vectors(ids)`.

    `vectors` (n, d) are their plaintexts, to score by; the adversary gets `corpus` (m, d) only. `noise` is the
    scheme's beta / 4. Attacks that need pairs are left out.
    """
    rng = np.random.default_rng(0)
    case = Case(float32(ciphertexts), unit(float32(corpus)), rng, noise)
    chosen = [name for name in attacks or ATTACKS if ATTACKS[name].holds == "corpus"]
    whole = parts("", case, np.zeros(len(ciphertexts), np.int64), None)
    truth = unit(float32(vectors))
    found = (attacked(name, whole, truth, look) for name in chosen for look in ATTACKS[name].views)
    return [row for row in found if row is not None]


def attacked(name: str, cut: Sequence[Part], truth: Matrix, looked: str) -> Row | None:
    """Attack each part separately. Records in parts that are too small count as not identified.

    Returns the row; None where the view cannot be had, or the attack comes to nothing that could be scored.
    """
    found, cosines, took = [], [], 0.0
    for part in cut:
        hit = np.zeros(len(part.counted), np.bool_)
        found.append(hit)
        if len(part.rows) < LEAST:
            continue
        seen = view(looked, part.case)
        if seen is None:
            return None
        start = time.perf_counter()
        located = ATTACKS[name].run(seen, part.case)
        took += time.perf_counter() - start
        placed = seen.frame(truth[part.among])
        if located.shape != (len(part.rows), placed.shape[1]) or not np.isfinite(located).all():
            return None
        hit[:] = hits(located, placed, np.searchsorted(part.among, part.rows))[part.counted]
        cosines.append(_decoded(located, seen.noisy, part.case, truth[part.rows]))
    if not cosines:
        return None
    counted = np.concatenate(found)
    luck = np.average([_guess(part) for part in cut], weights=[len(part.counted) for part in cut])
    in_cells = len(cut) > 1 or len(cut[0].rows) < len(truth)
    low, high = wilson(int(counted.sum()), len(counted))
    return {
        "attack": name,
        "view": looked,
        "n": len(truth),
        "identified": float(counted.mean()),
        "ci_low": low,
        "ci_high": high,
        "chance": float(luck),
        **{measure: round(float(np.mean([one[measure] for one in cosines])), 4) for measure in cosines[0]},
        **({"counted": len(counted), "by_cell": [round(float(hit.mean()), 5) for hit in found]} if in_cells else {}),
        "seconds": round(took, 2),
    }


# --------------------------------------------------------------------------------------------- inside


def _guess(part: Part) -> float:
    """Return the share that guessing names: in as many draws as there are groups, if both sides tell them."""
    told = [len(np.unique(mine)) for name, (mine, _) in part.case.groups.items() if name != "tokens"]
    return max(told, default=1) / len(part.among)


def _decoded(located: Matrix, noisy: Callable[[Matrix], Matrix], case: Case, truth: Matrix) -> dict[str, float]:
    """Return the cosine of reconstructed vectors, as they are and after subtracting the mean of the corpus."""
    learnt = sample(case.corpus, _DECODED, case.rng)
    frame = noisy(learnt)
    scale = np.float32(np.sqrt(np.square(frame).mean() / max(1e-20, float(np.square(located).mean()))))
    matrix, offset = decoder(frame, learnt)
    guess = float32(located * scale @ matrix + offset)
    return {
        "cosine": round(mean_cosine(guess, truth), 4),
        "cosine_centered": round(mean_cosine(guess, truth, float32(case.corpus.mean(axis=0))), 4),
    }
