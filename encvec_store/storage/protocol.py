"""The protocol of a record store: ciphertext in, ciphertext out.

A record store is the truth. It keeps sealed records, what may be filtered, settings and sealed blobs, and changes them
in transactions. It knows no key and ranks nothing: a vector index does that (`indexes.protocol`).

A *row* is a number (int64, > 0) that the store gives to one write of one record. It is never used again, and its exact
vector never changes: an update removes the old row and adds a new one. So a stale row is missing, never another record.
Only `replace` and `reseal` may give a row new bytes: the same vector, sealed or encrypted anew.
A *partition* is an opaque number, up to 2^44. Only index vectors of one partition can be compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..data.arrays import Bytes, Matrix, Rows
from ..data.fields import Term
from ..data.filters import Predicate
from .batches import Blob, Changes, CollectionSpec, EncryptedBatch

__all__ = [
    "BUSY",
    "EVERY",
    "Blob",
    "Changes",
    "CollectionSpec",
    "EncryptedBatch",
    "Followed",
    "RanksOnServer",
    "RecordStore",
    "Records",
    "check_resealed",
    "union",
]

EVERY = 1 << 30
"""More bytes than a payload has, for `Records.current` of rows whose payloads fit into memory together."""
BUSY = "the collection is written to faster than it can be read; try again later"
"""The error of whoever found records replaced between two reads, however often it looked again."""


class Followed(Protocol):
    """What a sealed index reads and writes of records. All methods may be called from several threads.

    Every method may raise StoreUnreachableError; `keep` also StoreLockedError, with nothing written.
    """

    def blob(self, name: str, part: int = 0) -> bytes | None:
        """Return the content of a sealed blob; None if there is none."""
        ...

    def blob_parts(self, name: str, parts: Sequence[int]) -> dict[int, bytes]:
        """Return the content of some parts of a sealed blob, by part; missing ones are left out. By one statement."""
        ...

    def blobs(self, prefix: str) -> dict[str, tuple[int, int]]:
        """Return {name: (parts, bytes)} of the blobs whose names begin with a prefix."""
        ...

    def keep(
        self,
        blobs: Iterable[tuple[str, int, Blob]] = (),
        *,
        drop: Iterable[str] = (),
        expect: Mapping[str, bytes | None] | None = None,
    ) -> bool:
        """Store blobs beside the records in one durable transaction. Records, generation and stamp stay as they are.

        Others wait for the end of the transaction: in SQLite every writer of the file, in PostgreSQL `replace` and
        `drop`, and every writer if there is an `expect`. So store many large blobs by several calls.

        Args:
            blobs: (name, part, blob). Each is made while the transaction is open, after the one before it was sent. If
                making one raises, nothing is written.
            drop: names. All their parts are deleted, before `blobs` are written.
            expect: by name, the content that part 0 must have now; None if there must be no part 0. If one differs,
                nothing is written and False is returned. Of several callers with the same `expect`, one succeeds.

        Raises:
            CollectionNotFoundError: the collection was dropped.
        """
        ...

    def count(self) -> int:
        """Count all rows."""
        ...

    def payload_sizes(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return bytes of payload envelopes of rows, without reading them: (found rows in the order asked, sizes)."""
        ...

    def generation(self) -> int:
        """Return a number that grows with every committed write of any process.

        Raises CollectionNotFoundError once the collection was dropped.
        """
        ...

    def changes(self, since: int, content: int, *, stamp: int | None = None) -> Changes | None:
        """Return what was written after a generation; None if nothing was.

        Args:
            since: the generation that the caller knows; -1 if it knows none.
            content: the content number that the caller knows. If another is stored, all rows are listed.
            stamp: the stamp of the generation `since`, if the caller kept it on disk. If the store has another history,
                all rows are listed. None means that the caller has followed this store all the time.
        """
        ...

    def following(self, since: int, content: int, predicate: Predicate) -> tuple[Changes | None, Rows]:
        """Return `changes(since, content)` and `rows(predicate)`, both as of the same moment."""
        ...


