"""Keysets: numbered root keys, one of them primary, each enabled, disabled or destroyed.

The vocabulary is Tink's. New records are written under the primary version; every enabled version is read.
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
    """Opens and searches; encrypts when it is the primary."""
    DISABLED = "disabled"
    """Opens and searches nothing until enabled again; records under it can be replaced and deleted."""
    DESTROYED = "destroyed"
    """Its root is gone: what it sealed is unreadable for good."""


@dataclass(frozen=True)
class KeyVersion:
    """One numbered root key. The root never shows in a repr."""

    version: int
    state: KeyState
    created: str
    root: bytes = field(default=b"", repr=False)


class Keyset:
    """Root keys by version, kept where a URI says.

    Use `Keyset.create(uri)` once and `Keyset.open(uri)` from then on; see `encvec_store.keys` for URIs.
    Every change is saved before it is used.
    """

    def __init__(self, stored: StoredKeyset, versions: list[KeyVersion], primary: int) -> None:
        self._stored = stored
        self._versions = {item.version: item for item in versions}
        self._primary = primary

    @classmethod
    def create(cls, uri: str, *, passphrase: str | bytes | None = None, wrap: str | None = None) -> Keyset:
        """Create a keyset of one fresh version.

        Args:
            uri: where; see `encvec_store.keys`.
            passphrase: for the wrapper `passphrase`; None, it is read from the environment.
            wrap: what wraps it, in place of the URI's default: `passphrase`, `none`, or a wrapper of an installed
                package, which may need to be told more, as in `name:more`. The same as `?wrap=` in the URI.

        Raises:
            KeysetError: there is one already, or it could not be written.
            UriError: the place or the wrapper is unknown.
            InputError: a passphrase is given for a keyset that would not be wrapped.
        """
        return cls._create(StoredKeyset(uri, wrap=wrap, passphrase=passphrase))

    @classmethod
    def open(cls, uri: str, *, passphrase: str | bytes | None = None, wrap: str | None = None) -> Keyset:
        """Open a keyset.

        Args:
            uri: where; see `encvec_store.keys`.
            passphrase: as in `create`. If it is given, a keyset in clear is refused.
            wrap: what must wrap it, as in `create`. None: the URI's default, or a passphrase, as the keyset says.

        Raises:
            KeysetError: it is missing, damaged or wrapped otherwise, or the passphrase is wrong.
            UriError: the place or the wrapper is unknown.
        """
        return cls._open(StoredKeyset(uri, wrap=wrap, passphrase=passphrase))

    @classmethod
    def open_or_create(cls, uri: str, *, passphrase: str | bytes | None = None, wrap: str | None = None) -> Keyset:
        """Open the keyset of a URI, or create it where there is none; parameters and errors as in `open`, `create`.

        A mistyped URI makes a second keyset, whose keys open nothing that was written before.
        """
        stored = StoredKeyset(uri, wrap=wrap, passphrase=passphrase)
        if not stored.exists():
            try:
                return cls._create(stored)
            except KeysetError:
                if not stored.exists():  # else another process was first: its keyset is the one
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
        """Where the keyset lies, and its wrapper where one was named."""
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
        """Numbers of the versions whose roots are here: the live ones, then those disabled."""
        return self.live + tuple(n for n, item in sorted(self._versions.items()) if item.state is KeyState.DISABLED)

    def root(self, version: int, *, naming: bool = False) -> bytes:
        """Return a version's root key, for `crypto` only. Raises KeyUnavailableError.

        Args:
            version: its number.
            naming: the root is to find records by name, nothing else. A disabled version does that still: an
                update or a deletion that could not find the older record would come undone once it is enabled.
        """
        item = self._versions.get(version)
        if item is None:
            raise KeyUnavailableError(f"key version {version} is not in this keyset; was it rotated elsewhere?")
        if item.state is not KeyState.ENABLED and not (naming and item.state is KeyState.DISABLED):
            raise KeyUnavailableError(f"key version {version} is {item.state.value}")
        return item.root

    def rotate(self) -> int:
        """Add a fresh version and make it the primary; returns its number. Older ones still read."""
        version = max(self._versions) + 1
        self._change(lambda versions: versions.__setitem__(version, _fresh(version)), primary=version)
        return version

    def enable(self, version: int) -> None:
        """Let a disabled version work again."""
        self._set_state(version, KeyState.ENABLED)

    def disable(self, version: int) -> None:
        """Stop a version from opening anything, reversibly. The primary cannot be disabled."""
        self._set_state(version, KeyState.DISABLED)

    def destroy(self, version: int) -> None:
        """Erase a version's root: what it sealed is unreadable for good. The primary cannot be destroyed.

        A copy of the keyset made earlier (a backup of the key file) still holds the root.
        """
        self._set_state(version, KeyState.DESTROYED)

    def export(self, *, unsafe_cleartext: bool = False) -> str:
        """Return the unwrapped keyset, as an `env:` variable holds it. Whoever sees it owns all data.

        Args:
            unsafe_cleartext: must be True; the word is there to be found by a search of the code.
        """
        if unsafe_cleartext is not True:
            raise KeysetError("export gives the keys away in clear: say unsafe_cleartext=True if you mean it")
        return base64.b64encode(self._document()).decode()

    def _set_state(self, version: int, state: KeyState) -> None:
        item = self._versions.get(version)
        if item is None:
            raise KeyUnavailableError(f"key version {version} is not in this keyset")
        if version == self._primary and state is not KeyState.ENABLED:
            raise KeysetError(f"key version {version} is the primary: rotate first")
        if item.state is KeyState.DESTROYED and state is not KeyState.DESTROYED:
            raise KeyUnavailableError(f"key version {version} is destroyed; that cannot be undone")
        root = b"" if state is KeyState.DESTROYED else item.root
        self._change(lambda versions: versions.__setitem__(version, replace(item, state=state, root=root)))

    def _change(self, edit: Callable[[dict[int, KeyVersion]], None], primary: int | None = None) -> None:
        """Save the changed keyset, and only then take it over: nobody encrypts under a key that may get lost."""
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
        raise TypeError("a Keyset is not pickled: open it by its URI where it is needed")


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


def _whole(value: object) -> int:
    if type(value) is not int:  # int() would round 1.5 and fail on Infinity, which JSON readers let pass
        raise TypeError
    return value


def _parse(document: bytes) -> tuple[list[KeyVersion], int]:
    try:
        fields = json.loads(document)
        if fields["format"] != FORMAT:
            raise ValueError
        versions = [
            KeyVersion(
                _whole(item["version"]),
                KeyState(item["state"]),
                str(item["created"]),
                base64.b64decode(item["root"], validate=True),
            )
            for item in fields["versions"]
        ]
        primary = _whole(fields["primary"])
        by_number = {item.version: item for item in versions}
        if by_number[primary].state is not KeyState.ENABLED or len(by_number) != len(versions):
            raise ValueError
        for item in versions:
            if len(item.root) != (0 if item.state is KeyState.DESTROYED else 32) or not 0 < item.version < 2**32:
                raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeysetError("this is no keyset of a known format, or it is damaged") from None
    return versions, primary
