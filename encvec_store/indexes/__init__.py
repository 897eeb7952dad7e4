"""Vector indexes over ciphertext: each can be made again from the records of a store."""

from __future__ import annotations

from .protocol import BringsEnvelopes, Connection, KeepsEnvelopes, KeepsFiles, Probes, VectorIndex
from .registry import STORES, StoreKind, open_connection, waits_in_loop

__all__ = [
    "STORES",
    "BringsEnvelopes",
    "Connection",
    "KeepsEnvelopes",
    "KeepsFiles",
    "Probes",
    "StoreKind",
    "VectorIndex",
    "open_connection",
    "waits_in_loop",
]
