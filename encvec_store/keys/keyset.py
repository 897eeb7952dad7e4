"""Keysets: numbered root keys, one of them primary, each enabled, disabled or destroyed.

The terms are those of Tink. The primary version encrypts new records; every enabled version decrypts.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import NoReturn

from ..errors import KeysetError, KeyUnavailableError
from .document import Document, KeyState, KeyVersion, first, fresh, parse
from .held import HeldKeys
from .lifetime import KeyHolder, Seconds, checked
from .stored import StoredKeyset
from .tenants import Tenants

__all__ = ["KeyState", "KeyVersion", "Keyset"]

Secret = str | bytes | None


class Keyset:
    """Root keys by version, stored at a URI (see `encvec_store.keys`).

    Call `Keyset.create(uri)` once, and `Keyset.open(uri)` from then on. Every change is saved before it is used.
    """

    def __init__(self, stored: StoredKeyset, document: Document, lifetime: Seconds = None) -> None:
        self._held = HeldKeys(stored, document, lifetime)

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
        content = parse(document)
        stored = StoredKeyset(uri, wrap=wrap, passphrase=passphrase)
        stored.create(content.serialised())
        return cls(stored, content)

    @classmethod
    def _create(cls, stored: StoredKeyset, lifetime: Seconds) -> Keyset:
        document = first()
        stored.create(document.serialised())
        return cls(stored, document, lifetime)

    @classmethod
    def _open(cls, stored: StoredKeyset, lifetime: Seconds) -> Keyset:
        return cls(stored, parse(stored.load()), lifetime)

    @property
    def uri(self) -> str:
        """Where the keyset is stored, with the wrapper if one was named."""
        return self._held.stored.uri

    @property
    def primary(self) -> int:
        """The version that encrypts."""
        return self._held.bare.primary

    @property
    def tenants(self) -> Tenants:
        """The tenants that have a key of their own: see `Tenants`."""
        return Tenants(self._held)

    @property
    def versions(self) -> tuple[KeyVersion, ...]:
        """All versions, oldest first, without their roots."""
        return tuple(item for _, item in sorted(self._held.bare.versions.items()))

    @property
    def live(self) -> tuple[int, ...]:
        """Numbers of the enabled versions, the primary first, then newest to oldest."""
        enabled = [n for n, item in self._held.bare.versions.items() if item.state is KeyState.ENABLED]
        return tuple(sorted(enabled, key=lambda n: (n != self.primary, -n)))

    @property
    def held(self) -> tuple[int, ...]:
        """Numbers of the versions that still have a root key: the live ones, then the disabled ones."""
        return self.live + tuple(item.version for item in self.versions if item.state is KeyState.DISABLED)

    def root(self, version: int, *, naming: bool = False) -> bytes:
        """Return a version's root key, for `crypto` only. Raises KeyUnavailableError.

        Args:
            version: its number.
            naming: the root is only used to find records by id, or to check them, never to read them. A disabled
                version still does that. Otherwise an update or a deletion would miss the older record, which would
                return once the version is enabled, and a forged record could hide under the version.
        """
        item = self._held.opened().versions.get(version)
        if item is None:
            raise KeyUnavailableError(f"key version {version} is not in this keyset; was it rotated elsewhere?")
        if item.state is not KeyState.ENABLED and not (naming and item.state is KeyState.DISABLED):
            raise KeyUnavailableError(f"key version {version} is {item.state.value}")
        return item.root

    def rotate(self) -> int:
        """Add a new version, make it the primary, and return its number. Older versions still read."""

        def edit(document: Document) -> Document:
            version = max(document.versions) + 1
            return replace(document, versions={**document.versions, version: fresh(version)}, primary=version)

        self._held.change(edit)
        return self.primary

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
        self._held.stored.change_passphrase(self._document(), new)

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
        self._held.stored.rewrap(self._document(), wrap, passphrase)
        self._held.renew()

    def forget(self) -> None:
        """Drop all keys from memory. The next use reads and unwraps the keyset again.

        Python cannot overwrite them: what was dropped may stay in unused memory until it is used for something else.
        """
        self._held.forget()

    def watch(self, holder: KeyHolder) -> None:
        """Have `holder.forget()` called whenever keys are dropped, as long as the holder lives."""
        self._held.watch(holder)

    def export(self, *, unsafe_cleartext: bool = False) -> str:
        """Return the keyset unwrapped, as an `env:` variable holds it. Whoever sees it can read all data.

        Args:
            unsafe_cleartext: must be True. The name makes calls easy to find in a code review.
        """
        if unsafe_cleartext is not True:
            raise KeysetError("export returns the keys in clear: pass unsafe_cleartext=True if you mean it")
        return base64.b64encode(self._document()).decode()

    def _set_state(self, version: int, state: KeyState) -> None:
        def edit(document: Document) -> Document:
            item = document.versions.get(version)
            if item is None:
                raise KeyUnavailableError(f"key version {version} is not in this keyset")
            if version == document.primary and state is not KeyState.ENABLED:
                raise KeysetError(f"key version {version} is the primary: rotate the keyset first")
            if item.state is KeyState.DESTROYED and state is not KeyState.DESTROYED:
                raise KeyUnavailableError(f"key version {version} is destroyed, which cannot be undone")
            root = b"" if state is KeyState.DESTROYED else item.root
            return replace(document, versions={**document.versions, version: replace(item, state=state, root=root)})

        self._held.change(edit)

    def _document(self) -> bytes:
        return self._held.opened().serialised()

    def __repr__(self) -> str:
        states = ", ".join(f"{item.version}: {item.state.value}" for item in self.versions)
        return f"Keyset({self.uri!r}, primary={self.primary}, {{{states}}})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Keyset cannot be pickled: open it by its URI where it is needed")
