"""Search in the trusted process: an index over opened vectors, kept in the record store as sealed segments."""

from __future__ import annotations

from .budget import BUDGET
from .builder import FIRST, Builder
from .checking import check, saved
from .columns import Filtered
from .filling import fill
from .halves import Filling, Halves
from .index import Opener, SealedIndex
from .ondemand import fetches, nearest
from .shared import Index, Indexes, index_of
from .state import Allowed, Indexed, Listed, Looked, Snapshot

__all__ = [
    "BUDGET",
    "FIRST",
    "Allowed",
    "Builder",
    "Filling",
    "Filtered",
    "Halves",
    "Index",
    "Indexed",
    "Indexes",
    "Listed",
    "Looked",
    "Opener",
    "SealedIndex",
    "Snapshot",
    "check",
    "fetches",
    "fill",
    "index_of",
    "nearest",
    "saved",
]
