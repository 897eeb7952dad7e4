"""How a search of a sealed collection reads the store, as the user chose it."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from ...errors import InputError

__all__ = ["READS", "THREATS", "Reading"]

READS = ("candidates", "hits")
THREATS = ("watching-server",)
_SEES = {
    "candidates": (
        "every search: the rows of its candidates, which are near the query and near each other, nearest first. Who"
        " logs many searches learns which records are neighbours, and topics"
    ),
    "hits": (
        "every search: the rows that it returns, in random order, except those read a moment ago. Rows of one search"
        " are near each other. Who logs many searches learns which records are neighbours, and topics"
    ),
    "prefetched": (
        "that a search takes place, and when: sealed records are read once, all of them, in the order of their rows."
        " get, delete and scroll show which records they read"
    ),
    "buckets": (
        "which buckets of 16 random rows are read, each once, and when a search takes place. The bucket that a search"
        " reads first shows that one of its 16 rows is a hit. get, delete and scroll show which records they read"
    ),
}


@dataclass(frozen=True)
class Reading:
    """What a store that watches sees of searches. Raises InputError.

    Args:
        reads: "candidates" or "hits": which rows a search reads.
        threat: "watching-server" to read nothing that depends on the query, or only whole buckets; None for neither.
        cache: the folder for what is read of buckets.
    """

    reads: str | None = None
    threat: str | None = None
    cache: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.reads not in (None, *READS):
            raise InputError(f"reads must be one of {', '.join(READS)}, got {self.reads!r}")
        if self.threat not in (None, *THREATS):
            raise InputError(f"threat must be one of {', '.join(THREATS)}, or None, got {self.threat!r}")
        if self.threat is not None and self.reads is not None:
            raise InputError("give reads or threat, not both: the threat says what is read")
        if self.cache is not None and self.threat is None:
            raise InputError("cache is for threat='watching-server': give the threat too")
        if self.cache is not None and not isinstance(self.cache, str | PathLike):
            raise InputError(f"cache must be the path of a folder, got {type(self.cache).__name__}")
        if self.cache == "":
            raise InputError("cache must be the path of a folder, got ''")

    @property
    def hides(self) -> bool:
        """True if the store must not see which rows a search needs."""
        return self.threat is not None

    @property
    def folder(self) -> Path | None:
        """The folder for what is read of buckets."""
        return None if self.cache is None else Path(self.cache)

    def sees(self, *, buckets: bool = False, half: bool = True) -> str:
        """Say in words what a server that watches sees.

        Args:
            buckets: buckets are read, because records do not fit in memory.
            half: vectors in half precision fit in memory.
        """
        if self.hides:
            return _SEES["buckets" if buckets else "prefetched"]
        return _SEES["hits" if self.reads == "hits" and half else "candidates"]
