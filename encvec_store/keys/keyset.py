"""Keysets: numbered root keys, one of them primary, each enabled, disabled or destroyed.

The terms are those of Tink. The primary version encrypts new records; every enabled version decrypts.
"""

from __future__ import annotations

import base64
import logging
import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

from ..errors import (
    KeyContextError,
    KeyDeletedError,
    KeyDeniedError,
    KeyDisabledError,
    KeysetError,
    KeyUnavailableError,
)
from ..runtime.concurrency import Lock, offload
from .document import KeyState, KeyVersion, fresh, parse, serialised
from .lifetime import DEFAULT, KeyHolder, Lifetime, Seconds, checked
from .stored import StoredKeyset

__all__ = ["KeyState", "KeyVersion", "Keyset"]

Secret = str | bytes | None
_REVOKED = KeyContextError, KeyDeletedError, KeyDeniedError, KeyDisabledError
log = logging.getLogger("encvec_store")


class Keyset:
    """Root keys by version, stored at a URI (see `encvec_store.keys`).

    Call `Keyset.create(uri)` once, and `Keyset.open(uri)` from then on. Every change is saved before it is used.
    """

    def __init__(
        self, stored: StoredKeyset, versions: list[KeyVersion], primary: int, lifetime: Seconds = None
    ) -> None:
        self._stored = stored
        self._holders: weakref.WeakSet[KeyHolder] = weakref.WeakSet()
        self._lock = Lock()
        self._versions: dict[int, KeyVersion] | None = None
        """The versions with their roots; None while keys are forgotten."""
        self._keep({item.version: item for item in versions}, primary)
        self._lifetime: Lifetime | None = None
        seconds = DEFAULT if lifetime is None and stored.by_service else lifetime
        if seconds is not None and seconds != math.inf:
            self._lifetime = Lifetime(seconds, self)

    @classmethod
    def create(
        cls,
        uri: str | None = None,
        *,
        passphrase: Secret = None,
        wrap: str | None = None,
        lifetime: Seconds = None,
    ) -> Keyset:
        """Create a keyset with one new version.

        Args:
            uri: where to store it; see `encvec_store.keys`. If None, it is read from the variable ENCVEC_KEYSET.
            passphrase: for the wrapper `passphrase`. If None, it is read from the environment.
            wrap: the wrapper, instead of the URI's default: `passphrase`, `none`, a key service, or a wrapper of an
                installed package, with what it needs to know after a colon: `name:more`. The same as `?wrap=` in the
                URI.
            lifetime: seconds until the keys are dropped from memory, and unwrapped again when they are used next. If
                None, an hour if a key service wraps the keyset, and no limit otherwise; `math.inf` is no limit.

        Raises:
            KeysetError: a keyset exists there already, or it could not be written.
            KeyServiceError: the key service did not wrap it; the subclasses say why.
            UriError: the storage or the wrapper is unknown.
            InputError: a passphrase was given for a keyset that would not be wrapped.
        """
        return cls._create(StoredKeyset(uri, wrap=wrap, passphrase=passphrase), checked(lifetime))

    @classmethod
    def open(
        cls,
        uri: str | None = None,
        *,
        passphrase: Secret = None,
        wrap: str | None = None,
        lifetime: Seconds = None,
    ) -> Keyset:
        """Open a keyset.

        Args:
            uri: where it is stored, as in `create`.
            passphrase: as in `create`. If it is given, a keyset that is not wrapped is refused.
            wrap: the wrapper it must have, as in `create`. If None, the URI's default and a passphrase are accepted.
            lifetime: as in `create`.

        Raises:
            KeysetError: it is missing, damaged or wrapped in another way, or the passphrase is wrong.
            KeyServiceError: the key service did not unwrap it; the subclasses say why.
            UriError: the storage or the wrapper is unknown.
        """
        return cls._open(StoredKeyset(uri, wrap=wrap, passphrase=passphrase), checked(lifetime))

    @classmethod
    def open_or_create(
        cls,
        uri: str | None = None,
        *,
        passphrase: Secret = None,
        wrap: str | None = None,
        lifetime: Seconds = None,
    ) -> Keyset:
        """Open the keyset of a URI, or create it if there is none. Arguments and errors are those of `open`, `create`.

        A mistyped URI creates a second keyset, whose keys open nothing that was written before.
        """
        seconds, stored = checked(lifetime), StoredKeyset(uri, wrap=wrap, passphrase=passphrase)
        if not stored.exists():
            try:
                return cls._create(stored, seconds)
            except KeysetError:
                if not stored.exists():  # otherwise another process created it first: open that one
                    raise
                stored = StoredKeyset(uri, wrap=wrap, passphrase=passphrase)
        return cls._open(stored, seconds)

    @classmethod
    def restore(cls, uri: str, exported: str, *, passphrase: Secret = None, wrap: str | None = None) -> Keyset:
        """Store a keyset that `export` returned, at a URI that has none. Arguments and errors are those of `create`."""
        try:
            document = base64.b64decode(exported, validate=True)
        except ValueError:
            document = b""
        versions, primary = parse(document)
        stored = StoredKeyset(uri, wrap=wrap, passphrase=passphrase)
        stored.create(serialised({item.version: item for item in versions}, primary))
        return cls(stored, versions, primary)

    @classmethod
    def _create(cls, stored: StoredKeyset, lifetime: Seconds) -> Keyset:
        first = fresh(1)
        stored.create(serialised({1: first}, 1))
        return cls(stored, [first], 1, lifetime)

    @classmethod
    def _open(cls, stored: StoredKeyset, lifetime: Seconds) -> Keyset:
        versions, primary = parse(stored.load())
        return cls(stored, versions, primary, lifetime)

    @property
    def uri(self) -> str:
        """Where the keyset is stored, with the wrapper if one was named."""
        return self._stored.uri

    @property
    def primary(self) -> int:
        """The version that encrypts."""
        return self._primary

    @property
    def versions(self) -> tuple[KeyVersion, ...]:
        """All versions, oldest first, without their roots."""
        return tuple(item for _, item in sorted(self._states.items()))

    @property
    def live(self) -> tuple[int, ...]:
        """Numbers of the enabled versions, the primary first, then newest to oldest."""
        enabled = [n for n, item in self._states.items() if item.state is KeyState.ENABLED]
        return tuple(sorted(enabled, key=lambda n: (n != self._primary, -n)))

    @property
    def held(self) -> tuple[int, ...]:
        """Numbers of the versions that still have a root key: the live ones, then the disabled ones."""
        return self.live + tuple(n for n, item in sorted(self._states.items()) if item.state is KeyState.DISABLED)

    def root(self, version: int, *, naming: bool = False) -> bytes:
        """Return a version's root key, for `crypto` only. Raises KeyUnavailableError.

        Args:
            version: its number.
            naming: the root is only used to find records by id, or to check them, never to read them. A disabled
                version still does that. Otherwise an update or a deletion would miss the older record, which would
                return once the version is enabled, and a forged record could hide under the version.
        """
        item = self._held().get(version)
        if item is None:
            raise KeyUnavailableError(f"key version {version} is not in this keyset; was it rotated elsewhere?")
        if item.state is not KeyState.ENABLED and not (naming and item.state is KeyState.DISABLED):
            raise KeyUnavailableError(f"key version {version} is {item.state.value}")
        return item.root

    def rotate(self) -> int:
        """Add a new version, make it the primary, and return its number. Older versions still read."""
        version = max(self._held()) + 1
        self._change(lambda versions: versions.__setitem__(version, fresh(version)), primary=version)
        return version

    def enable(self, version: int) -> None:
        """Enable a disabled version again."""
        self._set_state(version, KeyState.ENABLED)

    def disable(self, version: int) -> None:
        """Stop a version from opening anything until it is enabled again. The primary cannot be disabled."""
        self._set_state(version, KeyState.DISABLED)

    def destroy(self, version: int) -> None:
        """Erase a version's root key: what it sealed can never be read again. The primary cannot be destroyed.

        Earlier copies of the keyset (a backup of the key file) still hold the root key.
        """
        self._set_state(version, KeyState.DESTROYED)

    def change_passphrase(self, new: str | bytes) -> None:
        """Wrap the keyset under another passphrase, all or nothing. The keys stay the same.

        Earlier copies of the keyset still open with the old passphrase. If it may be known to others, rotate as well.

        Raises:
            KeysetError: the keyset is not wrapped by a passphrase, the new one is empty, or it could not be written.
        """
        self._stored.change_passphrase(self._document(), new)

    def rewrap(self, wrap: str, *, passphrase: Secret = None) -> None:
        """Wrap the keyset in another way, all or nothing: under another key, service or passphrase. The keys stay.

        No record is touched, so it takes no longer than opening the keyset. Earlier copies of the keyset still open
        as before. From then on the keyset's URI is `uri`, which names the new wrapper.

        Args:
            wrap: as in `create`. The same wrapper again gives the keyset a new wrapping key.
            passphrase: the new one, for the wrapper `passphrase`.

        Raises:
            KeysetError: it could not be wrapped or written; it is as it was.
            UriError: the wrapper is unknown.
        """
        self._stored.rewrap(self._document(), wrap, passphrase)
        if self._lifetime is None and self._stored.by_service:
            self._lifetime = Lifetime(DEFAULT, self)

    def forget(self) -> None:
        """Drop all keys from memory. The next use reads and unwraps the keyset again.

        Python cannot overwrite them: what was dropped may stay in unused memory until it is used for something else.
        """
        self._versions = None
        self._stored.forget()
        for holder in list(self._holders):
            holder.forget()

    def watch(self, holder: KeyHolder) -> None:
        """Have `holder.forget()` called whenever keys are dropped, as long as the holder lives."""
        self._holders.add(holder)

    def export(self, *, unsafe_cleartext: bool = False) -> str:
        """Return the keyset unwrapped, as an `env:` variable holds it. Whoever sees it can read all data.

        Args:
            unsafe_cleartext: must be True. The name makes calls easy to find in a code review.
        """
        if unsafe_cleartext is not True:
            raise KeysetError("export returns the keys in clear: pass unsafe_cleartext=True if you mean it")
        return base64.b64encode(self._document()).decode()

    def _set_state(self, version: int, state: KeyState) -> None:
        item = self._held().get(version)
        if item is None:
            raise KeyUnavailableError(f"key version {version} is not in this keyset")
        if version == self._primary and state is not KeyState.ENABLED:
            raise KeysetError(f"key version {version} is the primary: rotate the keyset first")
        if item.state is KeyState.DESTROYED and state is not KeyState.DESTROYED:
            raise KeyUnavailableError(f"key version {version} is destroyed, which cannot be undone")
        root = b"" if state is KeyState.DESTROYED else item.root
        self._change(lambda versions: versions.__setitem__(version, replace(item, state=state, root=root)))

    def _change(self, edit: Callable[[dict[int, KeyVersion]], None], primary: int | None = None) -> None:
        """Save the changed keyset before using it: nothing is encrypted under a key that may get lost."""
        versions = dict(self._held())
        edit(versions)
        primary = primary or self._primary
        self._stored.save(serialised(versions, primary))
        self._keep(versions, primary)

    def _document(self) -> bytes:
        return serialised(self._held(), self._primary)

    def _keep(self, versions: dict[int, KeyVersion], primary: int) -> None:
        self._versions = versions
        self._states = {number: replace(item, root=b"") for number, item in versions.items()}
        self._primary = primary

    def _held(self) -> dict[int, KeyVersion]:
        """Return the versions with their roots, unwrapped again if their lifetime is over. Raises KeysetError."""
        if self._lifetime is not None and self._versions is not None:
            if self._lifetime.over:
                self.forget()
            elif self._lifetime.due():
                self._try_again()
        held = self._versions
        if held is None:
            with self._lock:
                held = self._versions
                if held is None:  # otherwise another thread has unwrapped it while we waited
                    held = self._load()
        return held

    def _try_again(self) -> None:
        """Unwrap the keyset before its lifetime is over, so that a service may be away for a while."""
        try:
            self._load()
        except _REVOKED:
            self.forget()
            raise
        except KeysetError as error:
            log.warning("the keyset is not renewed yet, and its keys stay until their lifetime is over: %s", error)

    def _load(self) -> dict[int, KeyVersion]:
        """Read and unwrap the keyset again, with what other processes changed. Raises KeysetError."""
        listed, primary = parse(offload(1 << 20, self._stored.load))
        versions = {item.version: item for item in listed}
        gone = {number for number, item in self._states.items() if item.state is KeyState.DESTROYED}
        back = any(versions[number].state is not KeyState.DESTROYED for number in gone & versions.keys())
        if back or not self._states.keys() <= versions.keys() or primary < self._primary:
            raise KeysetError(f"{self.uri} was put back to an older state: open it again if you did that")
        self._keep(versions, primary)
        if self._lifetime is not None:
            self._lifetime.begin()
        return versions

    def __repr__(self) -> str:
        states = ", ".join(f"{item.version}: {item.state.value}" for item in self.versions)
        return f"Keyset({self.uri!r}, primary={self._primary}, {{{states}}})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Keyset cannot be pickled: open it by its URI where it is needed")
