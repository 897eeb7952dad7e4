"""Compare a collection with its source: every record, and searches with exact ones.

Nothing remembered from the import is used: both the source and the collection are read again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..collection import Collection
from ..data.ids import Id
from ..data.metrics import metric
from ..data.records import Hit, Record
from ..errors import AuthenticationError
from .batch import Batch, ImportSource
from .load import BATCH
from .same import as_kept, difference
from .trial import faults_of

__all__ = ["Comparison", "Mismatch", "compare"]

K = 10
QUERIES = 100
_LISTED = 1000
_CLOSE = 1e-6


class Mismatch(NamedTuple):
    """A row of the source that the collection lacks or holds differently."""

    id: Id
    what: str
    """missing; vector, metadata or document differs; unreadable; cannot be stored: ..."""
    changed: bool
    """The source was changed after it was read: what was read is what is stored."""


@dataclass
class Comparison:
    """What a comparison found. Only the first 1,000 mismatches are kept; `different` and `changed` count all."""

    source: int = 0
    """Rows of the source."""
    collection: int = 0
    """Records of the collection; it may hold others besides."""
    compared: int = 0
    different: int = 0
    changed: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    queries: int = 0
    recall: float | None = None
    """Share of the exact k nearest over the source that the collection's search gave; None where not measured."""
    wrong_scores: int = 0
    """Hits whose score is not the exact one."""

    @property
    def ok(self) -> bool:
        """Whether every row that was compared is there as it is now, and every score was exact."""
        return not (self.different or self.changed or self.wrong_scores)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        found = [{**mismatch._asdict(), "id": str(mismatch.id)} for mismatch in self.mismatches]
        return {"ok": self.ok, **vars(self), "mismatches": found, "k": K}


def compare(
    source: ImportSource,
    collection: Collection,
    *,
    sample: int | None = None,
    queries: int = QUERIES,
    batch_size: int = BATCH,
    seed: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> Comparison:
    """Compare a collection with a source, row by row and by searching.

    Args:
        source: after an import from it, call its `again` first, to find what changed meanwhile.
        collection: its records are decrypted and authenticated.
        sample: compare so many random rows instead of all.
        queries: vectors of the source, chosen by chance, whose 10 nearest are searched for; 0 for none. They are not
            where the collection holds records besides the source's.
        batch_size: rows at a time.
        seed: of the choice.
        progress: called with (rows done since the last call, rows in all).
    """
    report = Comparison(source=source.total or 0, collection=collection.count())
    chosen = None
    if sample is not None and sample < report.source:
        chosen = np.sort(np.random.default_rng(seed).choice(report.source, sample, replace=False))
    asked = source.sample(queries, seed) if queries and report.collection <= report.source else None
    truth = _Nearest(collection.metric, asked) if asked is not None and len(asked) else None
    start = 0
    for given in source.batches(batch_size):
        batch = as_kept(collection, given)
        if truth is not None:
            truth.see(batch)
        rows = len(batch.ids) + len(batch.faults)
        part = batch
        if chosen is not None:
            inside = chosen[(chosen >= start) & (chosen < start + len(batch.ids))] - start
            part = batch.take(inside.tolist())
        start += rows
        report.compared += len(part.ids) + len(batch.faults)
        _compare(report, source, collection, part)
        _note(report, [Mismatch(fault.id, f"cannot be stored: {fault.reason}", False) for fault in batch.faults])
        if progress is not None:
            progress(rows, source.total)
    if truth is not None:
        truth.judge(report, collection)
    return report


def _compare(report: Comparison, source: ImportSource, collection: Collection, batch: Batch) -> None:
    stored, unreadable = _opened(collection, batch.ids)
    odd: dict[int, str] = {}
    for place, id in enumerate(batch.ids):
        if id not in stored:
            odd[place] = "unreadable" if id in unreadable else "missing"
        elif part := difference(stored[id], batch.vectors[place], *batch.fields(place)):
            odd[place] = f"{part} differs"
    if not odd:
        return
    reasons = dict(faults_of(collection, batch.take([place for place, what in odd.items() if what == "missing"])))
    then = as_kept(collection, source.as_read([batch.ids[place] for place in odd]))
    before = {id: place for place, id in enumerate(then.ids)}
    found = []
    for place, what in odd.items():
        id = batch.ids[place]
        if id in reasons:
            what = f"cannot be stored: {reasons[id]}"
        was = before.get(id)
        if id in stored:
            changed = was is not None and not difference(stored[id], then.vectors[was], *then.fields(was))
        else:
            changed = was is None and id not in unreadable
        found.append(Mismatch(id, what, changed))
    _note(report, found)


def _note(report: Comparison, found: list[Mismatch]) -> None:
    changed = sum(mismatch.changed for mismatch in found)
    report.changed += changed
    report.different += len(found) - changed
    report.mismatches += found[: _LISTED - len(report.mismatches)]


def _opened(collection: Collection, ids: Sequence[Id]) -> tuple[dict[Id, Record], set[Id]]:
    """Return the records of ids, and the ids of those that don't authenticate."""
    try:
        return {record.id: record for record in collection.get(ids)}, set()
    except AuthenticationError:
        found: dict[Id, Record] = {}
        broken: set[Id] = set()
        for id in ids:
            try:
                found.update((record.id, record) for record in collection.get([id]))
            except AuthenticationError:
                broken.add(id)
        return found, broken


class _Nearest:
    """The exact k nearest of some queries among all batches that it has seen."""

    def __init__(self, name: str, queries: npt.NDArray[np.float32]) -> None:
        self._metric = metric(name)
        self._queries = queries
        self._ids = np.empty((len(queries), 0), object)
        self._scores = np.empty((len(queries), 0))

    def see(self, batch: Batch) -> None:
        """Add the vectors of a batch."""
        with np.errstate(all="ignore"):  # a zero vector has no cosine: it is no neighbour of anything
            scores = np.stack([self._metric.scores(query, batch.vectors) for query in self._queries])
        names = np.broadcast_to(np.array(batch.ids, object), scores.shape)
        ids, scores = np.hstack([self._ids, names]), np.hstack([self._scores, scores])
        order = np.where(np.isfinite(scores), self._metric.order(scores), np.inf)
        best = np.argsort(order, axis=1, kind="stable")[:, :K]
        self._ids, self._scores = np.take_along_axis(ids, best, 1), np.take_along_axis(scores, best, 1)

    def judge(self, report: Comparison, collection: Collection) -> None:
        """Search for the queries, and count how many of the true nearest were found."""
        finite = np.isfinite(self._scores).all(axis=1)
        queries: Any = self._queries[finite]
        report.queries = len(queries)
        if not len(queries):
            return
        found = wanted = 0
        answers: list[list[Hit]] = collection.search(queries, K)
        for hits, ids, scores in zip(answers, self._ids[finite], self._scores[finite], strict=True):
            truth = dict(zip(ids, scores.tolist(), strict=True))
            last = float(scores[-1])
            wanted += len(truth)
            for hit in hits:
                exact = truth.get(hit.id, last)  # one that is no worse than the last is as good
                close = abs(hit.score - exact) <= _CLOSE * (1 + abs(exact))
                found += close
                report.wrong_scores += hit.id in truth and not close
        report.recall = found / wanted
