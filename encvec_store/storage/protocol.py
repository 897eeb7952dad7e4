"""The protocol of a record store: ciphertext in, ciphertext out.

A record store is the truth. It keeps sealed records, what may be filtered, settings and sealed blobs, and changes them
in transactions. It knows no key, and it ranks nothing: that is the work of a vector index (`indexes.protocol`).

A *row* is the store's own number (int64, > 0) of one write of one record. A number is never used again and the exact
vector behind it never changes: an update removes the old row and adds a new one, so a stale row is absent, never
another record. Only `replace` may give a row new bytes: the same vector, sealed or encrypted anew.
A *partition* is an opaque number, up to 2^44; index vectors are comparable only within a partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..data.arrays import Bytes, Kept, Matrix, Rows
from ..data.fields import Term
from ..data.filters import Predicate

__all__ = ["Blob", "Changes", "CollectionSpec", "EncryptedBatch", "RecordStore", "Records", "union"]


@dataclass(frozen=True)
class CollectionSpec:
    """What a record store must know to lay a collection out."""

    tenant: str
    name: str
    index_dim: int
    """Coordinates of an index vector; 0 where there is none. `replace` may change it."""
    envelope_size: int
    """Bytes of a vector envelope."""
    half: bool = False
    """Whether index vectors are kept as float16. A store that lays them out alike may not know when it opens."""


@dataclass(frozen=True)
class Blob:
    """Sealed bytes beside the records: a scheme's profile, later the segments of an index."""

    key_version: int
    """Under which they are sealed. In clear, so that a rotation finds what is left to seal anew."""
    content: bytes = field(repr=False)


@dataclass
class EncryptedBatch:
    """n encrypted records, to be written all or nothing."""

    partitions: Rows
    """(n,) int64: of each record."""
    tokens: Bytes
    """(n, 16) uint8; distinct."""
    index_vectors: Kept
    """(n, index_dim) float32, or float16 in half precision; kept as they are."""
    vectors: Bytes
    """(n, envelope_size) uint8: sealed exact vectors."""
    payloads: list[bytes]
    """n sealed payloads, of any lengths."""
    terms: list[tuple[int, str, Term]] = field(default_factory=list)
    """(position in the batch, field, term) of every value that the store may filter by."""
    retired: list[bytes] = field(default_factory=list)
    """Other tokens to remove in the same transaction: older names of these records."""
    rows: Rows | None = None
    """For `replace` only: (n,) the rows that these records have already, and keep."""


@dataclass(frozen=True)
class Changes:
    """What happened to a collection since a generation."""

    generation: int
    """Of the last write that is in here."""
    content: int
    """Counts `replace`: index vectors read under another number are void."""
    stamp: int
    """Random with each write. Where an older copy of the store was put back, a generation may come twice, but never
    with the same stamp."""
    added: dict[int, Rows]
    """Rows by partition, ascending; everything there is, if `whole`."""
    removed: Rows
    """Rows that went, ascending; nothing, if `whole`."""
    whole: bool
    """Whether the answer lists everything: the changes themselves are not known (any more)."""
    next_row: int = 1 << 62
    """Rows from here on were never given out, as far as the store knows."""
    index_dim: int | None = None
    """Coordinates of an index vector; None where the collection is gone."""


