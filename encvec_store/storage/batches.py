"""What goes into a record store and comes out of it: batches of encrypted records, sealed blobs, and changes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..data.arrays import Bytes, Kept, Rows
from ..data.fields import Term

__all__ = ["Blob", "Changes", "CollectionSpec", "EncryptedBatch"]


@dataclass(frozen=True)
class CollectionSpec:
    """What a record store must know to create a collection."""

    tenant: str
    name: str
    index_dim: int
    """Coordinates of an index vector; 0 if there is none. `replace` may change it."""
    envelope_size: int
    """Bytes of a vector envelope."""
    half: bool = False
    """True if index vectors are kept as float16. A store that keeps both alike may not know it when it opens one."""
    ranked: bool = True
    """False if its records never get index vectors, as under `sealed`. Then a server needs no index for it."""
    clear: tuple[str, str] | None = field(default=None, repr=False)
    """Tenant and name, if those above are tokens that stand for them. A store never writes these."""

    @property
    def place(self) -> tuple[str, str]:
        """Tenant and name as the user knows them."""
        return self.clear or (self.tenant, self.name)

    @property
    def called(self) -> str:
        """The name as the user knows it, for messages."""
        return self.place[1]


@dataclass(frozen=True)
class Blob:
    """Sealed bytes beside the records: a scheme's profile, the segments of an index."""

    key_version: int
    """The key version it is sealed under. In clear, so that a rotation finds what it must seal anew."""
    content: bytes = field(repr=False)


@dataclass
class EncryptedBatch:
    """n encrypted records, to be written all or none."""

    partitions: Rows
    """(n,) int64: the partition of each record."""
    tokens: Bytes
    """(n, 16) uint8; distinct."""
    index_vectors: Kept
    """(n, index_dim) float32, or float16 in half precision; stored unchanged."""
    vectors: Bytes
    """(n, envelope_size) uint8: sealed exact vectors."""
    payloads: list[bytes]
    """n sealed payloads, of any lengths."""
    terms: list[tuple[int, str, Term]] = field(default_factory=list)
    """(position in the batch, field, term) of every value that the store may filter by."""
    retired: list[bytes] = field(default_factory=list)
    """Older tokens of these records, to be removed in the same transaction."""
    rows: Rows | None = None
    """For `replace` and `reseal` only: (n,) the rows that these records have."""

    def only(self, places: npt.NDArray[np.intp]) -> EncryptedBatch:
        """Return the records at these places, which ascend."""
        if len(places) == len(self.payloads):
            return self
        at = {place: new for new, place in enumerate(places.tolist())}
        return replace(
            self,
            partitions=self.partitions[places],
            tokens=self.tokens[places],
            index_vectors=self.index_vectors[places],
            vectors=self.vectors[places],
            payloads=[self.payloads[place] for place in at],
            terms=[(at[place], name, term) for place, name, term in self.terms if place in at],
            rows=None if self.rows is None else self.rows[places],
        )


@dataclass(frozen=True)
class Changes:
    """What happened to a collection since a generation."""

    generation: int
    """The generation of the last write included."""
    content: int
    """Counts `replace`. Index vectors that were read under another number are void."""
    stamp: int
    """Random, new with each write. If an older copy of the store is put back, a generation may come again, but never
    with the same stamp. 0 if the records keep none: then what was kept on disk is compared with all rows."""
    added: dict[int, Rows]
    """Rows by partition, ascending; all rows if `whole`."""
    removed: Rows
    """Rows that were removed, ascending; empty if `whole`."""
    whole: bool
    """True if the answer lists all rows, because the changes themselves are not known (any more)."""
    next_row: int = 1 << 62
    """Rows from this number on were never given out, as far as the store knows."""
    index_dim: int | None = None
    """Coordinates of an index vector; None if the collection was dropped."""
    sent: tuple[Rows, Bytes] | None = None
    """What `vectors` returns for the first added rows, ascending, where a store sends it along."""
