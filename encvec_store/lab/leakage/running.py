"""Run an experiment, in several processes if asked, and keep its rows.

Rows go to a file as they come, and a run that was stopped goes on behind them.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import pickle
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from ...errors import EncvecError, InputError
from .attacks import ATTACKS, BESIDE
from .cells import parts, ways
from .experiment import Experiment, Row, attacked
from .held import held_case, lock

__all__ = ["cores", "keep", "kept", "run"]

_KEY = ("subject", "parameters", "attack", "view", "adversary", "pairs", "corpus", "n", "key", "cells", "beside")
_THREADS = "OMP_NUM_THREADS"
_PATIENCE = 1.0
"""Seconds without a word after which it is asked whether all processes still live."""


def run(
    experiment: Experiment,
    out: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
    jobs: int = 1,
) -> list[Row]:
    """Run all trials. With `out`, append each row to that file at once and skip trials that are already in it.

    Args:
        experiment: what to run.
        out: keeps the rows, and those of a run that was stopped.
        progress: called with 1 after each trial.
        jobs: processes that share the work; rows then come in any order. They import the main module, so a script must
            do its work below `if __name__ == "__main__"`. A stored collection is attacked in this process alone.

    Returns:
        The rows, those of attacks found in the file included.

    Raises:
        InputError: several jobs, and the experiment cannot be pickled.
        EncvecError: a process was killed.
    """
    rows = [row for row in kept(out) if "attack" in row]
    tried = _Tried.of(rows)
    units = list(_units(experiment))
    together = min(jobs, len(units))
    trials = (
        (row for unit in units for row in _trials(experiment, unit, tried))
        if together < 2
        else _in_processes(experiment, units, tried, together)
    )
    for row in trials:
        if row is not None:
            rows.append(row)
            keep(row, out)
        progress(1)
    return rows


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def kept(path: Path | None) -> list[Row]:
    """Return the rows of a file, of attacks and probes. A last line that was cut off is removed from the file."""
    if path is None or not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    # what stands behind the last newline was cut off while it was written
    if lines[-1]:
        path.write_text("".join(line + "\n" for line in lines[:-1]), encoding="utf-8")
    return [json.loads(line) for line in lines[:-1] if line]


def keep(row: Row, path: Path | None) -> None:
    """Append a row to the file at once."""
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


# --------------------------------------------------------------------------------------------- inside


class _Unit(NamedTuple):
    """Trials of one adversary on one subject under one key: what they find decides which others are tried."""

    subject: int
    n: int
    key: int
    holds: str
    adversary: str
    pairs: int
    attacks: tuple[str, ...]


@dataclass
class _Tried:
    """What was tried before."""

    done: set[str] = field(default_factory=set)
    most: dict[str, float] = field(default_factory=dict)
    """The largest share that any attack has named in a situation."""

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Self:
        """What is in rows."""
        tried = cls()
        for row in rows:
            tried.add(row)
        return tried

    def add(self, row: Row) -> None:
        """Note a row."""
        self.done.add(_identity(row))
        situation = _situation(row)
        self.most[situation] = max(self.most.get(situation, 0.0), row["identified"])


def _identity(row: Mapping[str, Any]) -> str:
    return json.dumps([row.get(name) for name in _KEY], sort_keys=True)


def _situation(row: Mapping[str, Any]) -> str:
    return json.dumps([row.get(name) for name in _KEY if name not in ("attack", "view")], sort_keys=True)


def _units(experiment: Experiment) -> Iterator[_Unit]:
    adversaries: dict[tuple[str, str, int], list[str]] = {}
    for name in experiment.attacks or ATTACKS:
        for held in experiment.situations(ATTACKS[name]):
            adversaries.setdefault((ATTACKS[name].holds, *held), []).append(name)
    for subject, n, key in itertools.product(range(len(experiment.subjects)), experiment.sizes, range(experiment.keys)):
        for adversary, attacks in adversaries.items():
            yield _Unit(subject, n, key, *adversary, tuple(attacks))


def _trials(experiment: Experiment, unit: _Unit, tried: _Tried) -> Iterator[Row | None]:
    """Yield a row for each trial; None where it was done before, is not needed or has no result."""
    enough = 2.0 if experiment.enough is None else experiment.enough
    libraries = {name: version(name) for name in ("encvec-store", "numpy", "scipy")}
    name, given = experiment.subjects[unit.subject]
    rng = np.random.default_rng([unit.key, unit.n])
    order = rng.permutation(len(experiment.victim))
    truth = experiment.victim[order[: unit.n]]
    subject = experiment.standing(given, unit.n)
    locked = None
    for attack in unit.attacks:
        for looked, way in itertools.product(
            experiment.looks(ATTACKS[attack]), ways(subject.parameters(), bool(unit.pairs))
        ):
            head = {
                "subject": name, "parameters": dict(subject.parameters()), "attack": attack, "view": looked,
                "adversary": unit.adversary, "pairs": unit.pairs, "corpus": experiment.name, "n": unit.n,
                "key": unit.key, **({"cells": way} if way else {}),
                **({"beside": unit.holds} if unit.holds in BESIDE else {}),
            }  # fmt: skip
            row = None
            if _identity(head) not in tried.done and tried.most.get(_situation(head), 0.0) < enough:
                if locked is None:
                    locked = lock(experiment, subject, unit.key, order, unit.n)
                case = held_case(experiment, unit.adversary, unit.pairs, unit.key, order[: unit.n], locked, unit.holds)
                cut = [] if case is None else parts(way, case, locked.cells, locked.keyed.sorts)
                found = attacked(attack, cut, truth, looked)
                if found is not None:
                    row = {**head, **found, **locked.owner, "versions": libraries}
                    tried.add(row)
            yield row


def _in_processes(experiment: Experiment, units: Sequence[_Unit], tried: _Tried, jobs: int) -> Iterator[Row | None]:
    """Share units among processes: threads would wait for each other, in NumPy's partitions above all."""
    try:
        pickle.dumps(experiment)
    except Exception as error:
        raise InputError(f"jobs must be 1 for an experiment that cannot be pickled: {error}") from error
    context = multiprocessing.get_context("spawn")  # a copy of this process may hold locks of threads it has not
    todo: Any = context.Queue()
    told: Any = context.Queue()
    for unit in (*units, *[None] * jobs):
        todo.put(unit)
    workers = [context.Process(target=_work, args=(experiment, tried, todo, told), daemon=True) for _ in range(jobs)]
    try:
        with _threads(max(1, cores() // jobs)):
            for worker in workers:
                worker.start()
        left = len(units)
        while left:
            try:
                word = told.get(timeout=_PATIENCE)
            except queue.Empty:
                if any(worker.exitcode for worker in workers):
                    raise EncvecError(
                        "a process that attacks was killed, for want of memory perhaps: run again with fewer jobs"
                    ) from None
                continue
            if isinstance(word, Exception):
                raise word
            if isinstance(word, _Unit):
                left -= 1
            else:
                yield word
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _work(experiment: Experiment, tried: _Tried, todo: Any, told: Any) -> None:
    """Do units until there are no more, or nobody is left to hear of them; tell rows, and each unit at its end."""
    parent = multiprocessing.parent_process()
    try:
        for unit in iter(todo.get, None):
            for row in _trials(experiment, unit, tried):
                told.put(row)
                if parent is not None and not parent.is_alive():
                    return
            told.put(unit)
    except EncvecError as error:
        told.put(error)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let processes that are started now compute in so many threads, unless the user has said how many."""
    mine = _THREADS not in os.environ
    os.environ.setdefault(_THREADS, str(count))
    try:
        yield
    finally:
        if mine:
            del os.environ[_THREADS]
