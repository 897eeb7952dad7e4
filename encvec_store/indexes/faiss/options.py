"""Reading a `faiss:` URL and its options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import UriError
from ...runtime.gpus import DEVICES
from ...storage.sqlite.place import LOCK_TIMEOUT, seconds, split

__all__ = ["INDEX_KINDS", "STORAGES", "FaissOptions", "parse_url"]

INDEX_KINDS = ("flat", "hnsw", "ivf")
STORAGES = ("sq8", "float32", "pq")
_TRAINABLE = 100
"""Fewer records teach an index nothing: they are searched exactly, whatever was asked for."""


@dataclass(frozen=True)
class FaissOptions:
    """How a store indexes. Every one may stand in the URL (`?index=hnsw&m=16`) or be a keyword argument."""

    index: str = "auto"
    """`flat`, `hnsw` or `ivf`; `auto` goes from one to the next as a collection grows."""
    storage: str = "sq8"
    """How HNSW and IVF keep index vectors: a byte a coordinate, or `float32`. Rounding drowns in the noise.

    `pq` keeps a byte for two coordinates in IVF (product quantisation: Jégou, Douze and Schmid, TPAMI 2011), and what
    `sq8` does in HNSW: for many millions of records, at some recall.
    """
    ef_search: int = 100
    """Least number of HNSW nodes kept while searching; never below the candidates asked for."""
    m: int = 32
    """HNSW links a node; four bytes times 2m a record."""
    ef_construction: int = 40
    """Effort of building the HNSW graph. On 100,000 noisy ciphertexts 100 took 4 times as long for the same recall."""
    nprobe: int = 0
    """IVF lists searched; 0 is a twelfth of them."""
    device: str = "cpu"
    """Where records are encrypted and indexes searched: `cpu`, `cuda`, or `auto`, `cuda` where there is one."""
    lock_timeout: float = LOCK_TIMEOUT
    """Seconds to wait for another writer."""
    mapped: bool = True
    """Read vector envelopes through a memory-mapped copy, where the index has been saved."""
    flat_limit: int = 5_000
    """`auto` searches exactly up to this many records of a key version."""
    ivf_above: int = 1_000_000
    """`auto` turns from HNSW to IVF above this many records of a key version."""

    mode: str = "rw"
    """`rw` reads and writes; `ro` only reads. A folder that cannot be written is opened as `ro`, with a warning."""

    def __post_init__(self) -> None:
        _one_of("index", self.index, ("auto", *INDEX_KINDS))
        _one_of("storage", self.storage, STORAGES)
        _one_of("device", self.device, DEVICES)
        _one_of("mode", self.mode, ("rw", "ro"))
        for name, least in (("ef_search", 1), ("m", 2), ("ef_construction", 1), ("nprobe", 0), ("flat_limit", 0)):
            if getattr(self, name) < least:
                raise UriError(f"faiss store: {name} must be an integer >= {least}, got {getattr(self, name)}")
        seconds(self.lock_timeout)

    def kind_for(self, records: int) -> str:
        """Return the kind of index that suits so many records of one key version."""
        if self.index != "auto":
            return self.index if records >= _TRAINABLE else "flat"
        if records <= self.flat_limit:
            return "flat"
        return "hnsw" if records <= self.ivf_above else "ivf"

    def storage_for(self, kind: str) -> str:
        """Return how an index of a kind keeps vectors."""
        if kind == "flat":
            return "float32"
        return "sq8" if kind == "hnsw" and self.storage == "pq" else self.storage

    def probes_for(self, lists: int) -> int:
        """Return how many of the lists of an IVF a search looks into."""
        return self.nprobe or max(4, math.ceil(lists / 12))


def parse_url(url: str, given: Mapping[str, Any]) -> tuple[Path, FaissOptions]:
    """Split a URL into its folder and options; keyword arguments win over the URL.

    Raises:
        UriError: no `faiss:` URL, no folder in it, or an unknown or malformed option.
    """
    folder, texts = split(url)
    known = {option.name: option.default for option in fields(FaissOptions)}
    values: dict[str, Any] = {}
    for name, value in (*texts, *given.items()):
        if known.get(name, MISSING) is MISSING:
            raise UriError(f"faiss store: unknown option {name!r}; use one of {', '.join(sorted(known))}")
        values[name] = _converted(name, value, type(known[name]))
    return folder, FaissOptions(**values)


def _converted(name: str, value: Any, kind: type) -> Any:
    if kind is bool:
        switches = {"1": True, "0": False, "true": True, "false": False}
        if str(value).lower() not in switches:
            raise UriError(f"faiss store: {name} must be 1 or 0, got {value!r}")
        return switches[str(value).lower()]
    try:
        return kind(value)
    except (TypeError, ValueError):
        what = {int: "an integer", float: "a number"}.get(kind, "a text")
        raise UriError(f"faiss store: {name} must be {what}, got {value!r}") from None


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UriError(f"faiss store: {name} must be one of {', '.join(allowed)}, got {value!r}")
