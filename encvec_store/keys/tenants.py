"""Tenants with a key of their own, which can be destroyed for one tenant."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace

from ..data.ids import check_name
from ..errors import InputError, KeysetError, TenantErasedError, UriError
from .document import Document, TenantKey, fresh, now
from .held import REVOKED, HeldKeys
from .lifetime import KeyHolder
from .protocol import Header
from .registry import make_wrapper

__all__ = ["Tenants"]


class Tenants:
    """The tenants of a keyset that have a key of their own: `keyset.tenants`.

    The key of a tenant is a random secret that lies in the keyset, and nowhere else. All keys of the tenant's
    collections depend on it. Iterating gives the tenants, also those that were erased.
    """

    def __init__(self, held: HeldKeys) -> None:
        self._held = held

    def __iter__(self) -> Iterator[TenantKey]:
        """Iterate over the tenants by name, without their keys."""
        return iter([item for _, item in sorted(self._held.bare.tenants.items())])

    def __len__(self) -> int:
        return len(self._held.bare.tenants)

    def get(self, name: str) -> TenantKey | None:
        """Return what is known of a tenant, without its key; None if it never had one of its own."""
        return self._held.bare.tenants.get(name)

    @property
    def seconds(self) -> float:
        """How long another process may go on reading a tenant that was erased."""
        return self._held.seconds

    def add(self, name: str, *, wrap: str | None = None, rotate: bool = True) -> TenantKey:
        """Give a tenant a key of its own. `Store.add_tenant` is the safe way: it knows whether the tenant has data.

        Args:
            name: 1 to 255 bytes.
            wrap: the tenant's own key in a key service, such as `awskms:alias/acme`: its secret is wrapped by that key.
                If None, the secret lies in the keyset.
            rotate: also make a new key version, from which on the tenant's key is used. Data under older versions is
                read as before, until it is sealed anew. False if nothing was ever written for the tenant.

        Raises:
            InputError: the tenant has a key of its own.
            KeysetError: the keyset cannot be written, or lies beside the data and no wrapper was named.
            KeyServiceError: the service did not wrap the secret.
            UriError: the wrapper is unknown, or no key service.
        """
        name = check_name("tenant", name, 1)
        self._check_place(wrap)
        secret, header = (os.urandom(32), {}) if wrap is None else _wrapped(wrap)

        def edit(document: Document) -> Document:
            before = document.tenants.get(name)
            if before is not None and not before.erased:
                raise InputError(f"tenant {name!r} has a key of its own already")
            primary, versions = document.primary, dict(document.versions)
            if rotate:
                primary = max(versions) + 1
                versions[primary] = fresh(primary)
            life = 1 if before is None else before.life + 1
            more = {"secret": secret} if wrap is None else {"wrap": wrap, "header": header}
            item = TenantKey(name, now(), life, primary if rotate else 1, **more)
            return Document(versions, primary, {**document.tenants, name: item})

        self._held.change_newest(edit)
        return self._held.bare.tenants[name]

    def erase(self, name: str) -> TenantKey:
        """Destroy the key of a tenant: nothing of it can ever be read again. A second call does nothing.

        `Store.erase_tenant` does this, and deletes what is stored of the tenant. Earlier copies of the keyset still
        hold the key, unless the tenant's own key in a key service wraps it and is destroyed there.

        Raises:
            InputError: the tenant has no key of its own.
            KeysetError: the keyset cannot be written.
        """

        def edit(document: Document) -> Document:
            item = document.tenants.get(name)
            if item is None:
                raise InputError(f"tenant {name!r} has no key of its own that could be destroyed")
            gone = replace(item, erased=item.erased or now(), secret=b"", wrap="", header={})
            return replace(document, tenants={**document.tenants, name: gone})

        self._held.look()
        known = self.get(name)
        if known is None or not known.erased:
            self._held.change_newest(edit)
        return self._held.bare.tenants[name]

    def look(self) -> None:
        """Read the keyset again, if another process changed it. Raises KeysetError."""
        self._held.look()

    # for `sealing` only

    def key(self, name: str) -> TenantKey | None:
        """Return what is known of a tenant that may be read; None if it has no key of its own.

        Raises:
            TenantErasedError: it was erased.
        """
        self._held.look_if_due()
        found = self._held.bare.tenants.get(name)
        if found is not None and found.erased:
            raise TenantErasedError(
                f"tenant {name!r} was erased at {found.erased}: what was stored of it can never be read again. For a"
                " new tenant of this name, call add_tenant"
            )
        return found

    def secret(self, name: str) -> bytes:
        """Return the secret of a tenant, for `sealing` only. Raises KeysetError, TenantErasedError."""
        self.key(name)
        try:
            return self._held.secrets.secret(self._held.opened().tenants[name])
        except REVOKED:
            self._held.secrets.drop([name])
            raise

    def watch(self, name: str, holder: KeyHolder, *, content: bool = False) -> None:
        """Have `holder.forget()` called when the tenant is erased; unless it holds content, also when its keys end."""
        self._held.secrets.watch(name, holder, content=content)

    def _check_place(self, wrap: str | None) -> None:
        stored = self._held.stored
        if not stored.lasting and not stored.uri.startswith("memory:"):
            raise KeysetError(
                f"{stored.uri} cannot be written for good, so a tenant's key would be lost: use a keyset in file:,"
                " keyring: or store:"
            )
        if stored.beside_data and wrap is None:
            raise KeysetError(
                f"{stored.uri} lies beside the data: every backup of the store has the tenant's key, and would undo its"
                " erasure. Name a key of the tenant in a key service, as wrap='awskms:alias/acme', or use another place"
            )


def _wrapped(wrap: str) -> tuple[bytes, Header]:
    """Return a new secret of a wrapper, and the header by which it is found again."""
    wrapper = make_wrapper(wrap, None)
    if wrapper is None or not getattr(wrapper, "service", False):
        raise UriError(f"a tenant's key must be wrapped by a key service, such as awskms:alias/acme, got {wrap!r}")
    secret, header = wrapper.new()
    return secret, json.loads(json.dumps(header))  # as it will be read back
