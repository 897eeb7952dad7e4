"""The document of a keyset in memory: how long its keys stay there, and how it is read again and changed."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable

from ..errors import (
    KeyContextError,
    KeyDeletedError,
    KeyDeniedError,
    KeyDisabledError,
    KeysetError,
)
from ..runtime.concurrency import Lock, offload
from ..runtime.forks import Mutex
from .document import Document, parse
from .lifetime import DEFAULT, TOLD, KeyHolder, Lifetime, Seconds
from .stored import StoredKeyset
from .tenant_secrets import TenantSecrets

__all__ = ["REVOKED", "HeldKeys"]

REVOKED = KeyContextError, KeyDeletedError, KeyDeniedError, KeyDisabledError
"""What a key service says when a key must not be used any more."""
_ATTEMPTS = 16
log = logging.getLogger("encvec_store")


class HeldKeys:
    """What one `Keyset` holds in memory.

    Args:
        stored: where it is stored.
        document: as it was read or created.
        lifetime: see `Keyset.create`.
    """

    def __init__(self, stored: StoredKeyset, document: Document, lifetime: Seconds = None) -> None:
        self.stored = stored
        self._holders: weakref.WeakSet[KeyHolder] = weakref.WeakSet()
        self._lock = Lock()
        self._looking = Mutex()
        self._watch: Lifetime | None = None
        self._looker = _Looker(self)
        self._missed = False
        self.secrets = TenantSecrets()
        self.lifetime: Lifetime | None = None
        self.document: Document | None = None
        """With all keys; None while they are forgotten."""
        self.bare = document.bare()
        """The same without keys; always there."""
        seconds = DEFAULT if lifetime is None and stored.by_service else lifetime
        if seconds is not None and seconds != math.inf:
            self.lifetime = Lifetime(seconds, self)
        self._keep(document)

    @property
    def seconds(self) -> float:
        """How long this process may go on after another one has erased a tenant."""
        return TOLD if self.lifetime is None else min(TOLD, self.lifetime.seconds)

    def watch(self, holder: KeyHolder) -> None:
        """Have `holder.forget()` called whenever keys are dropped, as long as the holder lives."""
        self._holders.add(holder)

    def opened(self) -> Document:
        """Return the document with its keys, unwrapped again if their lifetime is over. Raises KeysetError."""
        if self.lifetime is not None and self.document is not None:
            if self.lifetime.over:
                self.forget()
            elif self.lifetime.due():
                self._try_again()
        held = self.document
        if held is None:
            with self._lock:
                held = self.document
                if held is None:  # otherwise another thread has unwrapped it while we waited
                    held = self._load()
        return held

    def change(self, edit: Callable[[Document], Document]) -> None:
        """Save the changed keyset before using it: nothing is encrypted under a key that may get lost."""
        if self.bare.tenants:
            self.look()  # other processes add tenants at any time
        changed = edit(self.opened())
        self.stored.save(changed.serialised())
        self._keep(changed)

    def change_newest(self, edit: Callable[[Document], Document]) -> None:
        """Do what `change` does to the newest state, again if another process changes it meanwhile.

        Raises what the edit raises; KeysetError if the keyset cannot be written.
        """
        for attempt in range(_ATTEMPTS):
            self.look()
            try:
                return self.change(edit)
            except KeysetError:
                if attempt == _ATTEMPTS - 1 or not self.stored.is_changed():
                    raise

    def forget(self) -> None:
        """Drop all keys from memory. The next use reads and unwraps the keyset again."""
        self.document = None
        self.stored.forget()
        self.secrets.forget()
        for holder in list(self._holders):
            holder.forget()

    def renew(self) -> None:
        """Give keys a lifetime, if they have none and a key service wraps them now."""
        if self.lifetime is None and self.stored.by_service:
            self.lifetime = Lifetime(DEFAULT, self)

    # what other processes change

    def look(self) -> None:
        """Read the keyset again if another process changed it. No key service is asked if its key is in memory."""
        if self.stored.lasting and offload(1 << 20, self.stored.is_changed):
            with self._lock:
                self._load(held=True)

    def look_if_due(self) -> None:
        """Do what `look` does, now and then: this is how another process learns that a tenant was erased.

        If the keyset cannot be read twice in a row, nobody knows whether one was erased: then all keys are dropped, and
        what was opened for tenants.
        """
        if self._watch is None or not self._watch.over:
            return
        with self._looking:
            mine = self._watch.restarted()
        if not mine:  # another thread looks
            return
        try:
            self.look()
            self._missed = False
        except KeysetError as error:
            log.warning("it is not known whether tenants were erased, since the keyset cannot be read: %s", error)
            if self._missed:
                self.forget()
                self.secrets.drop(self.bare.tenants)
            self._missed = True
        self.secrets.end((DEFAULT if self.lifetime is None else self.lifetime.seconds) - self.seconds)

    def ended(self) -> None:
        """Look, and go on looking: the timer has ended."""
        self.look_if_due()
        if self._watch is not None:
            self._watch.renew()

    def _try_again(self) -> None:
        """Unwrap the keyset before its lifetime is over, so that a service may be away for a while."""
        try:
            self._load()
        except REVOKED:
            self.forget()
            raise
        except KeysetError as error:
            log.warning("the keyset is not renewed yet, and its keys stay until their lifetime is over: %s", error)

    def _load(self, *, held: bool = False) -> Document:
        """Read and unwrap the keyset again, with what other processes changed. Raises KeysetError."""
        document = parse(offload(1 << 20, self.stored.load, held=held))
        if document.goes_back(self.bare):
            self.stored.refuse()
            raise KeysetError(f"{self.stored.uri} was put back to an older state: open it again if you did that")
        asked = not held or self.document is None
        self._keep(document)
        if self.lifetime is not None and asked:
            self.lifetime.begin()
        return document

    def _keep(self, document: Document) -> None:
        before, self.bare = self.bare, document.bare()
        self.document = document
        if self._watch is None and document.tenants and self.stored.lasting:
            self._watch = Lifetime(self.seconds / 2, self._looker)
        gone = [
            name
            for name, item in before.tenants.items()
            if (now := self.bare.tenants[name]).erased > item.erased or now.life > item.life
        ]
        self.secrets.drop(gone)


class _Looker:
    """What the timer calls."""

    def __init__(self, held: HeldKeys) -> None:
        self._held = weakref.ref(held)

    def forget(self) -> None:
        """Look for tenants that were erased."""
        held = self._held()
        if held is not None:
            held.ended()
