"""The protocol of a vector index over ciphertext, and its optional capabilities.

An index ranks rows of a record store by the inner product of index vectors. It is only a cache: it can be built again
from the records at any time, and its order is a hint that the caller checks on opened vectors.
*Probes* are queries encrypted for several partitions. Their products can be compared across these partitions.

An index that can do more than `VectorIndex` has the methods of a capability: `BringsEnvelopes`, `KeepsEnvelopes`,
`KeepsFiles`.
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
    "width",
]

Probes = Mapping[int, Matrix]
"""The same q queries, encrypted for each of some partitions: (q, index_dim)."""
_LUCK = 3
"""Standard deviations by which a part may have more than its share of candidates."""


@dataclass
class Nearest:
    """Candidates of some queries, and their envelopes."""

    lists: list[Rows]
    """Rows of each query."""
    rows: Rows
    """(m,) the rows of all queries that were found, once each."""
    vectors: Bytes
    """(m, envelope_size) uint8: their vector envelopes."""
    payloads: dict[int, bytes] = field(default_factory=dict)
    """Payload envelopes by row, of those rows for which they cost next to nothing."""


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
        """Describe in one or more lines how `candidates` would answer an (index_dim,) query of one partition."""
        ...

    def check(self) -> list[str]:
        """Return descriptions of damage; empty if there is none."""
        ...

    def stats(self) -> dict[str, Any]:
        """Describe the index: at least `index` (its kind) and `bytes`, a mapping of parts to sizes."""
        ...

    def flush(self) -> None:
        """Build what is missing and save it, so that the next opening is fast."""
        ...

    def forget(self) -> None:
        """Drop every cached copy, because one was damaged. They are made again from the records."""
        ...

    def close(self) -> None:
        """Save what was built and release all resources. A second call does nothing."""
        ...

    def remove(self) -> None:
        """Release all resources and delete the index: the collection was dropped."""
        ...


@runtime_checkable
class BringsEnvelopes(Protocol):
    """Returns candidates and their envelopes in one step; in PostgreSQL, by one statement."""

    def nearest(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> Nearest:
        """Return `candidates`, in any order, with their vector envelopes."""
        ...


@runtime_checkable
class KeepsEnvelopes(Protocol):
    """Has copies of vector envelopes that are read faster than the records."""

    def vectors(self, rows: Rows) -> tuple[Rows, Bytes]:
        """Return what `Records.vectors` returns, from copies where there are any."""
        ...


class CacheAuthenticator(Protocol):
    """Proves that a cached file is the index's own, without showing it a key."""

    def tag(self, message: bytes) -> bytes:
        """Return a tag of the message."""
        ...

    def check(self, message: bytes, tag: bytes) -> bool:
        """Return True if the tag is one of ours."""
        ...

    def outlived(self, tag: bytes) -> bool:
        """Return True if the tag names a key that was ours and can open nothing any more."""
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """Keeps files that must be authenticated before they are read."""

    def authenticate(self, authenticator: CacheAuthenticator) -> None:
        """Set what checks cached index files. Called once after opening, before any search."""
        ...

    def saved(self) -> tuple[int, int, int] | None:
        """Return generation, content and stamp of the records that the files belong to; None without files."""
        ...


@dataclass(frozen=True)
class Connection:
    """What a store URL opens: a record store, and a function that makes an index over one collection."""

    store: RecordStore
    index: Callable[[Records], VectorIndex]
    device: str = "cpu"
    """`cpu`, `cuda` or `auto`: where records are encrypted."""
    kind: str = "auto"
    """The kind of index wanted for collections whose vectors are searched in this process: auto, flat, hnsw or ivf."""
    lasting: bool = True
    """False if the records go with the connection, so that nothing needs to be kept beside them."""
    ranked_options: tuple[str, ...] = ()
    """Options that were given and are for server-ranked schemes only, by name."""
    shared: bool = True
    """True if connections to the same URL see the same records, so that they may share what is in memory."""


def width(probes: Probes) -> int:
    """Return the coordinates of a probe."""
    return int(next(iter(probes.values())).shape[1])


def share(limit: int, parts: int) -> int:
    """Return how many to ask of each of `parts` random parts, so that together they hold the first `limit` of all.

    The number in one part is about a Poisson variable. More than this would rarely be among the first.
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