class Records(Followed, Protocol):
    """The records of one collection of one tenant. All methods may be called from several threads.

    Every method may raise StoreUnreachableError; writers also StoreLockedError, with nothing written.
    """

    spec: CollectionSpec
    remains: str
    """Where content that was replaced may still lie, and what to run against that. Plain sentences for people; empty
    if nothing remains."""

    def config(self) -> bytes:
        """Return the sealed settings. Raises CollectionNotFoundError once the collection was dropped."""
        ...

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
        """Insert or replace records by token, and the settings if given, in one durable transaction.

        Returns False, with nothing written, if a row of `over` is not there; otherwise True.

        Args:
            batch: the records.
            under: the sealed settings that the batch was made under. If others are stored by now, StaleConfigError is
                raised and nothing is written.
            config: new settings.
            blobs: by name, the new part 0 of that blob; None removes all its parts. Other blobs stay.
            more: further batches of the same write. Each is made while the one before it is written. If it raises,
                nothing is written. What making it reads of the records is as it was before this write, or as it is now.
            over: (n,) distinct rows that must be there still: those that the batches were made from.
        """
        ...

    def remove(self, rows: Rows) -> int:
        """Delete rows in one durable transaction and return how many there were. Missing rows are no error."""
        ...

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
        """Replace all content and the settings in one durable transaction; `under` and `blobs` as in `put`.

        Batches have `rows`, which the records keep; rows in no batch are deleted. The write lock is taken before the
        first batch is asked for. The old content can be read while batches are made. If the iterable raises, nothing
        changes.

        Args:
            batches: the new content.
            config: the new settings.
            under: the settings that must be stored now.
            index_dim: coordinates of index vectors from then on, in every process; None keeps the number.
            ranked: as in `CollectionSpec`, from then on; None keeps it.
            blobs: new blobs by name.
            drop: all blobs whose names begin with one of these are removed, also those stored since the call began.
        """
        ...

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
        """Put records that were sealed anew in the place of what they were, in one durable transaction.

        A record whose row is gone, or lies in none of the partitions `old`, is left out: others were faster. If that is
        so of all of them, nothing is written. Returns how many were written.

        Args:
            batch: the records, with `rows` and no `retired`. They keep the rows, and followers learn nothing of it.
            old: the partitions in which the records may be.
            under: the settings that must be stored now, as in `put`.
            config: new settings.
            blobs: new blobs by name, as in `put`.
            renumber: give them new rows instead, as an update does.
            relist: write in any case, and have every follower list all rows, so that it learns their partitions.
        """
        ...

    def rows_of(self, partitions: Collection[int], *, after: int = 0, limit: int | None = None) -> Rows:
        """Return rows above `after` in some partitions, ascending."""
        ...

    def find(self, tokens: Bytes) -> Rows:
        """Return the rows of (n, 16) tokens, (n,) int64; 0 stands for a token without a row."""
        ...

    def rows(self, predicate: Predicate | None = None, *, after: int = 0, limit: int | None = None) -> Rows:
        """Return rows above `after`, ascending."""
        ...

    def newest(self) -> int:
        """Return the largest row, that of the last record written; 0 if there is none."""
        ...

    def partitions(self) -> dict[int, int]:
        """Count rows by partition."""
        ...

    def vectors(self, rows: Rows) -> tuple[Rows, Bytes]:
        """Return vector envelopes of rows: (found rows in the order asked, (m, envelope_size) uint8)."""
        ...

    def current(self, rows: Rows, most: int = 0) -> tuple[int, Rows, Bytes, dict[int, bytes]]:
        """Return (a generation, *vectors(rows), payloads). The generation was current when the call began, or later.

        PostgreSQL answers by one statement.

        Args:
            rows: (n,) rows of this collection, as a follower knows them.
            most: payload envelopes of at most so many bytes come too, by row.

        Raises CollectionNotFoundError once the collection was dropped.
        """
        ...

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        """Return payload envelopes of rows: (found rows in the order asked, envelopes)."""
        ...

    def index_vectors(self, rows: Rows) -> tuple[Rows, Matrix]:
        """Return index vectors of rows: (found rows in the order asked, (m, index_dim) float32)."""
        ...

    def audit(self, rows: Rows) -> list[tuple[int, int, bytes, set[tuple[str, Term]]]]:
        """Return (row, partition, token, {(field, term)}) of the rows found: all that a store can read without keys."""
        ...

    def frozen(self) -> AbstractContextManager[Records]:
        """Give the records as they are at this moment, to be read for as long as the block runs. Others may write.

        What is given is for one thread, and writes nothing: that raises StoreReadOnlyError. It takes a connection. What
        others replace meanwhile stays in the store until the end. In PostgreSQL, `replace` and `drop` wait for it, as
        they do for any reader, and give up after the lock timeout.
        """
        ...

    def check(self) -> list[str]:
        """Return descriptions of the damage that shows without keys; empty if there is none."""
        ...

    def stats(self) -> dict[str, Any]:
        """Describe what is stored: at least `bytes`, a mapping of parts to sizes."""
        ...

    def flush(self) -> None:
        """Tidy up: fold logs, and forget changes that nobody will ask for."""
        ...


@runtime_checkable
class RanksOnServer(Protocol):
    """Keeps index vectors in a type of the server, which the server may lack."""

    def require_ranking(self, index_dim: int) -> None:
        """Check that `replace` can keep index vectors of so many coordinates. Raises what it would raise."""
        ...


class RecordStore(Protocol):
    """A place that holds the records of collections."""

    url: str
    """Without secrets."""

    def collections(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """List (tenant, name), sorted; of one tenant if it is given."""
        ...

    def open(self, tenant: str, name: str) -> Records | None:
        """Open a collection; return None if there is none. It may be a new object every time."""
        ...

    def create(self, spec: CollectionSpec, config: bytes) -> Records:
        """Create a collection, or open it if another process has created it meanwhile."""
        ...

    def drop(self, tenant: str, name: str) -> bool:
        """Delete a collection and all its records; return False if there is none."""
        ...

    def close(self) -> None:
        """Release all resources. A second call does nothing."""
        ...


def union(lists: Sequence[Rows]) -> Rows:
    """Return each row of the lists once, ascending if there are several lists."""
    return lists[0] if len(lists) == 1 else np.unique(np.concatenate([np.empty(0, np.int64), *lists]))


def check_resealed(batch: EncryptedBatch) -> list[int]:
    """Return the rows of a batch for `Records.reseal`. Raises ValueError if it is none."""
    if batch.rows is None or batch.rows.shape != (len(batch.payloads),) or batch.retired:
        raise ValueError("a batch to reseal must have the rows of its records, one for each, and no retired tokens")
    rows: list[int] = batch.rows.tolist()
    return rows
