"""Encrypted vector store: vectors are encrypted on write, queries on search, answers are exact.

import encvec_store as ev

keyset = ev.Keyset.create("file:keys.json", passphrase=...)
with ev.connect("faiss:///data", keyset=keyset) as store:
    faces = store.collection("faces", dim=512)
    faces.upsert(ids, vectors, metadata, documents)
    hits = faces.search(query, k=10)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import aio, errors
    from .collection import Collection
    from .data.frames import ResultList
    from .data.records import Hit, Record
    from .keys.keyset import Keyset
    from .maintenance.calibrate import Calibration
    from .maintenance.rekey import Rekeyed
    from .maintenance.scheme import SchemeChange
    from .maintenance.verify import VerifyReport
    from .store import Store, connect

__version__ = "0.1.0.dev0"

__all__ = [
    "Calibration",
    "Collection",
    "Hit",
    "Keyset",
    "Record",
    "Rekeyed",
    "ResultList",
    "SchemeChange",
    "Store",
    "VerifyReport",
    "__version__",
    "aio",
    "connect",
    "errors",
]

_MODULES = {
    "Calibration": "maintenance.calibrate",
    "Collection": "collection",
    "Hit": "data.records",
    "Keyset": "keys.keyset",
    "Record": "data.records",
    "Rekeyed": "maintenance.rekey",
    "ResultList": "data.frames",
    "SchemeChange": "maintenance.scheme",
    "Store": "store",
    "VerifyReport": "maintenance.verify",
    "connect": "store",
}
"""Where each name is. Names are imported at first use, so that `encvec` can answer Ctrl-C from the start."""


def __getattr__(name: str) -> Any:
    if name in ("aio", "errors"):
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
