"""The protocol of a backend: ciphertext in, ciphertext out; imports filters, fields.

A *row* is the backend's own number (int64, > 0) for one write of one record. Rows are never used again:
an update removes the old row and adds a new one, so a stale row is absent, never another record.
A *space* is an opaque number, up to 2^44; index vectors are comparable only within a space. Of queries encrypted for
several spaces, the products with the vectors of each are comparable with each other: *probes* are such queries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..fields import Term
from ..filters import Predicate

__all__ = [
    "Backend",
    "BackendCollection",
    "CacheAuthenticator",
    "CollectionSpec",
    "EncryptedBatch",
    "Nearest",
    "Probes",
    "Rows",
    "first",
    "share",
]

Rows = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float32]
Kept = npt.NDArray[np.float16] | npt.NDArray[np.float32]
Probes = Mapping[int, Matrix]
"""The same q queries, encrypted for each of some spaces: (q, index_dim)."""
_LUCK = 3
"""Standard deviations of luck that a part gets more than its share of candidates."""


@dataclass(frozen=True)
class CollectionSpec:
    """What a backend must know to lay a collection out."""

    tenant: str
    name: str
    index_dim: int
    """Coordinates of an index vector; 0 where there is none. Vectors are compared by inner product. `replace` may
    change it."""
    envelope_size: int
    """Bytes of a vector envelope."""
    half: bool = False
    """Whether index vectors are kept as float16. A backend that lays them out alike may not know when it opens."""


@dataclass
class EncryptedBatch:
    """n encrypted records, to be written all or nothing."""

    spaces: Rows
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
    """(position in the batch, field, term) of every value that may be filtered by the backend."""
    retired: list[bytes] = field(default_factory=list)
    """Other tokens to remove in the same transaction: older names of these records."""


@dataclass
class Nearest:
    """Candidates of some queries, and what came along."""

    lists: list[Rows]
    """Rows of each query."""
    rows: Rows
    """(m,) rows of all of them that were found, once each."""
    vectors: Bytes
    """(m, envelope_size) uint8: their vector envelopes."""
    payloads: dict[int, bytes] = field(default_factory=dict)
    """Payload envelopes by row, of as many as cost next to nothing."""


class CacheAuthenticator(Protocol):
    """Lets a backend prove that a file it cached is its own, without seeing a key."""

    def tag(self, message: bytes) -> bytes:
        """Return a tag of the message."""
        ...

    def check(self, message: bytes, tag: bytes) -> bool:
        """Say whether the tag is one of ours."""
        ...

    def outlived(self, tag: bytes) -> bool:
        """Say whether the tag claims a key that was ours and opens nothing any more."""
        ...


class BackendCollection(Protocol):
    """One collection of one tenant. All methods may be called from several threads.

    Every method may raise StoreUnreachableError; writers also StoreLockedError, with nothing written.
    """

    spec: CollectionSpec

    def config(self) -> bytes:
        """Return the sealed settings."""
        ...

    def artefact(self, name: str) -> bytes | None:
        """Return what a scheme keeps sealed beside the settings under a name; None where there is nothing."""
        ...

    def put(
        self,
        batch: EncryptedBatch,
        *,
        under: bytes,
        config: bytes | None = None,
        artefacts: Mapping[str, bytes] | None = None,
        more: Iterable[EncryptedBatch] = (),
    ) -> None:
        """Insert or replace records by token, and the settings where given, in one durable transaction.

        Args:
            batch: the records.
            under: the sealed settings that the batch was made under. If the stored ones differ by now,
                StaleConfigError is raised and nothing is written.
            config: new settings.
            artefacts: what there shall be from now on, under these names; None leaves it as it is.
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
        artefacts: Mapping[str, bytes] | None = None,
    ) -> None:
        """Replace all content and the settings in one durable transaction; `under` and `artefacts` as in `put`.

        The write lock is taken before the first batch is asked for, and the old content can be read while
        batches are made. If the iterable raises, nothing has changed. Where `index_dim` is given, index vectors have
        so many coordinates from then on, in every process.
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

    def spaces(self) -> dict[int, int]:
        """Count rows by space."""
        ...

    def candidates(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> list[Rows]:
        """Return for each of q queries up to `limit` rows of the spaces together, nearest first.

        Approximate: an index may miss rows, but returns min(limit, matching rows) of them. Never a stale row.
        Raises StaleConfigError where index vectors have another dimension by now.
        """
        ...

    def nearest(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> Nearest:
        """Return `candidates`, in any order, with their vector envelopes: what a search reads, in one go."""
        ...

    def vectors(self, rows: Rows, *, source: bool = False) -> tuple[Rows, Bytes]:
        """Return vector envelopes of rows: (found rows in the order asked, (m, envelope_size) uint8).

        Args:
            rows: (n,) int64.
            source: read the records themselves, not a cache of them.
        """
        ...

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        """Return payload envelopes of rows: (found rows in the order asked, envelopes)."""
        ...

    def index_vectors(self, rows: Rows) -> tuple[Rows, Matrix]:
        """Return index vectors of rows: (found rows in the order asked, (m, index_dim) float32)."""
        ...

    def audit(self, rows: Rows) -> list[tuple[int, int, bytes, set[tuple[str, Term]]]]:
        """Return (row, space, token, {(field, term)}) of the rows found: the columns a backend can read itself."""
        ...

    def generation(self) -> int:
        """Return a number that grows with every committed write by any process."""
        ...

    def authenticate_cache(self, authenticator: CacheAuthenticator) -> None:
        """Take the means to check cached index files. Called once after opening, before any search."""
        ...

    def drop_cache(self) -> None:
        """Forget every cached copy: it was found damaged. It is rebuilt from the records."""
        ...

    def check(self) -> list[str]:
        """Return descriptions of damage that can be seen without keys; empty when sound."""
        ...

    def explain(self, space: int, query: Matrix, limit: int, predicate: Predicate | None = None) -> str:
        """Say in a line or more how `candidates` would answer (index_dim,) of one space."""
        ...

    def stats(self) -> dict[str, Any]:
        """Describe the index: at least `index`, `bytes` (by part)."""
        ...

    def flush(self) -> None:
        """Save the index to disk, so that the next opening is quick."""
        ...


class Backend(Protocol):
    """A place that holds collections."""

    url: str
    device: str
    """`cpu`, `cuda` or `auto`: where records are encrypted."""

    def collections(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """List (tenant, name), sorted; of one tenant if it is given."""
        ...

    def open(self, tenant: str, name: str) -> BackendCollection | None:
        """Open a collection, or return None where there is none."""
        ...

    def create(self, spec: CollectionSpec, config: bytes) -> BackendCollection:
        """Create a collection, or open the one that another process created meanwhile."""
        ...

    def drop(self, tenant: str, name: str) -> bool:
        """Delete a collection and everything in it; False where there is none."""
        ...

    def close(self) -> None:
        """Save indexes and release everything. Idempotent."""
        ...


def union(lists: Sequence[Rows]) -> Rows:
    """Return every row of the lists once."""
    return lists[0] if len(lists) == 1 else np.unique(np.concatenate([np.empty(0, np.int64), *lists]))


def share(limit: int, parts: int) -> int:
    """Return how many to ask of each of `parts` random parts, so that they hold the first `limit` of the whole.

    A part holds about as many as a Poisson variable says. What one has beyond that is far from the first.
    """
    mean = limit / parts
    return limit if parts == 1 else min(limit, 1 + math.ceil(mean + _LUCK * math.sqrt(mean)))


def first(limit: int, parts: Sequence[tuple[Rows, npt.NDArray[Any]]]) -> Rows:
    """Return the `limit` rows of largest product, the largest first, of parts of (rows, products), each in order."""
    if len(parts) == 1:
        return parts[0][0][:limit]
    rows, products = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    chosen: Rows = rows[np.argsort(-products, kind="stable")[:limit]]
    return chosen