class Records(Protocol):
    """The records of one collection of one tenant. All methods may be called from several threads.

    Every method may raise StoreUnreachableError; writers also StoreLockedError, with nothing written.
    """

    spec: CollectionSpec

    def config(self) -> bytes:
        """Return the sealed settings. Raises CollectionNotFoundError once the collection was dropped."""
        ...

    def blob(self, name: str, part: int = 0) -> bytes | None:
        """Return the content of a sealed blob; None where there is nothing."""
        ...

    def put(
        self,
        batch: EncryptedBatch,
        *,
        under: bytes,
        config: bytes | None = None,
        blobs: Mapping[str, Blob | None] | None = None,
        more: Iterable[EncryptedBatch] = (),
    ) -> None:
        """Insert or replace records by token, and the settings where given, in one durable transaction.

        Args:
            batch: the records.
            under: the sealed settings that the batch was made under. If the stored ones differ by now,
                StaleConfigError is raised and nothing is written.
            config: new settings.
            blobs: by name, what is stored from now on as part 0 of that blob; None removes all its parts. Other blobs
                stay as they are.
            more: further parts of the same write, made while those before are being written. If it raises,
                nothing is written.
        """
        ...

    def remove(self, rows: Rows) -> int:
        """Delete rows in one durable transaction; absent ones are no error. Returns how many there were."""
        ...

    def replace(
        self,
        batches: Iterable[EncryptedBatch],
        config: bytes,
        *,
        under: bytes,
        index_dim: int | None = None,
        blobs: Mapping[str, Blob | None] | None = None,
    ) -> None:
        """Replace all content and the settings in one durable transaction; `under` and `blobs` as in `put`.

        Batches come with their `rows`, which they keep; rows that are in no batch are gone. The write lock is taken
        before the first batch is asked for, and the old content can be read while batches are made. If the iterable
        raises, nothing has changed. Where `index_dim` is given, index vectors have so many coordinates from then on,
        in every process.
        """
        ...

    def find(self, tokens: Bytes) -> Rows:
        """Return the rows of (n, 16) tokens, (n,) int64, with 0 where there is none."""
        ...

    def rows(self, predicate: Predicate | None = None, *, after: int = 0, limit: int | None = None) -> Rows:
        """Return rows above `after`, ascending."""
        ...

    def count(self) -> int:
        """Count all rows."""
        ...

    def newest(self) -> int:
        """Return the largest row there is: that of the last record written; 0 where there is none."""
        ...

    def partitions(self) -> dict[int, int]:
        """Count rows by partition."""
        ...

    def vectors(self, rows: Rows) -> tuple[Rows, Bytes]:
        """Return vector envelopes of rows: (found rows in the order asked, (m, envelope_size) uint8)."""
        ...

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        """Return payload envelopes of rows: (found rows in the order asked, envelopes)."""
        ...

    def payload_sizes(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return bytes of payload envelopes of rows, without reading them: (found rows in the order asked, sizes)."""
        ...

    def index_vectors(self, rows: Rows) -> tuple[Rows, Matrix]:
        """Return index vectors of rows: (found rows in the order asked, (m, index_dim) float32)."""
        ...

    def audit(self, rows: Rows) -> list[tuple[int, int, bytes, set[tuple[str, Term]]]]:
        """Return (row, partition, token, {(field, term)}) of the rows found: the columns a store can read itself."""
        ...

    def generation(self) -> int:
        """Return a number that grows with every committed write by any process.

        Raises CollectionNotFoundError once the collection was dropped.
        """
        ...

    def changes(self, since: int, content: int, *, stamp: int | None = None) -> Changes | None:
        """Return what was written after a generation; None where nothing was.

        Args:
            since: the generation that the caller knows; -1, nothing yet.
            content: the number of the content that the caller knows. If another is stored, everything is listed.
            stamp: the stamp of the generation `since`, where the caller kept it on disk: if the store has another
                history, everything is listed. None, the caller has followed this store all the time.
        """
        ...

    def following(self, since: int, content: int, predicate: Predicate) -> tuple[Changes | None, Rows]:
        """Return `changes(since, content)` and `rows(predicate)`, both as of the same moment."""
        ...

    def check(self) -> list[str]:
        """Return descriptions of damage that can be seen without keys; empty when sound."""
        ...

    def stats(self) -> dict[str, Any]:
        """Describe what is stored: at least `bytes`, a mapping of parts to sizes."""
        ...

    def flush(self) -> None:
        """Tidy up: fold logs, forget changes that nobody will ask for."""
        ...


class RecordStore(Protocol):
    """A place that holds the records of collections."""

    url: str
    """Without secrets."""

    def collections(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """List (tenant, name), sorted; of one tenant if it is given."""
        ...

    def open(self, tenant: str, name: str) -> Records | None:
        """Open a collection, or return None where there is none. A new object every time is fine."""
        ...

    def create(self, spec: CollectionSpec, config: bytes) -> Records:
        """Create a collection, or open the one that another process created meanwhile."""
        ...

    def drop(self, tenant: str, name: str) -> bool:
        """Delete a collection and everything in it; False where there is none."""
        ...

    def close(self) -> None:
        """Release everything. Idempotent."""
        ...


def union(lists: Sequence[Rows]) -> Rows:
    """Return every row of the lists once."""
    return lists[0] if len(lists) == 1 else np.unique(np.concatenate([np.empty(0, np.int64), *lists]))
