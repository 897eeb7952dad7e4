"""Run the probes on an experiment's subjects, and keep their rows beside those of the attacks.

There is one row for each subject, size, key and probe; it has `probe` where a row of an attack has `attack`. It holds
a figure (`measure`, `value`), what guessing gives (`chance`), what luck gives in one of twenty trials when nothing
leaks (`null`), and the rest in `details`. Rows go to the same file, and a stopped run can continue.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from ...errors import InputError
from . import probes
from .algebra import Indices
from .bench import ALIGNING, MOST, Bench, Found, Known
from .experiment import Experiment, Row
from .identities import accuracy, people_found
from .linking import linkage
from .metrics import scores
from .probes import LUCK
from .registered import Registered
from .running import keep, kept

__all__ = ["ALIGNING", "PROBES", "Known", "probe", "worst_probes"]

_KEY = ("subject", "parameters", "probe", "corpus", "n", "key")
_PEOPLE = 1_500
_COPIES = 16
_TOLD = 500
_LOGGED = 400
_LONG = 100.0


def _linkage(bench: Bench) -> Found:
    """Link two dumps of the same records, under this key and the next."""
    other = bench.subject.keyed(bench.key + 1, bench.experiment.statistics).store(bench.truth)
    found = linkage(bench.stored, other, seed=bench.key)
    return "d_sys", found.pop("d_sys"), 0.0, found.pop("d_sys_null"), found


def _membership(bench: Bench) -> Found | None:
    members = bench.truth[:MOST]
    return bench.best(
        "auc", lambda located, frame, luck: probes.membership(located, frame(members), frame(bench.strangers), luck)
    )


def _attributes(bench: Bench) -> Found | None:
    if bench.known.labels is None:
        return None
    mine, theirs = bench.known.labels[0][bench.rows], bench.known.labels[1][bench.held]
    return bench.best(
        "accuracy", lambda located, frame, luck: probes.attributes(located, mine, frame(bench.corpus), theirs, luck)
    )


def _grouping(bench: Bench) -> Found | None:
    if bench.known.labels is None:
        return None
    told = min(_TOLD, len(bench.truth) // 4)
    points = probes.apart(bench.stored, bench.cells)
    found = probes.grouping(points, bench.known.labels[0][bench.rows], told, bench.key)
    return "accuracy", found["accuracy"], found["chance"], found["null"], {"known": told}


def _cells(bench: Bench) -> Found | None:
    """Every store shows which records share a cell."""
    if bench.known.labels is None or bench.cells.max() == bench.cells.min():
        return None
    found = probes.cell_leakage(bench.cells, bench.known.labels[0][bench.rows])
    return "information", found.pop("information"), found.pop("chance"), found.pop("null"), found


def _joining(bench: Bench) -> Found | None:
    """A server that logs queries sees each one encrypted for every cell. The null pairs queries at random."""
    if bench.cells.max() == bench.cells.min() or bench.keyed.sorts is not None:
        return None  # if cells follow content, copies of a record share a cell
    found = probes.joining(bench.keyed, bench.truth, bench.strangers[:_LOGGED])
    fewer = {
        str(count): round(probes.joining(bench.keyed, bench.truth, bench.strangers[:count])["joined"], 4)
        for count in (50, 100, 200)
    }
    return "joined", found.pop("joined"), found.pop("chance"), found.pop("null"), {**found, "fewer": fewer}


def _averaging(bench: Bench) -> Found:
    """Average copies of a record under different ids. The null is the cosine of two single copies."""
    found = probes.averaging(bench.keyed, bench.truth[:MOST], _COPIES)
    details = {"copies": _COPIES, "repeats_equal": found["repeats_equal"]}
    return "cosine", found["cosine"], found["chance"], found["chance"], details


def _chosen(bench: Bench) -> Found:
    """Try long vectors too, except on our own schemes: our store scales every vector to unit length first."""
    lengths = (1.0,) if isinstance(bench.subject, Registered) else (1.0, _LONG)
    tried = [
        probes.chosen_plaintext(bench.keyed, bench.truth, own=own, length=length, seed=bench.key)
        for length, own in itertools.product(lengths, (None, bench.corpus))
    ]
    found = max(tried, key=lambda one: float(one["identified"]))
    n = len(bench.truth)
    null = float(binom.isf(LUCK / (2 * len(tried)), n, 1 / n)) / n
    return "identified", float(found.pop("identified")), float(found.pop("chance")), null, dict(found)


def _norms(bench: Bench) -> Found:
    found = probes.norms(bench.stored, bench.truth)
    details = {name: found[name] for name in ("rank_correlation", "relative_spread", "scale")}
    return "rank_correlation", abs(found["rank_correlation"]), 0.0, found["null"], details


def _pictures(bench: Bench, among: Indices) -> Indices | None:
    """Return rows of the corpus that show enrolled people."""
    if bench.known.identities is None:
        return None
    mine, theirs = bench.known.identities
    shown = among[np.isin(theirs[among], mine[bench.rows])]
    rng = np.random.default_rng(bench.key)
    return shown[rng.permutation(len(shown))[:_PEOPLE]] if len(shown) else None


def _people(bench: Bench) -> Found | None:
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


def _accuracy(bench: Bench) -> Found | None:
    """Measure the owner's accuracy: the error after re-ranking the most candidates. The null is plaintext's error."""
    shown = _pictures(bench, np.arange(len(bench.experiment.corpus)))
    if shown is None or bench.known.identities is None:
        return None
    mine, theirs = bench.known.identities
    pictures = bench.experiment.corpus[shown]
    hints = scores(bench.stored, bench.keyed.ask(pictures), bench.cells)
    ids = (mine[bench.rows], theirs[shown])
    found = accuracy(hints, bench.truth, pictures, ids, bench.experiment.candidates)
    most = max(found["reranked"], key=int)
    return "eer", found["reranked"][most]["eer"], 0.5, found["plain"]["eer"], found


PROBES: dict[str, Callable[[Bench], Found | None]] = {
    "norms": _norms,
    "cells": _cells,
    "joining": _joining,
    "averaging": _averaging,
    "chosen-plaintext": _chosen,
    "accuracy": _accuracy,
    "attributes-known": _grouping,
    "membership": _membership,
    "identities": _people,
    "attributes": _attributes,
    "linkage": _linkage,
}
"""Probes by name, cheap ones first."""


def probe(
    experiment: Experiment,
    known: Known | None = None,
    out: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
    *,
    only: Sequence[str] | None = None,
) -> list[Row]:
    """Run all probes, or `only` some, on each subject, size and key; append the rows to `out`.

    Skips what `out` holds already. Returns the rows of probes, including those found in the file. Raises InputError
    for an unknown probe, or if the number of labels differs from that of vectors.
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

    Each row also has the median over keys as `median`, and the number of keys as `keys`.
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
    # keys are the outer loop, so that a stopped run has rows of every subject
    for key, n, (name, given) in itertools.product(range(experiment.keys), experiment.sizes, experiment.subjects):
        subject = experiment.standing(given, n)
        bench: Bench | None = None
        for chosen in only:
            head = {
                "subject": name, "parameters": dict(subject.parameters()), "probe": chosen,
                "corpus": experiment.name, "n": n, "key": key,
            }  # fmt: skip
            if _identity(head) not in done:
                bench = bench or Bench(experiment, known, subject, n, key)
                start = time.perf_counter()
                found = PROBES[chosen](bench)
                if found is not None and all(map(math.isfinite, found[1:4])):
                    measure, value, chance, null, details = found
                    yield {
                        **head, "measure": measure, "value": value, "chance": chance, "null": null,
                        "details": details, "seconds": round(time.perf_counter() - start, 2), "versions": libraries,
                    }  # fmt: skip
            progress(1)
