"""Stores of sealed records: opaque tokens, sealed bytes and index vectors, never a key."""

from __future__ import annotations

from .memory import MemoryStore
from .memory_content import passes
from .protocol import Blob, Changes, CollectionSpec, EncryptedBatch, Followed, Records, RecordStore, union
from .ranges import unpacked
from .revisions import FORMAT, REVISION

__all__ = [
    "FORMAT",
    "REVISION",
    "Blob",
    "Changes",
    "CollectionSpec",
    "EncryptedBatch",
    "Followed",
    "MemoryStore",
    "RecordStore",
    "Records",
    "passes",
    "union",
    "unpacked",
]
