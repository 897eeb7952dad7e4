"""Root keys of a tenant: those of the keyset or, if the tenant has a key of its own, keys derived from both."""

from __future__ import annotations

from typing import Protocol

from ..crypto.labels import tenant_root
from ..keys.keyset import Keyset, KeyVersion
from ..keys.lifetime import KeyHolder
from ..keys.tenants import Tenants

__all__ = ["Roots", "TenantRoots"]


class Roots(Protocol):
    """Root keys by version: a `Keyset`, or a part of one."""

    @property
    def primary(self) -> int:
        """The version that encrypts."""
        ...

    def watch(self, holder: KeyHolder) -> None:
        """Have `holder.forget()` called whenever root keys are dropped from memory."""
        ...

    @property
    def live(self) -> tuple[int, ...]:
        """The enabled versions, the primary first."""
        ...

    @property
    def held(self) -> tuple[int, ...]:
        """The versions that still have a root key."""
        ...

    @property
    def versions(self) -> tuple[KeyVersion, ...]:
        """All versions, without their roots."""
        ...

    def root(self, version: int, *, naming: bool = False) -> bytes:
        """Return a version's root. Raises KeyUnavailableError."""
        ...

    def until_erased(self, holder: KeyHolder) -> None:
        """Have `holder.forget()` called when the tenant is erased: it holds what was opened."""
        ...


class TenantRoots:
    """The keyset, as the collections of one tenant see it: every key of theirs derives from these roots.

    Once the tenant is erased, each use raises TenantErasedError. A tenant without a key of its own, and the empty
    tenant, get the roots of the keyset.
    """

    def __init__(self, keyset: Keyset, tenant: str) -> None:
        self._keyset = keyset
        self._tenants: Tenants = keyset.tenants
        self._tenant = tenant
        self._known: dict[tuple[int, int], bytes] = {}
        """By life of the tenant and key version."""
        if tenant:
            self._tenants.watch(tenant, self)
            keyset.watch(self)

    @property
    def primary(self) -> int:
        """The version that encrypts. Raises TenantErasedError."""
        self._tenants.key(self._tenant)
        return self._keyset.primary

    @property
    def live(self) -> tuple[int, ...]:
        """The enabled versions, the primary first. Raises TenantErasedError."""
        self._tenants.key(self._tenant)
        return self._keyset.live

    @property
    def held(self) -> tuple[int, ...]:
        """The versions that still have a root key."""
        return self._keyset.held

    @property
    def versions(self) -> tuple[KeyVersion, ...]:
        """All versions, without their roots."""
        return self._keyset.versions

    def watch(self, holder: KeyHolder) -> None:
        """Have `holder.forget()` called whenever root keys are dropped from memory, or the tenant is erased."""
        self._keyset.watch(holder)
        if self._tenant:
            self._tenants.watch(self._tenant, holder)

    def until_erased(self, holder: KeyHolder) -> None:
        """Have `holder.forget()` called when the tenant is erased: it holds what was opened."""
        if self._tenant:
            self._tenants.watch(self._tenant, holder, content=True)

    def forget(self) -> None:
        """Drop the derived roots."""
        self._known.clear()

    def root(self, version: int, *, naming: bool = False) -> bytes:
        """Return a version's root. Raises KeyUnavailableError, TenantErasedError."""
        key = self._tenants.key(self._tenant)
        root = self._keyset.root(version, naming=naming)
        if key is None or version < key.since:
            return root
        found = self._known.get((key.life, version))
        if found is None:
            found = tenant_root(root, self._tenants.secret(self._tenant), self._tenant)
            self._known[key.life, version] = found
        return found
