"""How long root keys stay in memory after a key service unwrapped them."""

from __future__ import annotations

import math
import threading
import time
import weakref
from typing import Protocol

from ..errors import InputError
from ..runtime.forks import renew_in_child

__all__ = ["DEFAULT", "TOLD", "KeyHolder", "Lifetime", "Seconds", "checked", "moment"]

Seconds = float | None

DEFAULT = 3600.0
"""Seconds, if a key service wraps the keyset."""
TOLD = 300.0
"""Seconds until every process knows that a tenant was erased, at most."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)  # on Linux it counts while the machine sleeps, too


class KeyHolder(Protocol):
    """What holds keys that end with their lifetime."""

    def forget(self) -> None:
        """Drop all keys."""
        ...


def checked(seconds: Seconds) -> Seconds:
    """Return a lifetime in seconds. Raises InputError."""
    if seconds is None or seconds == math.inf:
        return seconds
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 365 * 86_400:
        raise InputError(f"lifetime must be a number of seconds > 0 and <= a year, or None, got {seconds!r}")
    return float(seconds)


class Lifetime:
    """When keys were unwrapped, and when they must be unwrapped again.

    In the second half of the lifetime they are `due`: the next use tries to unwrap them again, and goes on with the old
    ones if the service does not answer. At its end they are `over`: a timer drops them, also if nobody uses them.
    """

    def __init__(self, seconds: float, holder: KeyHolder) -> None:
        self.seconds = seconds
        self._holder = weakref.ref(holder)
        self.begin()
        renew_in_child(self)

    def begin(self) -> None:
        """Note that the keys were unwrapped now."""
        self._begun = self._tried = _now()
        self._timer: threading.Timer | None = None
        self.renew()

    def renew(self) -> None:
        """Start the timer; again in a forked child, where the parent's does not run."""
        if self._timer is not None and self._timer.is_alive():
            self._timer.cancel()
        left = max(self.seconds - (_now() - self._begun), 0.0)
        self._timer = threading.Timer(left, _end, (self._holder,))
        self._timer.daemon = True
        self._timer.start()

    def __del__(self) -> None:
        timer = getattr(self, "_timer", None)
        if timer is not None:
            timer.cancel()  # otherwise its thread would wait for a keyset that is gone

    @property
    def over(self) -> bool:
        """True if the keys must not be used any more."""
        return _now() - self._begun >= self.seconds

    def restarted(self) -> bool:
        """Begin again if the time is over. Returns whether it was."""
        if self.over:
            self.begin()
            return True
        return False

    def due(self) -> bool:
        """Return True if it is time to unwrap them again; then not again at once."""
        now = _now()
        if now - self._begun < self.seconds / 2 or now - self._tried < self.seconds / 16:
            return False
        self._tried = now
        return True


def _end(holder: weakref.ref[KeyHolder]) -> None:
    found = holder()
    if found is not None:
        found.forget()


def moment() -> float:
    """Return seconds of a clock that counts on while the machine sleeps, where there is one."""
    return _now()


def _now() -> float:
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)
