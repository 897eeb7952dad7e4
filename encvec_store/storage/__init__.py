"""Stores of sealed records: opaque tokens, sealed bytes and index vectors, never a key."""

from __future__ import annotations

from .protocol import Blob, Changes, CollectionSpec, EncryptedBatch, Records, RecordStore, union

__all__ = ["Blob", "Changes", "CollectionSpec", "EncryptedBatch", "RecordStore", "Records", "union"]
