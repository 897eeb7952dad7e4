"""Chooses how reads are hidden: everything in memory, or buckets in a local file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...data.arrays import Bytes, Rows
from ...errors import InputError
from ...runtime.concurrency import Lock
from ...sealed_index import BUDGET, SealedIndex, Snapshot
from ..session import Session
from .buckets import Buckets
from .prefetched import Prefetched, Sealed

__all__ = ["HiddenParts"]

_NO_GENERATION = -1


class HiddenParts:
    """Reads for searches under `threat="watching-server"`. Implements `Parts`.

    Args:
        session: the collection.
        folder: where the local cache lies; None if there is none.
    """

    hides = True

    def __init__(self, session: Session, folder: Path | None) -> None:
        self._session, self._folder, self._lock = session, folder, Lock()
        self._all = Prefetched(session)
        self._buckets: Buckets | None = None

    @property
    def buckets(self) -> bool:
        """True if records do not fit in memory, so that buckets are read."""
        return self._buckets is not None

    def forget(self, rows: Rows | None = None) -> None:
        """Drop what is in memory. Single rows stay: to read them again would show that a query needs them."""
        if rows is None:
            self._all.forget()

    def prepare(self, index: SealedIndex, state: Snapshot) -> None:
        """Fetch what a state has and is not here, in an order that no query changes.

        Raises InputError if the records do not fit in memory and there is no folder for a cache.
        """
        used: Prefetched | Buckets = self._buckets or self._all
        if used.covers(state):
            return
        # a caller with a time limit must not stop it: the next one would begin it again
        self._lock.during(self._prepare, index, state)
        BUDGET.make_room(index)

    def _prepare(self, index: SealedIndex, state: Snapshot) -> None:
        if self._buckets is None:
            missing = self._all.missing(state)
            size = self._all.size_of(missing)
            if index.bytes + size <= BUDGET.limit:
                self._all.fetch(state, missing)
                return
            if self._folder is None:
                raise InputError(
                    f"the sealed records take {size / 1e6:,.0f} MB more, and index_memory is {BUDGET.limit / 1e6:,.0f}"
                    " MB: give more index_memory, or cache=FOLDER, where buckets of sealed records are kept"
                )
            self._buckets = Buckets(self._session, self._folder)
            self._all.forget()
        self._buckets.prepare(state)

    def current(self, rows: Rows, most: int = 0) -> tuple[int, Rows, Bytes, dict[int, bytes]]:
        """See `Parts.current`. The caller has asked for the generation before."""
        found = self._read(rows)
        payloads = {row: payload for row, (_, payload) in found.items()}
        return _NO_GENERATION, _rows(found), self._envelopes(found), payloads

    def vectors(self, rows: Rows) -> tuple[Rows, Bytes]:
        """See `Parts.vectors`."""
        found = self._read(rows)
        return _rows(found), self._envelopes(found)

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        """See `Parts.payloads`."""
        found = self._read(rows)
        return _rows(found), [payload for _, payload in found.values()]

    def follow(self, state: Snapshot) -> None:
        """See `Parts.follow`; `prepare` does it."""

    def _read(self, rows: Rows) -> dict[int, Sealed]:
        buckets = self._buckets
        # a bucket is read to the end, and kept, although its caller has no more time
        return self._all.read(rows) if buckets is None else self._lock.during(buckets.read, rows)

    def _envelopes(self, found: dict[int, Sealed]) -> Bytes:
        joined = np.frombuffer(b"".join(vector for vector, _ in found.values()), np.uint8)
        return joined.reshape(len(found), self._session.records.spec.envelope_size)

    @property
    def bytes(self) -> int:
        """The memory held."""
        return self._all.bytes


def _rows(found: dict[int, Sealed]) -> Rows:
    return np.array(list(found), np.int64)
