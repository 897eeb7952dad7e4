"""The records of one collection in memory."""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ..data.arrays import Bytes, Matrix, Rows
from ..data.fields import Term
from ..data.filters import Predicate
from ..errors import StaleConfigError, StoreLockedError, StoreReadOnlyError
from ..runtime.forks import Mutex
from .memory_content import Content, Row, by_partition, changed, chosen_of, matching, sizes
from .protocol import Blob, Changes, CollectionSpec, EncryptedBatch, check_resealed
from .ranges import KEPT

__all__ = ["MemoryRecords"]


class MemoryRecords:
    """Implements `Records`."""

    remains = ""

    def __init__(self, spec: CollectionSpec, config: bytes, lock_timeout: float = 5.0) -> None:
        self.spec = spec
        self._config = config
        self._blobs: dict[tuple[str, int], Blob] = {}
        self._held = Content()
        self._next = 1
        self._generation, self._content = 1, 1
        self._changes: deque[tuple[Rows, Rows]] = deque(maxlen=KEPT)
        """(added, removed) rows of the newest writes. The last entry belongs to `_generation`."""
        self._timeout = lock_timeout
        self._writer = Mutex()
        """A writer holds it during the whole write, while others read."""
        self._lock = Mutex()
        """Held for a moment during each lookup or change."""
        self._ended: Exception | None = None
        self._frozen = False

    def end(self, reason: Exception) -> None:
        """Raise this error on every later call."""
        with self._lock:
            self._ended = reason
            self._held = Content()

    def config(self) -> bytes:
        """Return the sealed settings."""
        with self._looking():
            return self._config

    def blob(self, name: str, part: int = 0) -> bytes | None:
        """Return the content of a sealed blob, or None."""
        return self.blob_parts(name, [part]).get(part)

    def blob_parts(self, name: str, parts: Sequence[int]) -> dict[int, bytes]:
        """Return the content of those of these parts of a sealed blob that are there."""
        with self._looking():
            return {part: self._blobs[name, part].content for part in parts if (name, part) in self._blobs}

    def blobs(self, prefix: str) -> dict[str, tuple[int, int]]:
        """Return {name: (parts, bytes)} of the blobs whose names begin with a prefix."""
        with self._looking():
            return sizes(self._blobs, prefix)

    def keep(
        self,
        blobs: Iterable[tuple[str, int, Blob]] = (),
        *,
        drop: Iterable[str] = (),
        expect: Mapping[str, bytes | None] | None = None,
    ) -> bool:
        """Store blobs, if those expected are there."""
        with self._writing():
            if any(self.blob(name) != content for name, content in (expect or {}).items()):
                return False
            made, gone = {(name, part): blob for name, part, blob in blobs}, set(drop)
            with self._looking():
                left = {place: blob for place, blob in self._blobs.items() if place[0] not in gone}
                self._blobs = left | made
        return True

    def put(
        self,
        batch: EncryptedBatch,
        *,
        under: bytes,
        config: bytes | None = None,
        blobs: Mapping[str, Blob | None] | None = None,
        more: Iterable[EncryptedBatch] = (),
        over: Rows | None = None,
    ) -> bool:
        """Insert or replace by token, and drop the retired tokens."""
        with self._writing(under):
            if over is not None and not self._held.rows.keys() >= set(over.tolist()):
                return False
            parts = [batch, *more]
            if any(part.rows is not None for part in parts):
                raise ValueError("a batch to put must have no rows: new ones are given out, only replace keeps them")
            with self._looking():
                came, went = set[int](), set[int]()
                for part in parts:
                    numbers = range(self._next, self._next + len(part.payloads))
                    self._next = numbers.stop
                    added, removed = self._held.insert(part, numbers)
                    came.update(added)
                    went.update(removed)
                self._keep(config, blobs)
                self._note(came - went, went - came)
        return True

    def remove(self, rows: Rows) -> int:
        """Delete rows; returns how many there were."""
        with self._writing(), self._looking():
            gone = {row for row in map(int, rows) if row in self._held.rows}
            for row in gone:
                del self._held.tokens[self._held.rows.pop(row).token]
            if gone:
                self._note(set(), gone)
            return len(gone)

    def replace(
        self,
        batches: Iterable[EncryptedBatch],
        config: bytes,
        *,
        under: bytes,
        index_dim: int | None = None,
        ranked: bool | None = None,
        blobs: Mapping[str, Blob | None] | None = None,
        drop: Sequence[str] = (),
    ) -> None:
        """Replace everything. Others read the old content until the end."""
        with self._writing(under):
            fresh = Content()
            for batch in batches:
                numbers = batch.rows
                if numbers is None:
                    raise ValueError("a batch of replace must have rows: those that its records keep")
                if len(numbers) and not (numbers.min() >= 1 and numbers.max() < self._next):
                    raise ValueError(
                        "rows of a batch must be the rows that its records have already, one for each record"
                    )
                fresh.insert(batch, map(int, numbers))
            with self._looking():
                if index_dim is not None:
                    self.spec = replace(self.spec, index_dim=index_dim)
                if ranked is not None:
                    self.spec = replace(self.spec, ranked=ranked)
                self._held = fresh
                dropped = tuple(drop)
                self._blobs = {place: blob for place, blob in self._blobs.items() if not place[0].startswith(dropped)}
                self._keep(config, blobs)
                self._generation += 1
                self._content += 1
                self._changes.clear()

    def reseal(
        self,
        batch: EncryptedBatch,
        old: Collection[int],
        *,
        under: bytes,
        config: bytes | None = None,
        blobs: Mapping[str, Blob | None] | None = None,
        renumber: bool = False,
        relist: bool = False,
    ) -> int:
        """Put records that were sealed anew in the place of what they were."""
        asked = check_resealed(batch)
        with self._writing(under), self._looking():
            rows, partitions = self._held.rows, set(old)
            there = [n for n, row in enumerate(asked) if row in rows and rows[row].partition in partitions]
            if not there and not relist:
                return 0
            for n in there:
                del self._held.tokens[rows.pop(asked[n]).token]
            numbers = [asked[n] for n in there]
            gone = set(numbers) if renumber else set[int]()
            if renumber:
                numbers = list(range(self._next, self._next + len(there)))
                self._next += len(there)
            self._held.insert(batch.only(np.array(there, np.intp)), numbers)
            self._keep(config, blobs)
            self._note(set(numbers) if renumber else set(), gone)
            if relist:
                self._changes.clear()
            return len(there)

    def rows_of(self, partitions: Collection[int], *, after: int = 0, limit: int | None = None) -> Rows:
        """Return rows above `after` in some partitions, ascending."""
        with self._looking():
            found = sorted(n for n, row in self._held.rows.items() if n > after and row.partition in partitions)
        return np.array(found[:limit], np.int64)

    def find(self, tokens: Bytes) -> Rows:
        """Return rows of (n, 16) tokens, 0 where there is none."""
        with self._looking():
            return np.fromiter((self._held.tokens.get(token.tobytes(), 0) for token in tokens), np.int64, len(tokens))

    def rows(self, predicate: Predicate | None = None, *, after: int = 0, limit: int | None = None) -> Rows:
        """Return rows above `after`, ascending."""
        with self._looking():
            return matching(self._held, predicate, after)[:limit]

    def count(self) -> int:
        """Count all rows."""
        with self._looking():
            return len(self._held.rows)

    def newest(self) -> int:
        with self._looking():
            return max(self._held.rows, default=0)

    def partitions(self) -> dict[int, int]:
        """Count rows by partition."""
        with self._looking():
            return dict(sorted(Counter(row.partition for row in self._held.rows.values()).items()))

    def vectors(self, rows: Rows) -> tuple[Rows, Bytes]:
        """Return (found rows in the order asked, (m, envelope_size) uint8)."""
        found, chosen = self._chosen(rows)
        return found, np.array([row.vector for row in chosen], np.uint8).reshape(-1, self.spec.envelope_size)

    def current(self, rows: Rows, most: int = 0) -> tuple[int, Rows, Bytes, dict[int, bytes]]:
        """Return (a generation, *vectors(rows), {row: payload of at most `most` bytes})."""
        generation = self.generation()
        found, chosen = self._chosen(rows)
        vectors = np.array([row.vector for row in chosen], np.uint8).reshape(-1, self.spec.envelope_size)
        held = zip(found.tolist(), chosen if most else (), strict=bool(most))
        return generation, found, vectors, {row: one.payload for row, one in held if len(one.payload) <= most}

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        """Return (found rows in the order asked, sealed payloads)."""
        found, chosen = self._chosen(rows)
        return found, [row.payload for row in chosen]

    def payload_sizes(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return (found rows in the order asked, bytes of their payloads)."""
        found, chosen = self._chosen(rows)
        return found, np.array([len(row.payload) for row in chosen], np.int64)

    def index_vectors(self, rows: Rows) -> tuple[Rows, Matrix]:
        """Return (found rows in the order asked, (m, index_dim) float32)."""
        with self._looking():
            (found, chosen), dim = chosen_of(self._held, rows), self.spec.index_dim
        return found, np.array([row.index_vector for row in chosen], np.float32).reshape(len(chosen), dim)

    def audit(self, rows: Rows) -> list[tuple[int, int, bytes, set[tuple[str, Term]]]]:
        """Return (row, partition, token, {(field, term)}) of the rows found, in the order asked."""
        found, chosen = self._chosen(rows)
        return [
            (int(n), row.partition, row.token, {(name, term) for name, terms in row.terms.items() for term in terms})
            for n, row in zip(found, chosen, strict=True)
        ]

    def generation(self) -> int:
        """Return the number of writes."""
        with self._looking():
            return self._generation

    def changes(self, since: int, content: int, *, stamp: int | None = None) -> Changes | None:
        """Return what was written after a generation, or None if nothing was. `stamp` is not needed here."""
        with self._looking():
            return self._changed(since, content)

    def following(self, since: int, content: int, predicate: Predicate) -> tuple[Changes | None, Rows]:
        """Return the changes, and the rows that satisfy a predicate, both as of the same moment."""
        with self._looking():
            return self._changed(since, content), matching(self._held, predicate)

    def _changed(self, since: int, content: int) -> Changes | None:
        behind = self._generation - since
        if behind == 0 and content == self._content:
            return None
        whole = content != self._content or since < 0 or not 0 < behind <= len(self._changes)
        came, went = set[int](), set[int]()
        for added, removed in [] if whole else list(self._changes)[-behind:]:
            went.update(row for row in removed.tolist() if row not in came)
            came.update(added.tolist())
        added_now = by_partition(self._held, self._held.rows if whole else came & self._held.rows.keys())
        gone = np.array(sorted(went), np.int64)
        index_dim = self.spec.index_dim
        return Changes(self._generation, self._content, 0, added_now, gone, whole, self._next, index_dim)

    @contextmanager
    def frozen(self) -> Iterator[MemoryRecords]:
        with self._looking():  # rows never change, so that only dictionaries are copied
            made, held = copy.copy(self), Content(self._held.rows.copy(), self._held.tokens.copy())
            vars(made).update(_held=held, _changes=self._changes.copy(), _frozen=True)
        yield made

    def check(self) -> list[str]:
        """Return an empty list: nothing here can be damaged."""
        return []

    def stats(self) -> dict[str, Any]:
        """Return the size of the records in bytes."""
        with self._looking():
            sizes = (row.index_vector.nbytes + row.vector.nbytes + len(row.payload) for row in self._held.rows.values())
            return {"bytes": {"records": sum(sizes)}}

    def flush(self) -> None:
        """Do nothing: there is nothing to tidy up."""

    @contextmanager
    def _writing(self, under: bytes | None = None) -> Iterator[None]:
        if self._frozen:
            raise StoreReadOnlyError("records as of a moment in the past cannot be written")
        if not self._writer.acquire(timeout=self._timeout):
            raise StoreLockedError("another thread is writing to the collection; nothing was written, try again")
        try:
            with self._looking():
                if under not in (None, self._config):
                    raise StaleConfigError("the collection's settings were changed meanwhile")
            yield
        finally:
            self._writer.release()

    @contextmanager
    def _looking(self) -> Iterator[None]:
        with self._lock:
            if self._ended is not None:
                raise type(self._ended)(*self._ended.args)  # a new object, because each gets its own traceback
            yield

    def _keep(self, config: bytes | None, blobs: Mapping[str, Blob | None] | None) -> None:
        self._config = config or self._config
        self._blobs = changed(self._blobs, blobs or {})

    def _note(self, added: set[int], removed: set[int]) -> None:
        self._generation += 1
        self._changes.append((np.array(sorted(added), np.int64), np.array(sorted(removed), np.int64)))

    def _chosen(self, rows: Rows) -> tuple[Rows, list[Row]]:
        with self._looking():
            return chosen_of(self._held, rows)
