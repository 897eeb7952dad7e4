"""Buckets of random rows, each read whole and only once; what was read is kept in a local file.

Rows that exist when the file is begun are put into the order of a keyed function of their numbers, and cut into buckets
of 16. Rows that come later are read when they come, all of them: which ones says nothing about a query. If they are
very many, they are cut into buckets too.
"""

from __future__ import annotations

import bisect
import logging
from operator import itemgetter
from pathlib import Path

import numpy as np

from ...crypto.envelope import KEY_VERSION
from ...data.arrays import Bytes, Rows
from ...errors import AuthenticationError, KeyUnavailableError, StaleConfigError, StoreUnreachableError
from ...runtime.concurrency import offload
from ...runtime.forks import renew_in_child
from ...sealed_index import Snapshot
from ...sealed_index.rowsets import is_among, places_of
from ...storage.protocol import EVERY
from ..parts import shuffled
from ..session import Session
from .cache import BucketFile, Follows
from .prefetched import Sealed, SeenRows

__all__ = ["LEAST", "Buckets"]

log = logging.getLogger("encvec_store")

LEAST = 16
"""Rows of a bucket, at least, if there are so many."""
_NEW = 4_096
"""So many rows that came later are read at once."""


class Buckets:
    """The buckets of one collection. Not thread-safe: `HiddenParts` guards it.

    Args:
        session: the collection.
        folder: where the file lies.
    """

    def __init__(self, session: Session, folder: Path) -> None:
        self._session = session
        self._cache = BucketFile(folder, session.config.incarnation.hex(), session.keyring)
        self._follows = Follows(-1, -1, -1)
        self._unwritten: dict[int, bytes] = {}
        """Buckets that were read while the disk had no room for them."""
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Open the file again at the next search. A fork may have found another thread in the middle of it."""
        self._seen, self._of = SeenRows(), (-1, -1)
        self._clear()

    def _clear(self) -> None:
        self._epochs: list[tuple[int, int, Rows]] = []
        """The number of the first bucket, how many there are, and their rows, in the order of buckets."""
        self._rows = np.empty(0, np.int64)
        self._numbers = np.empty(0, np.int64)
        """All rows in buckets, ascending, and the bucket of each."""

    def covers(self, state: Snapshot) -> bool:
        """Say whether every row of a state has a bucket."""
        return self._seen.whole(state)

    def prepare(self, state: Snapshot) -> None:
        """Put the rows of a state into buckets. If it fails, the next search does it again, whatever is asked."""
        try:
            self._prepare(state)
        except BaseException:
            self.renew()
            raise

    def _prepare(self, state: Snapshot) -> None:
        cache = self._cache
        follows = self._follows = Follows(state.content, state.generation, state.stamp)
        with cache.locked():
            if self._of != (of := (state.content, state.history)) or not cache.lives():
                self._seen = SeenRows()
                self._open(follows)
                self._of = of
            self._learn()
            rows = self._seen.rows(state)
            new = rows[~is_among(rows, self._rows)]
            if len(new):
                many = not len(self._rows) or len(new) > _NEW
                keyring = self._session.keyring
                order = offload(len(new), keyring.read_cache(keyring.primary).order, new)
                epoch = cache.add(new[order], max(1, len(new) // LEAST) if many else 1, ask=not many)
                self._take(*epoch)
                if not many:
                    self._fetch([epoch[0]])
            cache.note(follows)
        self._seen.note(state)

    def read(self, rows: Rows) -> dict[int, Sealed]:
        """Return the sealed parts of rows. Buckets that were never read are read, in random order."""
        try:
            return self._read(rows)
        except BaseException:
            self.renew()
            raise

    def _read(self, rows: Rows) -> dict[int, Sealed]:
        numbers = np.unique(self._numbers[places_of(self._rows, rows)]).tolist()
        held = self._held(numbers)
        if len(held) < len(numbers):
            with self._cache.locked():
                held |= self._held([number for number in numbers if number not in held])  # by other processes
                missing = [number for number in numbers if number not in held]
                self._fetch(shuffled(np.array(missing, np.int64)).tolist())
                held |= self._held(missing)
        found = {row: sealed for bucket in held.values() for row, sealed in bucket.items()}
        found = {row: found[row] for row in rows.tolist() if row in found}
        dead = self._session.keyring.dead
        if dead and any(int.from_bytes(vector[KEY_VERSION], "big") in dead for vector, _ in found.values()):
            with self._cache.locked():
                self._begin(self._follows)
            raise StaleConfigError("records were sealed anew under another key version after their buckets were read")
        return found

    def _open(self, follows: Follows) -> None:
        """Take what the file has. It begins a new life if it is of other content, or of another history."""
        cache, records = self._cache, self._session.records
        self._clear()
        life, known = cache.life, cache.open()
        if cache.life != life:
            self._unwritten = {}
        if known is None or known.content != follows.content:
            self._begin(follows)
            return
        try:
            self._learn()
        except (AuthenticationError, KeyUnavailableError):
            log.warning("the list of buckets of the local cache does not open: the cache is begun anew")
            self._begin(follows)
            return
        changes = records.changes(known.generation, known.content, stamp=known.stamp)
        if changes is not None and changes.whole and not self._is_same(changes.next_row):
            log.warning("the store has another history than the local cache: the cache is begun anew")
            self._begin(follows)
            return
        asked = cache.asked()  # whoever asked for them was stopped before they came: read now, whatever is searched for
        self._fetch([number for number in asked if number not in self._unwritten])

    def _begin(self, follows: Follows) -> None:
        self._clear()
        self._unwritten = {}
        self._cache.begin(follows)

    def _learn(self) -> None:
        """Take note of the buckets that other processes have made."""
        for first, count, rows in self._cache.epochs():
            self._take(first, count, rows)

    def _take(self, first: int, count: int, rows: Rows) -> None:
        numbers = first + np.minimum(np.arange(len(rows)) // LEAST, count - 1)
        every, of = np.concatenate([self._rows, rows]), np.concatenate([self._numbers, numbers])
        order = offload(len(every), np.argsort, every, kind="stable")
        self._rows, self._numbers = every[order], of[order]
        self._epochs.append((first, count, rows))

    def _rows_of(self, number: int) -> Rows:
        """Return the rows of a bucket, ascending."""
        first, count, rows = self._epochs[bisect.bisect_right(self._epochs, number, key=itemgetter(0)) - 1]
        start = (number - first) * LEAST
        return np.sort(rows[start:] if number == first + count - 1 else rows[start : start + LEAST])

    def _fetch(self, numbers: list[int]) -> None:
        """Read buckets whole from the store, and keep them."""
        if not numbers:
            return
        self._cache.ask(numbers)
        for number, content in list(self._unwritten.items()):  # `ask` has found room on the disk
            self._keep(number, content)
        for number in numbers:
            _, found, envelopes, payloads = self._session.records.current(self._rows_of(number), EVERY)
            self._keep(number, offload(len(found), _packed, found, envelopes, payloads))

    def _keep(self, number: int, content: bytes) -> None:
        try:
            self._cache.keep(number, content)
            self._unwritten.pop(number, None)
        except StoreUnreachableError as error:  # to read it again would show that it is needed again
            log.warning("a bucket that was read stays in memory: %s", error)
            self._unwritten[number] = content

    def _held(self, numbers: list[int]) -> dict[int, dict[int, Sealed]]:
        """Return the buckets that are in the file. One that does not open is as if it were not there."""
        return offload(LEAST * len(numbers), self._opened, numbers, self._cache.contents(numbers))

    def _opened(self, numbers: list[int], contents: dict[int, bytes]) -> dict[int, dict[int, Sealed]]:
        size = self._session.records.spec.envelope_size
        held = {number: _unpacked(self._unwritten[number], size) for number in numbers if number in self._unwritten}
        for number, sealed in contents.items():
            try:
                held[number] = _unpacked(self._cache.opened("bucket", number, sealed), size)
            except (AuthenticationError, KeyUnavailableError):
                log.warning("a bucket of the local cache is damaged: it is read again")
        return held

    def _is_same(self, next_row: int) -> bool:
        """Say whether what is in the file is what the store has, row by row. All of it is read, in order.

        A row that is gone is never given out again, but rows from `next_row` on will be.
        """
        if len(self._rows) and self._rows[-1] >= next_row:
            return False
        for number in self._cache.filled():
            for bucket in self._held([number]).values():
                rows, envelopes = self._session.records.vectors(np.array(sorted(bucket), np.int64))
                for row, envelope in zip(rows.tolist(), envelopes, strict=True):
                    if bucket[row][0] != envelope.tobytes():
                        return False
        return True


def _packed(rows: Rows, envelopes: Bytes, payloads: dict[int, bytes]) -> bytes:
    """Return row numbers, lengths of payloads, vector envelopes and payloads, one after the other."""
    kept = [place for place, row in enumerate(rows.tolist()) if row in payloads]
    parts = [payloads[int(row)] for row in rows[kept]]
    head = np.array([len(kept), *rows[kept].tolist(), *map(len, parts)], "<i8")
    return b"".join([head.tobytes(), envelopes[kept].tobytes(), *parts])


def _unpacked(content: bytes, size: int) -> dict[int, Sealed]:
    count = int(np.frombuffer(content, "<i8", 1)[0])
    rows = np.frombuffer(content, "<i8", count, 8).tolist()
    ends = np.cumsum(np.frombuffer(content, "<i8", count, 8 * (1 + count))).tolist()
    vectors = 8 * (1 + 2 * count)
    payloads = vectors + count * size
    found: dict[int, Sealed] = {}
    for place, row in enumerate(rows):
        start = ends[place - 1] if place else 0
        vector = content[vectors + place * size : vectors + (place + 1) * size]
        found[row] = vector, content[payloads + start : payloads + ends[place]]
    return found
