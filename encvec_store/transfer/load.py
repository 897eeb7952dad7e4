"""Import step by step: source -> rows that are missing or differ -> whole batches.

There is no progress file that could be lost or wrong: a record that the collection already holds, equal bit for bit, is
left alone. So after a kill the same call goes on where it stopped, and later it brings what has changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ..collection import Collection
from ..data.ids import Id
from ..errors import InputError
from .batch import Batch, Fault, ImportSource, RowError
from .interrupt import uninterrupted
from .same import as_kept, difference
from .trial import faults_of

__all__ = ["BATCH", "LoadResult", "load", "refuse"]

BATCH = 2048
_LISTED = 1000
_TOLD = 5

OnError = Literal["stop", "skip"]


@dataclass
class LoadResult:
    """What a run has done so far."""

    read: int = 0
    written: int = 0
    """Records that were not there."""
    updated: int = 0
    """Records that were there and differed."""
    unchanged: int = 0
    """Records that were there, equal."""
    skipped: int = 0
    """Rows that cannot be stored."""
    faults: list[Fault] = field(default_factory=list)
    """The first of them, and why."""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        rate = self.read / self.seconds if self.seconds else None
        return {
            "read": self.read,
            "written": self.written,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "skipped": self.skipped,
            "faults": [{"id": str(fault.id), "reason": fault.reason} for fault in self.faults],
            "seconds": round(self.seconds, 3),
            "records_per_second": rate and round(rate, 1),
        }


def load(
    source: ImportSource,
    collection: Collection,
    *,
    batch_size: int = BATCH,
    on_error: OnError = "stop",
    dry_run: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    loaded: LoadResult | None = None,
    wrote: Callable[[int], None] | None = None,
) -> LoadResult:
    """Copy the source into the collection. Records of other ids stay as they are.

    Args:
        source: is read, and not closed.
        collection: is written.
        batch_size: records a write; each write is durable, and all or nothing.
        on_error: at rows that cannot be stored, `stop` before their batch, or `skip` them and go on.
        dry_run: write nothing, and count what would be done.
        progress: called with (rows done since the last call, rows in all).
        loaded: the counts go here, so that the caller has them after an error.
        wrote: called after each write with its number of records.

    Raises:
        RowError: with `stop`; it names the rows. Earlier batches are written.
    """
    done = loaded if loaded is not None else LoadResult()
    started = time.perf_counter()
    known = collection.count() > 0
    try:
        for batch in source.batches(batch_size):
            done.read += len(batch.ids) + len(batch.faults)
            refuse(done, source, batch.faults, on_error)
            wanted, there = _wanted(collection, batch) if known else (batch, set())
            done.unchanged += len(batch.ids) - len(wanted.ids)
            try:
                bad = faults_of(collection, wanted) if dry_run else []
                if not bad:
                    _write(None if dry_run else collection, wanted, there, done)
            except InputError:
                bad = faults_of(collection, wanted)
                if not bad:
                    raise
            if bad:
                refuse(done, source, bad, on_error)
                names = {fault.id for fault in bad}
                wanted = wanted.take([place for place, id in enumerate(wanted.ids) if id not in names])
                _write(None if dry_run else collection, wanted, there, done)
            if wrote is not None and wanted.ids and not dry_run:
                wrote(len(wanted.ids))
            done.seconds = time.perf_counter() - started
            if progress is not None:
                progress(len(batch.ids) + len(batch.faults), source.total)
    finally:
        done.seconds = time.perf_counter() - started
    return done


def _write(collection: Collection | None, batch: Batch, there: set[Id], done: LoadResult) -> None:
    """Write a batch and count it, both or neither; without a collection only count."""
    updates = sum(id in there for id in batch.ids)
    with uninterrupted():
        if collection is not None:
            collection.upsert(batch.ids, batch.vectors, batch.metadata, batch.documents)
        done.updated += updates
        done.written += len(batch.ids) - updates


def _wanted(collection: Collection, batch: Batch) -> tuple[Batch, set[Id]]:
    """Return the rows that the collection lacks or holds differently, and the ids that it has."""
    there = {record.id: record for record in collection.get(batch.ids)}
    keep, kept = [], as_kept(collection, batch).vectors
    for place, id in enumerate(batch.ids):
        record = there.get(id)
        if record is None or difference(record, kept[place], *batch.fields(place)):
            keep.append(place)
    return batch.take(keep), set(there)


def refuse(done: LoadResult, source: ImportSource, faults: list[Fault], on_error: OnError) -> None:
    """Count rows that cannot be stored. Raises RowError if they stop the run."""
    done.skipped += len(faults)
    done.faults += faults[: _LISTED - len(done.faults)]
    if faults and on_error == "stop":
        listed = "; ".join(f"id {f.id!r}: {f.reason}" for f in faults[:_TOLD])
        more = f"; and {len(faults) - _TOLD:,} more" if len(faults) > _TOLD else ""
        what = "a row cannot be stored" if len(faults) == 1 else f"{len(faults):,} rows cannot be stored"
        raise RowError(f"{source.name}: {what}, and nothing of their batch was: {listed}{more}")
