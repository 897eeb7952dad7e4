"""What `encvec leakage` attacks: vectors of a file, built-in ones, or what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from ..collection import Collection
from ..data.arrays import Matrix
from ..errors import InputError
from ..sealing.config import DEFAULT_SCHEME, RANKED_SCHEME
from ..transfer.batch import sound
from .columns import Columns
from .output import note
from .readers import open_reader

if TYPE_CHECKING:
    from ..lab.leakage import Experiment, Known, Subject

__all__ = ["of_collection", "of_vectors", "probe_trials", "sealed_beside", "sealed_copy"]

_BATCH = 10_000
_SIZES = (1_000, 5_000)
_QUICK = 1_500
_QUICK_ATTACKS = ("naive", "coordinates", "pca-icp", "components", "pairs-expectation", "classes", "order")
_QUICK_VIEWS = ("raw", "centred", "sphere")
"""The strongest for their time of each kind of adversary."""
_PAIRS = (50,)
_ENOUGH = 0.5
"""Where an attack names so much, no other is tried: it could not tell more than that the scheme is broken."""
_ASIDE = 300
"""Records beside those attacked, as queries of the owner."""
_LEAST = 40
_RANKED = (RANKED_SCHEME, "sap")


def of_vectors(
    data: str | None, corpus: str | None, labels: str | None, people: bool, choices: dict[str, Any]
) -> tuple[Experiment, Known | None]:
    """Return an experiment on vectors that the lab encrypts, and what is known of them. Raises InputError."""
    from ..lab.leakage import Experiment

    victim, others, sample, known = _load(data, corpus, labels, people)
    sizes, settings = _settings(choices, len(victim))
    subjects = _subjects(choices, sample, max(sizes))
    name = Path(data).stem if data else "built-in"
    classes = None if known is None else known.labels
    return (
        Experiment(victim, others, subjects, sizes=sizes, name=name, profile=sample, labels=classes, **settings),
        known,
    )


def of_collection(target: Collection, corpus: str | None, choices: dict[str, Any]) -> Experiment | None:
    """Return an experiment on stored index vectors; None where there are none. Raises InputError."""
    from ..lab.leakage import Experiment
    from ..lab.leakage.stored import read

    most = max(choices["sizes"] or _SIZES) + _ASIDE
    stored = read(target, most if corpus is not None else 2 * most)
    if stored is None:
        return None
    points, config = stored.points, stored.config
    if corpus is not None:
        theirs = _read(corpus)
        if theirs.shape[1] != config.dim:
            raise InputError(f"{corpus} must have vectors of {config.dim}, got {theirs.shape[1]}")
        config.metric.check(theirs, config.max_norm, corpus)
        victim, others = np.arange(len(points)), config.lift(theirs)
    else:
        victim, rest = _halves(len(points), f"collection {target.name!r}")
        others = points[rest]
    stored = stored.only(victim)
    sizes, settings = _settings(choices, len(victim))
    named = f"collection {target.name}"
    return Experiment(stored.points, others, [(config.scheme.name, stored)], sizes=sizes, name=named, **settings)


def sealed_beside(experiment: Experiment, out: Path | None) -> list[dict[str, Any]]:
    """Return what a thief, and a server that watches, get of the same records under the default; of `out` if there."""
    from ..lab.leakage.running import keep, kept
    from ..lab.leakage.sealed import copies, sealed_rows
    from ..lab.leakage.watched import watched_rows, watchers

    known = [row for row in kept(out) if experiment.name in (row.get("copied"), row.get("watched"))]
    fresh = []
    vectors = experiment.victim[: max(experiment.sizes)]
    if not copies(known)[0]:
        fresh += sealed_rows(vectors, name=experiment.name)
    if not watchers(known)[0]:
        fresh += watched_rows(vectors, experiment.corpus, name=experiment.name)
    for row in fresh:
        keep(row, out)
    return known + fresh


def sealed_copy(target: Collection) -> dict[str, Any]:
    """Return what a copy of the store has of a sealed collection, as a row."""
    from ..lab.leakage.sealed import Copied

    shown = set((target.stats()["fields"] or {}).values())
    return Copied(target.name, target.count(), 0, "plain" in shown, "blind" in shown).row()


def probe_trials(experiment: Experiment) -> int:
    """Return how many probes there will be."""
    from ..lab.leakage import PROBES

    return len(experiment.subjects) * len(experiment.sizes) * experiment.keys * len(PROBES)


def _settings(choices: dict[str, Any], records: int) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Return sizes, and the other arguments of an experiment."""
    sizes, attacks = choices["sizes"], list(choices["attacks"]) or None
    trials, pairs = choices["trials"], choices["pairs"]
    views = None
    if choices["quick"]:
        sizes, trials = sizes or (min(_QUICK, records),), 1
        if attacks is None:
            attacks, views = list(_QUICK_ATTACKS), _QUICK_VIEWS
    sizes = sizes or tuple(sorted({min(n, records) for n in _SIZES}))
    given = {"attacks": attacks, "keys": trials, "adversaries": choices["adversaries"], "pairs": pairs or _PAIRS}
    return sizes, {**given, "views": views, "enough": None if choices["attacks"] else _ENOUGH}


