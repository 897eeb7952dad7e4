"""The walk of `encvec ingest`: file -> rows that can be stored -> whole batches, and a tally that is true."""

from __future__ import annotations

import re
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..collection import Collection
from ..data.metrics import norms
from ..errors import CollectionNotFoundError, InputError, ProfileError, ShapeError
from ..keys.keyset import Keyset
from ..sealing.config import NORM_MARGIN
from ..store import Store, connect
from ..transfer.batch import Batch, Fault, Reader, RowError
from ..transfer.interrupt import uninterrupted
from ..transfer.trial import faults_of
from .order import Seen
from .output import progress

__all__ = ["Intake", "Tally", "open_or_make"]

_SAMPLE = 40_000
"""Vectors that a scheme is fitted on at most, before a load."""
_CHECK_ROWS = 65_536
_LISTED = 1000


@dataclass
class Tally:
    """What a run has done so far."""

    read: int = 0
    written: int = 0
    skipped: int = 0
    """Rows whose ids were stored already, with --resume."""
    refused: int = 0
    """Rows that cannot be stored, with --on-error skip."""
    faults: list[Fault] = field(default_factory=list)
    """The first of them, and why."""
    created: bool = False
    seconds: float | None = None
    started: float = field(default_factory=time.perf_counter)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        seconds = self.seconds or time.perf_counter() - self.started
        return {
            "read": self.read,
            "written": self.written,
            "skipped": self.skipped,
            "refused": self.refused,
            "faults": [{"row": fault.id, "reason": fault.reason} for fault in self.faults],
            "created": self.created,
            "seconds": round(seconds, 3),
            "records_per_second": round(self.written / seconds, 1) if seconds else None,
        }

    def refuse(self, faults: list[Fault]) -> None:
        """Count rows that cannot be stored."""
        self.refused += len(faults)
        self.faults += faults[: _LISTED - len(self.faults)]


@dataclass
class Intake:
    """How batches are written: which rows are left out, and what a bad row does."""

    reader: Reader
    tally: Tally
    on_error: Literal["stop", "skip"] = "stop"
    resume: bool = False
    _seen: Seen = field(default_factory=Seen)

    def sound(self, batch: Batch) -> Batch:
        """Count a batch as read, and return it without the rows that the file itself makes bad.

        An id that the file repeats is such a row, in whatever batch it stands: the first one counts.

        Raises:
            RowError: there is one, and it is to stop the run.
        """
        self.tally.read += len(batch.ids) + len(batch.faults)
        again = self._seen.repeats(batch.ids)
        faults = list(batch.faults)
        if again:
            faults += [Fault(self._place(batch, place), f"the id repeats {batch.ids[place]!r}") for place in again]
            batch = batch.take(np.delete(np.arange(len(batch.ids)), again).tolist())
        self._refuse(faults)
        return batch

    def write(self, target: Collection, batch: Batch) -> Batch:
        """Write a batch that is sound, all or nothing. Returns what was written of it."""
        if self.resume:
            there = {record.id for record in target.get(batch.ids, include_vectors=False)}
            self.tally.skipped += len(there)
            batch = batch.take([place for place, id in enumerate(batch.ids) if id not in there])
        try:
            self._put(target, batch)
        except InputError as error:
            bad = faults_of(target, batch) if self.on_error == "skip" else []
            if not bad:
                raise _placed(error, self.reader, batch) from None
            reasons = dict(bad)
            places = [place for place, id in enumerate(batch.ids) if id in reasons]
            self._refuse([Fault(self._place(batch, place), reasons[batch.ids[place]]) for place in places])
            batch = batch.take(np.delete(np.arange(len(batch.ids)), places).tolist())
            self._put(target, batch)
        return batch

    def _put(self, target: Collection, batch: Batch) -> None:
        if batch.ids:
            with uninterrupted():
                target.upsert(batch.ids, batch.vectors, batch.metadata, batch.documents)
                self.tally.written += len(batch.ids)

    def _refuse(self, faults: list[Fault]) -> None:
        for fault in faults if self.on_error == "stop" else ():
            raise RowError(f"{self.reader.name}, {fault.id}: {fault.reason}")
        self.tally.refuse(faults)

    def _place(self, batch: Batch, place: int) -> str:
        return f"{self.reader.unit} {batch.positions[place]}"


