"""The protocol of a vector index over ciphertext, and its optional capabilities.

An index ranks rows of a record store by the inner product of index vectors. It is no more than a cache: it can be made
again from the records at any time, and its order is a hint that the caller checks on opened vectors.
*Probes* are queries encrypted for several partitions: the products of all their vectors compare with each other.

What an index can do beyond `VectorIndex` it says by having the methods of a capability: `BringsEnvelopes`,
`KeepsEnvelopes`, `KeepsFiles`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..data.arrays import Bytes, Matrix, Rows
from ..data.filters import Predicate
from ..storage.protocol import Records, RecordStore

__all__ = [
    "BringsEnvelopes",
    "CacheAuthenticator",
    "Connection",
    "KeepsEnvelopes",
    "KeepsFiles",
    "Nearest",
    "Probes",
    "VectorIndex",
    "first",
    "share",
]

Probes = Mapping[int, Matrix]
"""The same q queries, encrypted for each of some partitions: (q, index_dim)."""
_LUCK = 3
"""Standard deviations of luck that a part gets more than its share of candidates."""


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


class VectorIndex(Protocol):
    """The index of one collection. All methods may be called from several threads."""

    def candidates(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> list[Rows]:
        """Return for each of q queries up to `limit` rows of the partitions together, nearest first.

        Every write that was committed before the call is seen. Approximate: an index may miss rows, but returns
        min(limit, matching rows) of them. Never a stale row. Raises StaleConfigError where index vectors have another
        dimension by now.
        """
        ...

    def explain(self, partition: int, query: Matrix, limit: int, predicate: Predicate | None = None) -> str:
        """Say in a line or more how `candidates` would answer (index_dim,) of one partition."""
        ...

    def check(self) -> list[str]:
        """Return descriptions of damage; empty when sound."""
        ...

    def stats(self) -> dict[str, Any]:
        """Describe the index: at least `index` (its kind) and `bytes`, a mapping of parts to sizes."""
        ...

    def flush(self) -> None:
        """Build what is missing and save it, so that the next opening is quick."""
        ...

    def forget(self) -> None:
        """Drop every cached copy: it was found damaged. It is made again from the records."""
        ...

    def close(self) -> None:
        """Save what was built, and release everything. Idempotent."""
        ...

    def remove(self) -> None:
        """Release everything and delete it: the collection was dropped."""
        ...


@runtime_checkable
class BringsEnvelopes(Protocol):
    """Answers a search in one go: in PostgreSQL, one statement."""

    def nearest(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> Nearest:
        """Return `candidates`, in any order, with their vector envelopes."""
        ...


@runtime_checkable
class KeepsEnvelopes(Protocol):
    """Has copies of vector envelopes that are read faster than the records."""

    def vectors(self, rows: Rows) -> tuple[Rows, Bytes]:
        """Return what `Records.vectors` returns, from copies as far as there are any."""
        ...


class CacheAuthenticator(Protocol):
    """Lets an index prove that a file it cached is its own, without seeing a key."""

    def tag(self, message: bytes) -> bytes:
        """Return a tag of the message."""
        ...

    def check(self, message: bytes, tag: bytes) -> bool:
        """Say whether the tag is one of ours."""
        ...

    def outlived(self, tag: bytes) -> bool:
        """Say whether the tag claims a key that was ours and opens nothing any more."""
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """Keeps files that must be authenticated before they are read."""

    def authenticate(self, authenticator: CacheAuthenticator) -> None:
        """Take the means to check cached index files. Called once after opening, before any search."""
        ...


@dataclass(frozen=True)
class Connection:
    """What a store URL opens: where records lie, and how an index is made over those of one collection."""

    store: RecordStore
    index: Callable[[Records], VectorIndex]
    device: str = "cpu"
    """`cpu`, `cuda` or `auto`: where records are encrypted."""


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
