"""Memory for the sealed indexes of a process, all together.

An index that was not used for the longest time is dropped when there is no room. It is loaded again at its next use.
"""

from __future__ import annotations

import os
import time
import weakref
from pathlib import Path
from typing import Protocol

from ..errors import InputError
from ..runtime.forks import Mutex

__all__ = ["BUDGET", "Budget", "available"]

_SHARE = 4
_CGROUPS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_LEAST = 64 << 20


class Holder(Protocol):
    """Something that takes memory and can be made again."""

    @property
    def bytes(self) -> int:
        """The memory held."""
        ...

    def forget(self) -> None:
        """Give it up."""
        ...


class Budget:
    """Keeps the memory of all holders together below a limit, as far as it can: the one in use always stays."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._used: weakref.WeakKeyDictionary[Holder, float] = weakref.WeakKeyDictionary()
        self._lock = Mutex()

    @property
    def limit(self) -> int:
        """The bytes that all indexes together may take."""
        if self._limit is None:
            self._limit = max(_LEAST, available() // _SHARE)
        return self._limit

    def set(self, limit: int) -> None:
        """Set the limit. Raises InputError."""
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InputError(f"index_memory must be a number of bytes >= 1, got {limit!r}")
        self._limit = limit

    def used(self, holder: Holder) -> None:
        """Note that a holder was used just now."""
        self._used[holder] = time.monotonic()

    def make_room(self, holder: Holder) -> None:
        """Drop other holders, the one unused for the longest time first, until all are within the limit."""
        with self._lock:
            self.used(holder)
            others = sorted(((at, other) for other, at in list(self._used.items()) if other is not holder), key=_first)
        total = holder.bytes + sum(other.bytes for _, other in others)
        for _, other in others:
            if total <= self.limit:
                return
            total -= other.bytes
            other.forget()


def _first(item: tuple[float, Holder]) -> float:
    return item[0]


BUDGET = Budget()
"""That of this process."""


def available() -> int:
    """Return the bytes of memory that this process may take: what its control group allows, or what there is."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 4 << 30
    for path in _CGROUPS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            found = min(found, int(text))
    return found
