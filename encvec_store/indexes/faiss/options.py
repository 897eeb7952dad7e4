"""Read a `faiss:` URL and its options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import UriError
from ...runtime.gpus import DEVICES
from ...runtime.urls import folder_of_store
from ...storage.sqlite.place import LOCK_TIMEOUT, seconds

__all__ = ["INDEX_KINDS", "STORAGES", "FaissOptions", "parse_url"]

INDEX_KINDS = ("flat", "hnsw", "ivf")
STORAGES = ("sq8", "float32", "pq")
_RANKED = ("storage", "ef_search", "m", "ef_construction", "nprobe", "mapped", "flat_limit", "ivf_above")
"""Options of indexes over ciphertext. Sealed collections have none of these."""
_TRAINABLE = 100
"""Fewer records cannot train an index. They are searched exactly, whatever kind was asked for."""


@dataclass(frozen=True)
class FaissOptions:
    """The options of a store. Each can be given in the URL (`?index=hnsw&m=16`) or as a keyword argument."""

    index: str = "auto"
    """`flat`, `hnsw` or `ivf`. `auto` changes from one to the next as a collection grows. `lists` is `ivf`,
    and keeps the codes of sealed collections in the store: searches fetch what they need."""
    storage: str = "sq8"
    """How HNSW and IVF keep index vectors.

    `sq8` takes one byte per coordinate. The rounding is small beside the noise. `pq` takes one byte per two coordinates
    in IVF (product quantisation: Jégou, Douze and Schmid, TPAMI 2011), which costs some recall and is meant for many
    millions of records; in HNSW it is the same as `sq8`.
    """
    ef_search: int = 100
    """Smallest number of HNSW nodes that a search keeps. A search keeps at least as many as it asks candidates for."""
    m: int = 32
    """Links of an HNSW node. They take 8m bytes per record."""
    ef_construction: int = 40
    """Effort of building the HNSW graph. On 100,000 noisy ciphertexts, 100 took 4 times as long for the same recall."""
    nprobe: int = 0
    """IVF lists that a search probes; 0 means a twelfth of them."""
    device: str = "cpu"
    """Where records are encrypted and indexes searched: `cpu`, `cuda`, or `auto` (`cuda` if there is a GPU)."""
    lock_timeout: float = LOCK_TIMEOUT
    """Seconds to wait for another writer."""
    mapped: bool = True
    """Read vector envelopes from a memory-mapped copy, once the index is saved."""
    flat_limit: int = 5_000
    """`auto` searches exactly up to this many records of a key version."""
    ivf_above: int = 1_000_000
    """`auto` changes from HNSW to IVF above this many records of a key version."""

    mode: str = "rw"
    """`rw` reads and writes; `ro` only reads. A folder that cannot be written is opened as `ro`, with a warning."""

    def __post_init__(self) -> None:
        _one_of("index", self.index, ("auto", *INDEX_KINDS, "lists"))
        _one_of("storage", self.storage, STORAGES)
        _one_of("device", self.device, DEVICES)
        _one_of("mode", self.mode, ("rw", "ro"))
        for name, least in (("ef_search", 1), ("m", 2), ("ef_construction", 1), ("nprobe", 0), ("flat_limit", 0)):
            if getattr(self, name) < least:
                raise UriError(f"faiss store: {name} must be an integer >= {least}, got {getattr(self, name)}")
        seconds(self.lock_timeout)

    @property
    def ranked(self) -> tuple[str, ...]:
        """The options that differ from their defaults and are for server-ranked schemes only."""
        given = [each.name for each in fields(self) if getattr(self, each.name) != each.default]
        return tuple(name for name in given if name in _RANKED)

    def kind_for(self, records: int) -> str:
        """Return the kind of index for this number of records of one key version."""
        if self.index != "auto":
            kind = "ivf" if self.index == "lists" else self.index
            return kind if records >= _TRAINABLE else "flat"
        if records <= self.flat_limit:
            return "flat"
        return "hnsw" if records <= self.ivf_above else "ivf"

    def storage_for(self, kind: str) -> str:
        """Return how an index of this kind keeps vectors."""
        if kind == "flat":
            return "float32"
        return "sq8" if kind == "hnsw" and self.storage == "pq" else self.storage

    def probes_for(self, lists: int) -> int:
        """Return how many IVF lists a search probes."""
        return self.nprobe or max(4, math.ceil(lists / 12))


def parse_url(url: str, given: Mapping[str, Any]) -> tuple[Path, FaissOptions]:
    """Split a URL into its folder and options. Keyword arguments take precedence over the URL.

    Raises:
        UriError: the URL is no `faiss:` URL or has no folder, or an option is unknown or malformed.
    """
    folder, texts = folder_of_store(url)
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
