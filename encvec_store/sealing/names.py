"""A record store whose names are tokens, seen by a key holder: with names."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from ..crypto.names import NameCipher, name_key_version, open_name_key, seal_name_key
from ..errors import AuthenticationError, ConfigMismatchError, InputError, KeyUnavailableError, StoreError
from ..keys.keyset import Keyset
from ..runtime.concurrency import Lock
from ..storage.names import NAME, KeepsNames
from ..storage.protocol import CollectionSpec, Records, RecordStore

__all__ = ["FAULT", "NAMES", "SealedNames", "carry", "fault", "listed", "named", "unsealed"]

NAMES = ("clear", "sealed")
FAULT = (
    "its sealed name could not be authenticated: it is missing, was altered, or is that of another collection, and"
    " collections cannot be listed. Export this one by its name, drop it, and import it again"
)
Place = tuple[str, str]
"""The tenant and the name of a collection, or the tokens that stand for them."""
_KEY = 32
log = logging.getLogger("encvec_store")


def named(store: RecordStore, keyset: Keyset, names: str | None) -> RecordStore:
    """Return a record store as a key holder sees it.

    Args:
        store: the record store.
        keyset: its keys.
        names: "sealed" to have a store that has no collections yet keep names sealed from now on; "clear" to refuse a
            store that does; None for whatever it does.

    Raises:
        InputError: `names` is something else, or the store cannot keep names sealed.
        ConfigMismatchError: the store keeps names in the other way.
        AuthenticationError: its names are sealed under other keys.
    """
    if names not in (None, *NAMES):
        raise InputError(f"names must be one of {', '.join(NAMES)}, got {names!r}")
    if not isinstance(store, KeepsNames):
        if names == "sealed":
            raise InputError(f"{store.url} cannot keep names sealed: leave out names=")
        return store
    sealed = store.name_key()
    if sealed is None and names == "sealed":
        version = keyset.primary
        store.keep_name_key(seal_name_key(keyset.root(version), version, os.urandom(_KEY)))
        sealed = store.name_key()  # another process may have been quicker
    if sealed is None:
        return store
    if names == "clear":
        raise ConfigMismatchError(
            f"names in {store.url} are sealed: leave out names=; for names in clear, export the collections, and import"
            " them into another store"
        )
    return SealedNames(store, keyset, sealed)


def carry(store: RecordStore) -> None:
    """Seal the name key of a store, if it has one, under the primary key version. Raises StoreError."""
    if isinstance(store, SealedNames):
        store.carry()


def fault(store: RecordStore, records: Records) -> list[str]:
    """Describe what is wrong with the sealed name of an open collection; an empty list if it has none, or all is well.

    Whoever opens a collection by its name knows it. Listing collections is what needs the sealed one.
    """
    return store.fault(records) if isinstance(store, SealedNames) else []


def listed(store: RecordStore, tenant: str | None = None) -> dict[Place, Place | None]:
    """List (tenant, name), sorted, by what stands for it in the store; None if a sealed name is not authentic."""
    if isinstance(store, SealedNames):
        return store.listed(tenant)
    return {place: place for place in store.collections(tenant)}


def unsealed(store: RecordStore) -> RecordStore:
    """Return the record store under one whose names are sealed, which knows collections by what stands for names."""
    return store.under if isinstance(store, SealedNames) else store


class SealedNames:
    """Implements `RecordStore` over one that gets tokens in the place of names.

    The name key is found under whatever key version it is sealed, a disabled one too: names belong to the store, not
    to a key version. Under an older version than the primary it is sealed anew at the next use.

    Args:
        store: the record store; also a `RecordStore`.
        keyset: the keys.
        sealed: the sealed name key that is stored.
    """

    def __init__(self, store: KeepsNames, keyset: Keyset, sealed: bytes) -> None:
        self._store, self._keyset, self._sealed = store, keyset, sealed
        self.under = cast(RecordStore, store)
        self._held: NameCipher | None = None
        self._lock = Lock()
        self._tried = 0
        """The key version under which the name key could not be sealed: the store was read-only, perhaps."""
        keyset.watch(self)
        self.url = self.under.url
        self._names()

    def forget(self) -> None:
        """Drop the name key. The next use opens it again."""
        self._held = None

    def collections(self, tenant: str | None = None) -> list[Place]:
        """List (tenant, name), sorted. Raises AuthenticationError if a name is not what was written."""
        found = self.listed(tenant)
        readable = [place for place in found.values() if place is not None]
        if len(readable) < len(found):
            raise AuthenticationError(
                f"{len(found) - len(readable):,} of {len(found):,} names could not be authenticated in {self.url}: they"
                " were altered, or put in another's place. `encvec verify` and Store.verify_names() say which"
            )
        return readable

    def listed(self, tenant: str | None = None) -> dict[Place, Place | None]:
        """List collections by their tokens: (tenant, name), sorted; None if the name is not what was written."""
        names = self._names()
        token = None if tenant is None else names.tenant_token(tenant)
        found = {
            (owner, name): _opened(names, (owner, name), sealed) for owner, name, sealed in self._store.named(token)
        }
        return dict(sorted(found.items(), key=lambda item: (item[1] is None, item[1] or item[0])))

    def fault(self, records: Records) -> list[str]:
        """Describe what is wrong with the sealed name of a collection that was opened here."""
        tokens = records.spec.tenant, records.spec.name
        return [] if _opened(self._names(), tokens, records.blob(NAME) or b"") else [FAULT]

    def open(self, tenant: str, name: str) -> Records | None:
        """Open a collection; return None if there is none."""
        records = self.under.open(*self._names().tokens(tenant, name))
        return None if records is None else _called(records, tenant, name)

    def create(self, spec: CollectionSpec, config: bytes) -> Records:
        """Create a collection, or open it if another process has created it meanwhile."""
        names, place = self._names(), (spec.tenant, spec.name)
        tenant, name = names.tokens(*place)
        made = self._store.create(replace(spec, tenant=tenant, name=name, clear=place), config, names.seal(*place))
        return _called(made, *place)

    def drop(self, tenant: str, name: str) -> bool:
        """Delete a collection and all its records; return False if there is none."""
        return self.under.drop(*self._names().tokens(tenant, name))

    def carry(self) -> None:
        """Seal the name key under the primary key version, so that older ones can be destroyed. Raises StoreError."""
        self._tried = 0
        self._names(must=True)

    def close(self) -> None:
        """Close the store."""
        self._held = None
        self.under.close()

    def _names(self, *, must: bool = False) -> NameCipher:
        """Return the cipher of names. With `must`, raise an error if the name key cannot be sealed anew.

        Raises:
            KeyUnavailableError: the key version that it is sealed under is destroyed, or not in this keyset.
            AuthenticationError: it was sealed under other keys, or altered.
        """
        cipher = self._held
        if cipher is None or not self._usable():
            with self._lock:
                cipher = self._held = self._opened(self._held)
        primary = self._keyset.primary
        if self._version() < primary and (must or self._tried != primary):
            self._tried = primary
            with suppress(*(() if must else (StoreError,))):
                self._move(cipher, primary)
        return cipher

    def _version(self) -> int:
        return name_key_version(self._sealed)

    def _usable(self) -> bool:
        """Say whether the key version is one that we have, asking the keyset, whose lifetime may be over."""
        try:
            self._keyset.root(self._version(), naming=True)
        except KeyUnavailableError:
            return False
        return True

    def _opened(self, held: NameCipher | None) -> NameCipher:
        """Open the name key that is stored now: another process may have sealed it anew."""
        self._sealed = self._store.name_key() or b""
        try:
            root = self._keyset.root(self._version(), naming=True)
        except KeyUnavailableError as error:
            if held is not None:  # destroyed since, and nobody has sealed the name key anew
                self._move(held, self._keyset.primary)
                return held
            raise KeyUnavailableError(
                f"the names of tenants and collections in {self.url} cannot be read: {error}"
            ) from None
        key = open_name_key(root, self._sealed)
        if held is not None and held.key != key:
            raise AuthenticationError(f"the name key of {self.url} is another one since the store was opened")
        return held or NameCipher(key)

    def _move(self, cipher: NameCipher, primary: int) -> None:
        sealed = seal_name_key(self._keyset.root(primary), primary, cipher.key)
        if self._store.keep_name_key(sealed, self._sealed):
            self._sealed = sealed
        else:  # another process was quicker
            self._sealed = self._store.name_key() or b""


def _opened(names: NameCipher, tokens: Place, sealed: bytes) -> Place | None:
    try:
        return names.open(tokens, sealed)
    except AuthenticationError:
        return None


def _called(records: Any, tenant: str, name: str) -> Records:
    records.spec = replace(records.spec, clear=(tenant, name))
    return cast(Records, records)
