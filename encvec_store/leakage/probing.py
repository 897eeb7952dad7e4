"""Run the probes on an experiment's subjects: rows beside those of attacks; imports experiment, probes, linking.

One row a subject, size, key and probe, with `probe` where a row of an attack has `attack`: a figure (`measure`,
`value`), what guessing gives (`chance`), what luck gives in one of twenty trials where nothing leaks (`null`), the
rest in `details`. Rows go to the same file, and a run that was stopped goes on behind them.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from ..errors import InputError
from . import probes
from .algebra import Indices, Matrix
from .attacks import ATTACKS
from .experiment import Experiment, Row, keep, kept
from .identities import accuracy, people_found
from .linking import linkage
from .probes import LUCK, Labels
from .subjects import Registered, Subject
from .views import Case, view

__all__ = ["ALIGNING", "PROBES", "Known", "probe", "worst_probes"]

ALIGNING = ("naive", "coordinates", "pca-icp", "components")
"""Attacks that align for membership, attributes and identities, where an experiment names none: one for each kind."""
_KEY = ("subject", "parameters", "probe", "corpus", "n", "key")
_MOST = 1_000
_PEOPLE = 1_500
_COPIES = 16
_TOLD = 500
_LONG = 100.0
Found = tuple[str, float, float, float, dict[str, Any]]
"""Measure, value, chance, null, details."""


@dataclass(frozen=True)
class Known:
    """What is known of the vectors beside the vectors, of the victim's (v,) and of the corpus' (m,).

    `labels` are what an attribute is (a topic), `identities` who is shown; probes that need them are left out without.
    """

    labels: tuple[Labels, Labels] | None = None
    identities: tuple[Labels, Labels] | None = None

    def check(self, experiment: Experiment) -> None:
        """Raise InputError where there is not one for each vector."""
        for pair in (self.labels, self.identities):
            if pair is not None and tuple(map(len, pair)) != (len(experiment.victim), len(experiment.corpus)):
                raise InputError("labels must be as many as there are vectors of the victim and of the corpus")


class _Bench:
    """A subject under one key, and what all its probes share."""

    def __init__(self, experiment: Experiment, known: Known, subject: Subject, n: int, key: int) -> None:
        self.experiment, self.known, self.subject, self.key = experiment, known, subject, key
        order = np.random.default_rng([key, n]).permutation(len(experiment.victim))  # the records that attacks had
        self.rows, rest = order[:n], order[n : n + _MOST]
        self.truth = experiment.victim[self.rows]
        self.keyed = subject.keyed(key, experiment.statistics)
        self.stored = self.keyed.store(self.truth)
        held = np.arange(len(experiment.corpus))
        if len(rest) >= min(100, n):
            self.strangers, self.held = experiment.victim[rest], held
        else:  # a stranger must not be one whom the adversary aligned by
            aside = min(_MOST, len(held) // 4)
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
                rng = np.random.default_rng([self.key, len(self.truth), 7])
                case = Case(self.stored, self.corpus, rng, self.keyed.noise, None, self.keyed.public)
                seen = view(looked, case)
                if seen is None:
                    continue
                located = ATTACKS[attack].run(seen, case)
                if np.isfinite(located).all() and located.shape == seen.frame(self.truth).shape:
                    found.append((f"{attack}, {looked}", located, seen.frame))
        return found

    def best(
        self, figure: str, measure: Callable[[Matrix, Callable[[Matrix], Matrix], float], dict[str, float]]
    ) -> Found | None:
        """Return the most that any alignment gives; luck is shared among them (Bonferroni)."""
        if not self.aligned:
            return None
        tried = [(name, measure(located, frame, LUCK / len(self.aligned))) for name, located, frame in self.aligned]
        by, top = max(tried, key=lambda pair: pair[1][figure])
        each = {name: round(found[figure], 5) for name, found in tried}
        return figure, top[figure], top["chance"], top["null"], {"by": by, "tried": each}


def _linkage(bench: _Bench) -> Found:
    """Two dumps of the same records: under this key and under the next."""
    other = bench.subject.keyed(bench.key + 1, bench.experiment.statistics).store(bench.truth)
    found = linkage(bench.stored, other, seed=bench.key)
    return "d_sys", found.pop("d_sys"), 0.0, found.pop("d_sys_null"), found


def _membership(bench: _Bench) -> Found | None:
    members = bench.truth[:_MOST]
    return bench.best(
        "auc", lambda located, frame, luck: probes.membership(located, frame(members), frame(bench.strangers), luck)
    )


def _attributes(bench: _Bench) -> Found | None:
    if bench.known.labels is None:
        return None
    mine, theirs = bench.known.labels[0][bench.rows], bench.known.labels[1][bench.held]
    return bench.best(
        "accuracy", lambda located, frame, luck: probes.attributes(located, mine, frame(bench.corpus), theirs, luck)
    )


def _grouping(bench: _Bench) -> Found | None:
    if bench.known.labels is None:
        return None
    told = min(_TOLD, len(bench.truth) // 4)
    found = probes.grouping(bench.stored, bench.known.labels[0][bench.rows], told, bench.key)
    return "accuracy", found["accuracy"], found["chance"], found["null"], {"known": told}


def _averaging(bench: _Bench) -> Found:
    """Copies of a record under ids of their own. The null is what two single copies have in common."""
    found = probes.averaging(bench.keyed, bench.truth[:_MOST], _COPIES)
    details = {"copies": _COPIES, "repeats_equal": found["repeats_equal"]}
    return "cosine", found["cosine"], found["chance"], found["chance"], details


def _chosen(bench: _Bench) -> Found:
    """A store puts every vector on the sphere before a scheme of ours sees it; others may take it as it comes."""
    lengths = (1.0,) if isinstance(bench.subject, Registered) else (1.0, _LONG)
    tried = [
        probes.chosen_plaintext(bench.keyed, bench.truth, own=own, length=length, seed=bench.key)
        for length, own in itertools.product(lengths, (None, bench.corpus))
    ]
    found = max(tried, key=lambda one: float(one["identified"]))
    n = len(bench.truth)
    null = float(binom.isf(LUCK / (2 * len(tried)), n, 1 / n)) / n
    return "identified", float(found.pop("identified")), float(found.pop("chance")), null, dict(found)


def _norms(bench: _Bench) -> Found:
    found = probes.norms(bench.stored, bench.truth)
    details = {name: found[name] for name in ("rank_correlation", "relative_spread", "scale")}
    return "rank_correlation", abs(found["rank_correlation"]), 0.0, found["null"], details


def _pictures(bench: _Bench, among: Indices) -> Indices | None:
    """Rows of the corpus that show somebody who is enrolled."""
    if bench.known.identities is None:
        return None
    mine, theirs = bench.known.identities
    shown = among[np.isin(theirs[among], mine[bench.rows])]
    rng = np.random.default_rng(bench.key)
    return shown[rng.permutation(len(shown))[:_PEOPLE]] if len(shown) else None


def _people(bench: _Bench) -> Found | None:
    shown = _pictures(bench, bench.held)
    if shown is None or bench.known.identities is None or not bench.aligned:
        return None
    mine, theirs = bench.known.identities
    pictures = bench.experiment.corpus[shown]
    found = people_found(
        ((name, located, frame(pictures)) for name, located, frame in bench.aligned),
        (mine[bench.rows], theirs[shown]),
        (bench.truth, pictures),
    )
    return "identified", found.pop("identified"), found.pop("chance"), found.pop("null"), found


def _accuracy(bench: _Bench) -> Found | None:
    """The honest user's. The value is the error after re-rank of most candidates, the null that of the plaintext."""
    shown = _pictures(bench, np.arange(len(bench.experiment.corpus)))
    if shown is None or bench.known.identities is None:
        return None
    mine, theirs = bench.known.identities
    pictures = bench.experiment.corpus[shown]
    asked = bench.keyed.ask(pictures)
    ids = (mine[bench.rows], theirs[shown])
    found = accuracy(bench.stored, asked, bench.truth, pictures, ids, bench.experiment.candidates)
    most = max(found["reranked"], key=int)
    return "eer", found["reranked"][most]["eer"], 0.5, found["plain"]["eer"], found


