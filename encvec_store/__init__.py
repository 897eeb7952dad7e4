"""Encrypted vector store: vectors are encrypted on write, queries on search, answers are exact.

import encvec_store as ev

keyset = ev.Keyset.create("file:keys.json", passphrase=...)
with ev.connect("faiss:///data", keyset=keyset) as store:
    faces = store.collection("faces", dim=512)
    faces.upsert(ids, vectors, metadata, documents)
    hits = faces.search(query, k=10)
"""

from __future__ import annotations

from . import aio, errors
from .collection import Collection
from .data.records import Hit, Record
from .keys.keyset import Keyset
from .maintenance.calibrate import Calibration
from .maintenance.verify import VerifyReport
from .store import Store, connect

__version__ = "0.1.0.dev0"

__all__ = [
    "Calibration",
    "Collection",
    "Hit",
    "Keyset",
    "Record",
    "Store",
    "VerifyReport",
    "__version__",
    "aio",
    "connect",
    "errors",
]