def open_or_make(
    store: Store, name: str, tenant: str, settings: dict[str, Any], reader: Reader, first: Batch, *, skip: bool = False
) -> tuple[Collection, bool]:
    """Open the collection, or create it once its settings and the first batch have proved good.

    With `skip`, rows of the first batch that cannot be stored prove nothing. Returns whether it was created, too.
    """
    dim = first.vectors.shape[1]
    if settings["dim"] not in (None, dim):
        raise ShapeError(f"{reader.name} has vectors of dimension {dim}, not {settings['dim']}")
    try:
        target = store.collection(name, tenant=tenant, **{**settings, "dim": None})
    except CollectionNotFoundError:
        wanted = {**settings, "dim": dim, "metric": settings["metric"] or reader.metric}
        if wanted["metric"] in ("l2", "ip") and wanted["max_norm"] is None and reader.total is not None:
            wanted["max_norm"] = _longest(reader)
        _rehearse(store.keyset, name, wanted, Intake(reader, Tally(), "skip" if skip else "stop"), first)
        target = store.collection(name, tenant=tenant, **wanted)
        _plan(target, reader)
        return target, True
    if target.dim != dim:
        raise ShapeError(f"{reader.name} has vectors of dimension {dim}, collection {name!r} of {target.dim}")
    return target, False


def _plan(target: Collection, reader: Reader) -> None:
    """Fit the scheme on a sample of the file, if it is known to be large: nothing is encrypted twice then."""
    from ..low_level import lifecycle as lifecycle_of  # it loads FAISS, which other commands do not need

    lifecycle, total = lifecycle_of(target), reader.total
    if total is None or not lifecycle.plans(total):
        return
    chosen = np.sort(np.random.default_rng().permutation(total)[:_SAMPLE])
    parts, start = [np.empty((0, target.dim), np.float32)], 0
    with progress("taking a sample", total) as advance, closing(reader.scan(_CHECK_ROWS)) as scan:
        for some in scan:
            wanted = chosen[(chosen >= start) & (chosen < start + len(some))] - start
            vectors = np.asarray(some, np.float32)[wanted]
            lengths = norms(vectors)
            parts.append(vectors[np.isfinite(lengths) & (lengths > 0)])
            start += len(some)
            advance(len(some), None)
    with suppress(ProfileError):  # it is fitted after the load then, or says why not
        lifecycle.plan(np.concatenate(parts), total)


def _longest(reader: Reader) -> float | None:
    """Read the file once for the longest vector, since later batches may exceed what the first one shows."""
    longest = 0.0
    with progress("looking for the longest vector", reader.total) as advance, closing(reader.scan(_CHECK_ROWS)) as scan:
        for vectors in scan:
            lengths = norms(np.asarray(vectors, np.float32))
            longest = max(longest, float(lengths.max(initial=0.0, where=np.isfinite(lengths))))
            advance(len(vectors), None)
    return NORM_MARGIN * longest if longest else None


def _rehearse(keyset: Keyset, name: str, settings: dict[str, Any], intake: Intake, batch: Batch) -> None:
    """Write the first batch in memory: a mistake must not leave an empty collection with wrong settings behind."""
    with connect("memory:", keyset=keyset) as trial:
        if not intake.write(trial.collection(name, **settings), batch).ids:
            raise InputError(f"{intake.reader.name}: none of the first {len(batch.ids):,} rows can be stored")


def _placed(error: InputError, reader: Reader, batch: Batch) -> InputError:
    """Name the file's row where the library names a place in the batch."""
    found = re.search(r"\b(ids|vectors|metadata|documents)\[(\d+)\]", str(error))
    if found is None or int(found[2]) >= len(batch.ids):
        span = f"{reader.unit}s {batch.positions[0]} to {batch.positions[-1]}"
        return type(error)(f"{reader.name}, {span}: {error}")
    what = {"ids": "the id", "vectors": "the vector", "documents": "the document"}.get(found[1], found[1])
    place = f"{reader.name}, {reader.unit} {batch.positions[int(found[2])]}"
    return type(error)(f"{place}: {str(error).replace(found[0], what, 1)}")
