"""All sealed records of a collection in memory, fetched in the order of their rows."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from weakref import WeakSet

import numpy as np

from ...data.arrays import Rows
from ...sealed_index import Snapshot
from ...sealed_index.graph import Graph
from ...storage.portions import portions
from ...storage.protocol import EVERY
from ..session import Session

__all__ = ["Prefetched", "Sealed", "SeenRows"]

Sealed = tuple[bytes, bytes]
"""The envelopes of a record's vector and payload."""
_AT_ONCE = 4_096
_ROW = 400
"""Bytes that Python takes for a row."""
_SPARE = 1.25
"""Records that were removed leave when there are so many times more than can be read."""


class SeenRows:
    """Which rows of states of an index were looked at, without a look at all rows each time."""

    def __init__(self) -> None:
        self._graphs: WeakSet[Graph] = WeakSet()
        self._last: Callable[[], Snapshot | None] = _nothing

    def whole(self, state: Snapshot) -> bool:
        """Say whether this state was looked at."""
        return self._last() is state

    def rows(self, state: Snapshot) -> Rows:
        """Return the rows of a state that can be read, ascending, without those of graphs that were looked at."""
        graphs = [part.living_rows for part in state.parts if part.graph not in self._graphs]
        return np.sort(np.concatenate([state.tail.rows, *graphs]))

    def note(self, state: Snapshot) -> None:
        """Note that all of a state was looked at."""
        for part in state.parts:
            self._graphs.add(part.graph)
        self._last = weakref.ref(state)


class Prefetched:
    """Sealed records in memory, by row."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.forget()

    def forget(self) -> None:
        """Drop everything."""
        self._held: dict[int, Sealed] = {}
        self._of: object = None
        self._seen = SeenRows()
        self.bytes = 0

    def covers(self, state: Snapshot) -> bool:
        """Say whether everything in a state is here."""
        return self._seen.whole(state)

    def missing(self, state: Snapshot) -> Rows:
        """Return the rows of a state that are not here, ascending; all if the collection was rewritten or put back."""
        of = state.content, state.history, state.dead
        if of != self._of:
            self.forget()
            self._of = of
        rows, held = self._seen.rows(state), self._held
        return rows[np.fromiter((row not in held for row in rows.tolist()), np.bool_, len(rows))]

    def size_of(self, rows: Rows) -> int:
        """Return about how many bytes of memory these rows take."""
        records = self._session.records
        sizes = [int(records.payload_sizes(rows[at : at + _AT_ONCE])[1].sum()) for at in range(0, len(rows), _AT_ONCE)]
        return sum(sizes) + len(rows) * (records.spec.envelope_size + _ROW)

    def fetch(self, state: Snapshot, rows: Rows) -> None:
        """Fetch missing rows. Those that vanished meanwhile stay away, and those that left the state leave."""
        records, seen, held = self._session.records, self._seen, self._held
        if len(held) > _SPARE * state.living:
            kept = set(SeenRows().rows(state).tolist())
            held = {row: sealed for row, sealed in held.items() if row in kept}
        new: dict[int, Sealed] = {}
        for part in portions(records, rows, _AT_ONCE):
            _, found, envelopes, payloads = records.current(part, EVERY)
            for row, envelope in zip(found.tolist(), envelopes, strict=True):
                if row in payloads:
                    new[row] = envelope.tobytes(), payloads[row]
        if seen is not self._seen:  # everything was dropped meanwhile
            return
        held |= new
        if held is not self._held:
            self.bytes = sum(map(_cost, held.values()))
            self._held = held
        else:
            self.bytes += sum(map(_cost, new.values()))
        seen.note(state)

    def read(self, rows: Rows) -> dict[int, Sealed]:
        """Return those of the rows that are here."""
        held = self._held
        return {row: held[row] for row in rows.tolist() if row in held}


def _cost(sealed: Sealed) -> int:
    return _ROW + len(sealed[0]) + len(sealed[1])


def _nothing() -> None:
    return None
