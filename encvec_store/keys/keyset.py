"""Keysets: numbered root keys, one of them primary, each enabled, disabled or destroyed.

The terms are those of Tink. The primary version encrypts new records; every enabled version decrypts.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ..errors import KeysetError, KeyUnavailableError
from .stored import UNWRAPPED_FORMAT as FORMAT
from .stored import StoredKeyset

__all__ = ["KeyState", "KeyVersion", "Keyset"]


class KeyState(StrEnum):
    """What a key version may do."""

    ENABLED = "enabled"
    """Opens and searches records, and encrypts if it is the primary."""
    DISABLED = "disabled"
    """Opens nothing until it is enabled again. Records under it can still be replaced and deleted."""
    DESTROYED = "destroyed"
    """Its root key is erased: what it sealed can never be read again."""


@dataclass(frozen=True)
class KeyVersion:
    """One numbered root key. Its repr never shows the key."""

    version: int
    state: KeyState
    created: str
    root: bytes = field(default=b"", repr=False)


class Keyset:
    """Root keys by version, stored at a URI (see `encvec_store.keys`).

    Call `Keyset.create(uri)` once, and `Keyset.open(uri)` from then on. Every change is saved before it is used.
    """

    def __init__(self, stored: StoredKeyset, versions: list[KeyVersion], primary: int) -> None:
        self._stored = stored
        self._versions = {item.version: item for item in versions}
        self._primary = primary

    @classmethod
    def create(cls, uri: str, *, passphrase: str | bytes | None = None, wrap: str | None = None) -> Keyset:
        """Create a keyset with one new version.

        Args:
            uri: where to store it; see `encvec_store.keys`.
            passphrase: for the wrapper `passphrase`. If None, it is read from the environment.
            wrap: the wrapper, instead of the URI's default: `passphrase`, `none`, or a wrapper of an installed
                package, with what it needs to know after a colon: `name:more`. The same as `?wrap=` in the URI.

        Raises:
            KeysetError: a keyset exists there already, or it could not be written.
            UriError: the storage or the wrapper is unknown.
            InputError: a passphrase was given for a keyset that would not be wrapped.
        """
        return cls._create(StoredKeyset(uri, wrap=wrap, passphrase=passphrase))

    @classmethod
    def open(cls, uri: str, *, passphrase: str | bytes | None = None, wrap: str | None = None) -> Keyset:
        """Open a keyset.

        Args:
            uri: where it is stored; see `encvec_store.keys`.
            passphrase: as in `create`. If it is given, a keyset that is not wrapped is refused.
            wrap: the wrapper it must have, as in `create`. If None, the URI's default and a passphrase are accepted.

        Raises:
            KeysetError: it is missing, damaged or wrapped in another way, or the passphrase is wrong.
            UriError: the storage or the wrapper is unknown.
        """
        return cls._open(StoredKeyset(uri, wrap=wrap, passphrase=passphrase))

    @classmethod
    def open_or_create(cls, uri: str, *, passphrase: str | bytes | None = None, wrap: str | None = None) -> Keyset:
        """Open the keyset of a URI, or create it if there is none. Arguments and errors are those of `open`, `create`.

        A mistyped URI creates a second keyset, whose keys open nothing that was written before.
        """
        stored = StoredKeyset(uri, wrap=wrap, passphrase=passphrase)
        if not stored.exists():
            try:
                return cls._create(stored)
            except KeysetError:
                if not stored.exists():  # otherwise another process created it first: open that one
                    raise
                stored = StoredKeyset(uri, wrap=wrap, passphrase=passphrase)
        return cls._open(stored)

    @classmethod
    def _create(cls, stored: StoredKeyset) -> Keyset:
        keyset = cls(stored, [_fresh(1)], 1)
        stored.create(keyset._document())
        return keyset

    @classmethod
    def _open(cls, stored: StoredKeyset) -> Keyset:
        versions, primary = _parse(stored.load())
        return cls(stored, versions, primary)

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
        return tuple(replace(item, root=b"") for _, item in sorted(self._versions.items()))

    @property
    def live(self) -> tuple[int, ...]:
        """Numbers of the enabled versions, the primary first, then newest to oldest."""
        enabled = [n for n, item in self._versions.items() if item.state is KeyState.ENABLED]
        return tuple(sorted(enabled, key=lambda n: (n != self._primary, -n)))

    @property
    def held(self) -> tuple[int, ...]:
        """Numbers of the versions that still have a root key: the live ones, then the disabled ones."""
        return self.live + tuple(n for n, item in sorted(self._versions.items()) if item.state is KeyState.DISABLED)

    def root(self, version: int, *, naming: bool = False) -> bytes:
        """Return a version's root key, for `crypto` only. Raises KeyUnavailableError.

        Args:
            version: its number.
            naming: the root is only used to find records by id, or to check them, never to read them. A disabled
                version still does that. Otherwise an update or a deletion would miss the older record, which would
                return once the version is enabled, and a forged record could hide under the version.
        """
        item = self._versions.get(version)
        if item is None:
            raise KeyUnavailableError(f"key version {version} is not in this keyset; was it rotated elsewhere?")
        if item.state is not KeyState.ENABLED and not (naming and item.state is KeyState.DISABLED):
            raise KeyUnavailableError(f"key version {version} is {item.state.value}")
        return item.root

    def rotate(self) -> int:
        """Add a new version, make it the primary, and return its number. Older versions still read."""
        version = max(self._versions) + 1
        self._change(lambda versions: versions.__setitem__(version, _fresh(version)), primary=version)
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

    def export(self, *, unsafe_cleartext: bool = False) -> str:
        """Return the keyset unwrapped, as an `env:` variable holds it. Whoever sees it can read all data.

        Args:
            unsafe_cleartext: must be True. The name makes calls easy to find in a code review.
        """
        if unsafe_cleartext is not True:
            raise KeysetError("export returns the keys in clear: pass unsafe_cleartext=True if you mean it")
        return base64.b64encode(self._document()).decode()

    def _set_state(self, version: int, state: KeyState) -> None:
        item = self._versions.get(version)
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
        versions = dict(self._versions)
        edit(versions)
        primary = primary or self._primary
        self._stored.save(_serialised(versions, primary))
        self._versions, self._primary = versions, primary

    def _document(self) -> bytes:
        return _serialised(self._versions, self._primary)

    def __repr__(self) -> str:
        states = ", ".join(f"{item.version}: {item.state.value}" for item in self.versions)
        return f"Keyset({self.uri!r}, primary={self._primary}, {{{states}}})"

    def __reduce__(self) -> str:
        raise TypeError("a Keyset cannot be pickled: open it by its URI where it is needed")


def _serialised(versions: dict[int, KeyVersion], primary: int) -> bytes:
    items = [
        {
            "version": item.version,
            "state": item.state.value,
            "created": item.created,
            "root": base64.b64encode(item.root).decode(),
        }
        for _, item in sorted(versions.items())
    ]
    return json.dumps(
        {"format": FORMAT, "primary": primary, "versions": items}, sort_keys=True, separators=(",", ":")
    ).encode()


def _fresh(version: int) -> KeyVersion:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return KeyVersion(version, KeyState.ENABLED, now, os.urandom(32))


def _integer(value: object) -> int:
    if type(value) is not int:  # int() would round 1.5, and fail on Infinity, which JSON readers accept
        raise TypeError
    return value


def _parse(document: bytes) -> tuple[list[KeyVersion], int]:
    try:
        fields = json.loads(document)
        if fields["format"] != FORMAT:
            raise ValueError
        versions = [
            KeyVersion(
                _integer(item["version"]),
                KeyState(item["state"]),
                str(item["created"]),
                base64.b64decode(item["root"], validate=True),
            )
            for item in fields["versions"]
        ]
        primary = _integer(fields["primary"])
        by_number = {item.version: item for item in versions}
        if by_number[primary].state is not KeyState.ENABLED or len(by_number) != len(versions):
            raise ValueError
        for item in versions:
            if len(item.root) != (0 if item.state is KeyState.DESTROYED else 32) or not 0 < item.version < 2**32:
                raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeysetError("the keyset has an unknown format, or is damaged") from None
    return versions, primary
