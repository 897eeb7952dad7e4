"""A lease: one builder at a time among the processes that use a collection.

The lease is a small sealed blob with the holder and a time after which it is void. It only saves work: two builders at
once do no harm, because a manifest is swapped only if it is still the one that was read. So clocks may differ.
"""

from __future__ import annotations

import os
import struct
import time

from ..errors import AuthenticationError, KeyUnavailableError
from ..runtime.forks import generation
from ..sealing.keyring import INDEX, Keyring
from ..storage.protocol import Followed

__all__ = ["Lease", "lease_name"]

SECONDS = 120.0
"""A builder that died blocks others for so long."""
_FORM = struct.Struct(">16sd")


def lease_name(version: int) -> str:
    """Return the name of the blob of a lease that is sealed under a key version."""
    return f"{INDEX}.{version}.lease"


class Lease:
    """The right to build the index of one collection. Use it in one thread at a time.

    Args:
        records: of the collection.
        keyring: of the collection.
        holder: 12 bytes. A lease of the same holder, in the same process, does not stop him: perhaps it could not be
            given back.
    """

    def __init__(self, records: Followed, keyring: Keyring, holder: bytes | None = None) -> None:
        self._records, self._keyring = records, keyring
        self._holder = (holder or os.urandom(12)) + generation().to_bytes(4, "big")
        self._version = keyring.primary
        self._name = lease_name(self._version)
        self._held: bytes | None = None
        self._until = 0.0

    def taken(self) -> bool:
        """Take or renew the lease. Returns False if another builder holds it."""
        now = time.time()
        if not self.due:
            return True
        before = self._records.blob(self._name)
        if before is not None and before != self._held and self._busy(before, now):
            self._held = None
            return False
        content = _FORM.pack(self._holder, now + SECONDS)
        blob = self._keyring.seal_segment(self._version, self._name, 0, 1, 0, content)
        if not self._records.keep([(self._name, 0, blob)], expect={self._name: before}):
            self._held = None
            return False
        self._held, self._until = blob.content, now + SECONDS
        return True

    def release(self) -> None:
        """Give the lease back."""
        if self._held is not None:
            self._records.keep(drop=[self._name], expect={self._name: self._held})
            self._held = None

    @property
    def due(self) -> bool:
        """True if it should be renewed now."""
        return self._held is None or time.time() > self._until - SECONDS / 2

    def _busy(self, sealed: bytes, now: float) -> bool:
        try:
            content = bytes(self._keyring.open_segment(self._name, 0, 1, 0, sealed))
            holder, until = _FORM.unpack(content[: _FORM.size])
        except (AuthenticationError, KeyUnavailableError, struct.error):
            return False  # not ours: it must not stop builders
        return holder != self._holder and bool(now < until <= now + 2 * SECONDS)