PROBES: dict[str, Callable[[_Bench], Found | None]] = {
    "norms": _norms,
    "averaging": _averaging,
    "chosen-plaintext": _chosen,
    "accuracy": _accuracy,
    "attributes-known": _grouping,
    "membership": _membership,
    "identities": _people,
    "attributes": _attributes,
    "linkage": _linkage,
}
"""Name -> probe, cheap ones first."""


def probe(
    experiment: Experiment,
    known: Known | None = None,
    out: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
    *,
    only: Sequence[str] | None = None,
) -> list[Row]:
    """Run all probes, or `only` some, on each subject, size and key; append rows to `out`, skip those in it.

    Returns the rows of probes, those found in the file included. Raises InputError for an unknown probe, or labels
    that are not as many as vectors.
    """
    known = known or Known()
    known.check(experiment)
    for name in only or ():
        if name not in PROBES:
            raise InputError(f"unknown probe {name!r}; there are: {', '.join(PROBES)}")
    rows = [row for row in kept(out) if "probe" in row]
    done = {_identity(row) for row in rows}
    for row in _rows(experiment, known, done, progress, only or tuple(PROBES)):
        rows.append(row)
        keep(row, out)
    return rows


def worst_probes(rows: Iterable[Row]) -> list[Row]:
    """Return for each subject, parameters, n and probe the row with the largest value over keys.

    With `median`, the median over keys, and their number as `keys`.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(json.dumps([row[name] for name in _KEY[:-1]]), []).append(row)
    return [
        {
            **max(group, key=lambda row: row["value"]),
            "median": float(np.median([row["value"] for row in group])),
            "keys": len({row["key"] for row in group}),
        }
        for group in groups.values()
    ]


# --------------------------------------------------------------------------------------------- inside


def _identity(row: Mapping[str, Any]) -> str:
    return json.dumps([row[name] for name in _KEY], sort_keys=True)


def _rows(
    experiment: Experiment, known: Known, done: set[str], progress: Callable[[int], None], only: Sequence[str]
) -> Iterator[Row]:
    libraries = {name: version(name) for name in ("encvec-store", "numpy", "scipy")}
    # keys first: a run that is stopped has said something of every subject
    for key, n, (name, subject) in itertools.product(range(experiment.keys), experiment.sizes, experiment.subjects):
        bench: _Bench | None = None
        for chosen in only:
            head = {
                "subject": name, "parameters": dict(subject.parameters()), "probe": chosen,
                "corpus": experiment.name, "n": n, "key": key,
            }  # fmt: skip
            if _identity(head) not in done:
                bench = bench or _Bench(experiment, known, subject, n, key)
                start = time.perf_counter()
                found = PROBES[chosen](bench)
                if found is not None and all(map(math.isfinite, found[1:4])):
                    measure, value, chance, null, details = found
                    yield {
                        **head, "measure": measure, "value": value, "chance": chance, "null": null,
                        "details": details, "seconds": round(time.perf_counter() - start, 2), "versions": libraries,
                    }  # fmt: skip
            progress(1)