def _subjects(choices: dict[str, Any], sample: Matrix, records: int) -> list[tuple[str, Subject]]:
    """Return what is attacked, with what a collection of `records` records like the sample chooses."""
    from ..lab.leakage import subject
    from ..lab.leakage.registered import defaults

    names, k = choices["names"] or _RANKED, choices["dims"]
    if not choices["names"]:
        schemes = " and ".join(names)
        note(f"attacking {schemes}: under {DEFAULT_SCHEME}, the default, a store has no index vectors to attack")
    if "sketch" in names and k is None:
        config = defaults("sketch", sample, records)
        if records < (least := config.scheme.least_records):
            note(f"below {least:,} records a sketch is still sealed: attacked are records of a larger one")
    dim = sample.shape[1]
    given = {"k": k, "beta": choices["beta"], "cells": choices["cells"], "sample": sample}
    return [(name, subject(name, dim, **given)) for name in names]


def _load(
    data: str | None, corpus: str | None, labels: str | None, people: bool
) -> tuple[Matrix, Matrix, Matrix, Known | None]:
    """Return the victim's vectors, the adversary's, those that a collection fits its statistics on, what is known."""
    from ..lab.leakage import Known
    from ..lab.leakage.data import text_like

    if data is None:
        if corpus is not None or labels is not None:
            raise click.UsageError("--corpus and --labels go with --data")
        (victim, mine), (others, theirs) = text_like(6000, seed=1), text_like(6000, seed=2)
        return victim, others, victim, Known(labels=(mine, theirs))
    sample = _unit(_read(data), data)
    victim, others = sample, sample[:0] if corpus is None else _unit(_read(corpus), corpus)
    if others.shape[1] != victim.shape[1]:
        raise InputError(f"{corpus} must have vectors of {victim.shape[1]} as {data} has, got {others.shape[1]}")
    known = None if labels is None else _labels(labels, len(victim) + len(others))
    parts = np.arange(len(victim)), np.arange(len(others)) + len(victim)
    if corpus is None:
        parts = _halves(len(victim), data)
        victim, others = victim[parts[0]], victim[parts[1]]
    if known is None:
        return victim, others, sample, None
    pair = known[parts[0]], known[parts[1]]
    return victim, others, sample, Known(identities=pair) if people else Known(labels=pair)


def _halves(count: int, name: str) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Draw who is stored and what the adversary has instead."""
    if count < _LEAST:
        raise InputError(f"{name} must have at least {_LEAST} vectors, got {count}; or give a --corpus")
    order = np.random.default_rng(0).permutation(count)
    return order[: count // 2], order[count // 2 :]


def _labels(path: str, count: int) -> npt.NDArray[np.int64]:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} must be an npy file of labels: {error}") from None
    if getattr(found, "shape", None) != (count,):
        raise InputError(f"{path} must have one label for each of {count} vectors")
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _read(path: str) -> Matrix:
    parts = [np.asarray(batch.vectors, np.float32) for batch in sound(open_reader(path, None, Columns()), _BATCH)]
    if not parts:
        raise InputError(f"{path} holds no vectors")
    vectors: Matrix = np.concatenate(parts)
    return vectors


def _unit(vectors: Matrix, path: str) -> Matrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise InputError(f"{path}: every vector must be finite and not zero")
    vectors /= lengths
    return vectors
