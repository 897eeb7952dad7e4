"""Where a search reads sealed parts: in the store, or in what it remembers of it."""

from __future__ import annotations

from collections import OrderedDict
from random import SystemRandom
from typing import Protocol

import numpy as np

from ..data.arrays import Bytes, Rows
from ..runtime.forks import Mutex
from ..sealed_index import BUDGET, Snapshot
from ..storage.protocol import Records

Sealed = bytes
"""An envelope."""

__all__ = ["Parts", "Recent", "shuffled"]

_SHARE, _MOST = 16, 64 << 20
"""Share of the memory for indexes that one collection's sealed parts take, and the most they take."""
_NOTED = 1 << 20
_MANY = 1_024
"""Rows of one read, from which on it is not looked at what is remembered."""
_CHANCE = SystemRandom()
_ROW = 400
"""Bytes that Python takes for what is remembered of a row."""


class Parts(Protocol):
    """Reads sealed parts of records, as `Records` does."""

    hides: bool
    """True if the store must not see which rows a search needs."""

    def current(self, rows: Rows, most: int = 0) -> tuple[int, Rows, Bytes, dict[int, bytes]]:
        """Return a generation that is current, vectors, and payloads of at most `most` bytes; see `Records.current`."""
        ...

    def vectors(self, rows: Rows) -> tuple[Rows, Bytes]:
        """Return vector envelopes; see `Records.vectors`."""
        ...

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        """Return payload envelopes; see `Records.payloads`."""
        ...

    def follow(self, state: Snapshot) -> None:
        """Prepare to read rows that a state of the index names."""
        ...

    def forget(self, rows: Rows) -> None:
        """Drop what is remembered of rows: it does not open."""
        ...


def shuffled(rows: Rows) -> Rows:
    """Return rows in random order, so that it does not tell which is the nearest."""
    if len(rows) > _MANY:
        return np.random.default_rng().permutation(rows)
    return np.array(_CHANCE.sample(rows.tolist(), len(rows)), np.int64)


class Recent:
    """Reads rows in random order, and remembers the sealed parts of those that were read last.

    They stay sealed, so that destroyed keys end them, and every use authenticates them. A row never changes, but for a
    rewrite of the whole collection, which drops all that is remembered. Whether a row still exists is for the caller to
    know: `current` gives the generation by which to judge that.
    """

    hides = False

    def __init__(self, records: Records) -> None:
        self._records, self._guard = records, Mutex()
        self._of: object = None
        self._held: OrderedDict[int, tuple[Sealed, Sealed | None]] = OrderedDict()
        self._size = self._noted = 0

    @property
    def bytes(self) -> int:
        """About the memory held."""
        return self._size

    def swollen(self) -> bool:
        """Say whether much was remembered or dropped since the last call, so that memory must be counted again."""
        size = self._size
        swollen = abs(size - self._noted) > _NOTED
        if swollen:
            self._noted = size
        return swollen

    @property
    def limit(self) -> int:
        """The bytes that it may take."""
        return min(_MOST, BUDGET.limit // _SHARE)

    def forget(self, rows: Rows | None = None) -> None:
        """Drop rows; by default all."""
        with self._guard:
            if rows is None:
                self._held.clear()
                self._size, self._of = 0, None
            else:
                for row in rows.tolist():
                    self._drop(row)

    def follow(self, state: Snapshot) -> None:
        """Drop everything if the collection was rewritten or put back, or other keys can be read."""
        of = state.content, state.history, state.dead
        if self._of != of:
            self.forget()
            self._of = of

    def current(self, rows: Rows, most: int = 0) -> tuple[int, Rows, Bytes, dict[int, Sealed]]:
        """See `Parts.current`. Only what is not remembered is read."""
        if len(rows) > _MANY:
            return self._records.current(shuffled(rows), most)
        of, known = self._of, self._known(rows)
        missing = np.array([row for row in rows.tolist() if row not in known], np.int64)
        if not len(missing):
            generation, found = self._records.generation(), np.empty(0, np.int64)
            envelopes, payloads = np.empty((0, self._records.spec.envelope_size), np.uint8), dict[int, Sealed]()
        else:
            generation, found, envelopes, payloads = self._records.current(shuffled(missing), most)
            self._keep(of, found, envelopes, payloads)
        if not known:
            return generation, found, envelopes, payloads
        payloads |= {row: payload for row, (_, payload) in known.items() if payload is not None}
        return generation, *_joined(known, found, envelopes), payloads

    def vectors(self, rows: Rows) -> tuple[Rows, Bytes]:
        """See `Parts.vectors`."""
        known = self._known(rows)
        missing = np.array([row for row in rows.tolist() if row not in known], np.int64)
        found, envelopes = self._records.vectors(shuffled(missing))
        return _joined(known, found, envelopes) if known else (found, envelopes)

    def payloads(self, rows: Rows) -> tuple[Rows, list[Sealed]]:
        """See `Parts.payloads`. Rows whose vectors are remembered get their payloads too."""
        of = self._of
        known = {row: payload for row, (_, payload) in self._known(rows).items() if payload is not None}
        missing = np.array([row for row in rows.tolist() if row not in known], np.int64)
        if not len(missing):
            return np.array(list(known), np.int64), list(known.values())
        found, fetched = self._records.payloads(shuffled(missing))
        with self._guard:
            for row, payload in zip(found.tolist(), fetched, strict=True):
                if of == self._of and row in self._held:
                    self._put(row, self._held[row][0], payload)
        return np.concatenate([np.array(list(known), np.int64), found]), [*known.values(), *fetched]

    def _known(self, rows: Rows) -> dict[int, tuple[Sealed, Sealed | None]]:
        held, known = self._held, {}
        with self._guard:
            for row in rows.tolist():
                if row in held:
                    held.move_to_end(row)
                    known[row] = held[row]
        return known

    def _keep(self, of: object, rows: Rows, envelopes: Bytes, payloads: dict[int, Sealed]) -> None:
        with self._guard:
            if of is None or of != self._of:  # the collection was rewritten meanwhile
                return
            for row, envelope in zip(rows.tolist(), envelopes, strict=True):
                self._put(row, envelope.tobytes(), payloads.get(row))

    def _put(self, row: int, envelope: Sealed, payload: Sealed | None) -> None:
        self._drop(row)
        self._held[row] = envelope, payload
        self._size += _cost(envelope, payload)
        while self._size > self.limit and self._held:
            self._drop(next(iter(self._held)))

    def _drop(self, row: int) -> None:
        entry = self._held.pop(row, None)
        if entry is not None:
            self._size -= _cost(*entry)


def _cost(envelope: Sealed, payload: Sealed | None) -> int:
    return _ROW + len(envelope) + len(payload or b"")


def _joined(known: dict[int, tuple[Sealed, Sealed | None]], found: Rows, envelopes: Bytes) -> tuple[Rows, Bytes]:
    held = np.frombuffer(b"".join(envelope for envelope, _ in known.values()), np.uint8)
    rows = np.concatenate([np.array(list(known), np.int64), found])
    return rows, np.concatenate([held.reshape(len(known), -1), envelopes])
