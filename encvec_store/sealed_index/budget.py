"""Memory for the sealed indexes of a process, all together.

An index that was not used for the longest time is dropped when there is no room. It is loaded again at its next use.
"""

from __future__ import annotations

import os
import weakref
from collections import OrderedDict, deque
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ..errors import InputError
from ..runtime.forks import Mutex, renew_in_child

__all__ = ["BUDGET", "Budget", "Holder", "available"]

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


class Shrinking(Holder, Protocol):
    """A holder of which a part is quickly made again."""

    def shrink(self, excess: int) -> None:
        """Give up about so many bytes of that part, if it has so many."""
        ...


class Budget:
    """Keeps the memory of all holders together below a limit, as far as it can: the one in use always stays.

    A use costs the same however many holders there are: their sizes are noted, and only those that are dropped are
    looked at.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._held: OrderedDict[weakref.ref[Holder], int] = OrderedDict()
        """The bytes of each holder when it was last noted, the one unused for the longest time first."""
        self._total = 0
        self._gone: deque[weakref.ref[Holder]] = deque()
        """Holders that were freed. The garbage collector may run in the middle of a note, so it takes no lock."""
        self._caches: weakref.WeakSet[Shrinking] = weakref.WeakSet()
        """Those that shrink before anything is dropped."""
        self._lock = Mutex()
        renew_in_child(self)

    def renew(self) -> None:
        """Count again: another thread of the parent may have been in the middle of a note."""
        self._total = sum(self._held.values())

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

    @property
    def total(self) -> int:
        """The bytes that all holders take."""
        with self._lock:
            self._bury()
            return self._total

    def used(self, holder: Holder) -> None:
        """Note that a holder was used just now."""
        with self._lock, suppress(KeyError):
            self._held.move_to_end(weakref.ref(holder))

    def others(self, holder: Holder) -> int:
        """Return the bytes that all other holders take."""
        with self._lock:
            self._bury()
            return self._total - self._held.get(weakref.ref(holder), 0)

    def grow(self, cache: Shrinking) -> None:
        """Note the size of a holder that keeps to `others`, and that it shrinks before others are dropped."""
        size, mine = cache.bytes, self._place(cache)
        with self._lock:
            self._bury()
            self._total += size - self._held.pop(mine, 0)
            self._held[mine] = size
            self._caches.add(cache)

    def make_room(self, holder: Holder) -> None:
        """Note the size of a holder, and drop others, the one unused for the longest time first, until all fit."""
        size, mine, dropped = holder.bytes, self._place(holder), list[Holder]()
        with self._lock:
            self._bury()
            self._total += size - self._held.pop(mine, 0)
            self._held[mine] = size
            for cache in list(self._caches) if self._total > self.limit else ():
                place: weakref.ref[Holder] = weakref.ref(cache)
                if cache is not holder and place in self._held:
                    cache.shrink(self._total - self.limit)
                    self._total += cache.bytes - self._held[place]
                    self._held[place] = cache.bytes
            while self._total > self.limit and len(self._held) > 1:
                oldest, held = self._held.popitem(last=False)
                self._total -= held
                other = oldest()
                if other is not None:
                    dropped.append(other)
        for other in dropped:
            other.forget()

    def _place(self, holder: Holder) -> weakref.ref[Holder]:
        return weakref.ref(holder, self._gone.append)

    def _bury(self) -> None:
        while self._gone:
            self._total -= self._held.pop(self._gone.popleft(), 0)


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
