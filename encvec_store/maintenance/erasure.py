"""Tenants with a key of their own: they are added, and erased for ever, in the keyset and in the store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from ..crypto.blobs import settings_head
from ..data.ids import check_name
from ..data.partitions import by_version
from ..errors import AuthenticationError, InputError, KeysetError
from ..keys.document import TenantKey
from ..keys.keyset import Keyset
from ..sealing.names import FAULT, listed, unsealed
from ..storage.protocol import RecordStore

__all__ = ["Erased", "TenantKeys"]

T = TypeVar("T")


@dataclass(frozen=True)
class Erased:
    """The result of `Store.erase_tenant`."""

    tenant: str
    at: str
    """When its key was destroyed."""
    collections: int
    """Collections that this call deleted."""
    seconds: float
    """How long other processes may go on reading what they have open, at most."""
    remains: str
    """Where the key may still lie, and what to do about that."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


class TenantKeys:
    """What a store can do to a tenant as a whole, and to names."""

    _keyset: Keyset
    _records: RecordStore
    _erasable: bool

    def drop(self, name: str, *, tenant: str = "") -> bool:
        """Delete a collection and all its records. Returns False if it does not exist."""
        raise NotImplementedError

    def _own_key(self, tenant: str) -> TenantKey | None:
        """Return the key of a tenant that gets a new collection; None if it has none of its own.

        The keyset is read again, since another process may have added the tenant.

        Raises:
            TenantErasedError: it was erased.
            KeysetError: the keyset cannot be read or written.
        """
        if not tenant:
            return None
        tenants = self._keyset.tenants
        try:
            tenants.look()
        except KeysetError:
            if self._erasable or len(tenants):  # else nobody uses such keys: work goes on without the file, as before
                raise
        found = tenants.key(tenant)
        if found is None and self._erasable and not self._records.collections(tenant):
            try:
                return tenants.add(tenant, rotate=False)
            except InputError:  # another process was first
                found = tenants.key(tenant)
        return found

    def _by_newest(self, tenant: str, work: Callable[[], T]) -> T:
        """Open a collection; again if another process has given its tenant a key that was not known here."""
        tenants = self._keyset.tenants
        before = tenants.get(tenant)
        try:
            return work()
        except AuthenticationError:
            with suppress(KeysetError):
                tenants.look()
            if tenants.get(tenant) == before:
                raise
        return work()

    def verify_names(self, tenant: str | None = None) -> tuple[list[tuple[str, str]], list[str]]:
        """Check the names of all collections, or of one tenant's; only sealed ones can be wrong.

        Returns (tenant, name) of those that are right, sorted, and a line for each other one. `collections` raises
        AuthenticationError if there is any. Who knows its name opens such a collection as ever, and can export it.
        """
        found = listed(self._records, None if tenant is None else check_name("tenant", tenant, 0))
        wrong = [f"collection with the token {tokens[1]}: {FAULT}" for tokens, place in found.items() if place is None]
        return [place for place in found.values() if place is not None], wrong

    def drop_tenant(self, tenant: str) -> int:
        """Delete all collections of a tenant. Returns how many were deleted.

        Each is deleted in its own transaction. If this is interrupted, call it again for the rest.
        """
        tenant = check_name("tenant", tenant, 0)
        return sum(
            unsealed(self._records).drop(*tokens) if place is None else self.drop(place[1], tenant=tenant)
            for tokens, place in listed(self._records, tenant).items()
        )

    def add_tenant(self, tenant: str, *, wrap: str | None = None, rotate: bool = False) -> None:
        """Give a tenant a key of its own, so that `erase_tenant` can destroy it. Best before its first collection.

        Args:
            tenant: its name, 1 to 255 bytes. After an erasure, a new tenant may have the name of the old one.
            wrap: the tenant's own key in a key service, such as "awskms:alias/acme"; by default the key lies in the
                keyset. The service is asked when the tenant is used first, and after each lifetime of keys.
            rotate: the tenant may have collections already: a new key version is made, from which on its key is used.
                Then seal its collections anew: `rekey(tenant=...)`.

        Raises:
            InputError: it has a key of its own already, or it has collections and `rotate` is False.
            KeysetError: the keyset cannot be written, or lies beside the data and `wrap` is None.
            KeyServiceError: the service did not wrap the key.
        """
        _add(self._keyset, self._records, check_name("tenant", tenant, 1), wrap, rotate=rotate)

    def erase_tenant(self, tenant: str) -> Erased:
        """Destroy the key of a tenant, and delete all its collections. Nothing of it can ever be read again.

        That holds for files, logs, free pages and backups of the store. What may be left is in the report: copies of
        the keyset. Names of the tenant and its collections are not under its key: old copies of the store still have
        them, in clear or sealed. If this is interrupted, call it again for the rest. Other processes raise
        TenantErasedError, at the latest after `Erased.seconds`, and drop from memory what they have opened.

        Raises:
            InputError: the tenant has no key of its own, or records that do not depend on it yet.
            KeysetError: the keyset cannot be written. Nothing was erased.
        """
        return _erase(self._keyset, self._records, check_name("tenant", tenant, 1), self.drop_tenant)


def _add(keyset: Keyset, store: RecordStore, tenant: str, wrap: str | None, *, rotate: bool) -> None:
    keyset.tenants.look()
    known, there = keyset.tenants.get(tenant), store.collections(tenant)
    if known is not None and known.erased and there:
        raise InputError(f"not all is deleted of the tenant {tenant!r} that was erased: call erase_tenant again first")
    if there and not rotate:
        raise InputError(
            f"tenant {tenant!r} has {len(there):,} collections under the keys of the keyset already: pass rotate=True,"
            f" which makes a new key version, and seal them anew by rekey(tenant={tenant!r})"
        )
    keyset.tenants.add(tenant, wrap=wrap, rotate=bool(there))


def _erase(keyset: Keyset, store: RecordStore, tenant: str, drop: Callable[[str], int]) -> Erased:
    """Destroy the key first: killed between the two steps, nothing is left that can be read."""
    keyset.tenants.look()
    known = keyset.tenants.get(tenant)
    if known is None:
        raise InputError(
            f"tenant {tenant!r} has no key of its own, so it cannot be erased: whoever has the keyset and a backup of"
            " the store would still read it. drop_tenant deletes its collections. To make it erasable, call"
            f" add_tenant({tenant!r}, rotate=True), rekey(tenant={tenant!r}), and destroy the older key versions once"
            " nothing else needs them"
        )
    if not known.erased:
        _check_moved(store, known)
    gone = keyset.tenants.erase(tenant)
    return Erased(tenant, gone.erased, drop(tenant), keyset.tenants.seconds, _remains(keyset, known))


def _check_moved(store: RecordStore, key: TenantKey) -> None:
    """Refuse a tenant with records that do not depend on its key yet."""
    if key.since == 1:
        return
    for tokens, place in listed(store, key.name).items():
        records = unsealed(store).open(*tokens)
        if records is None:
            continue
        versions = {settings_head(records.config())[0], *by_version(records.partitions())}
        if min(versions) < key.since:
            which, cure = f"collection {(place or tokens)[1]!r}", f"call rekey(tenant={key.name!r}) first"
            if place is None:
                which, cure = f"the {which} (a token)", f"rekey it by its name, or call drop_tenant({key.name!r}) first"
            raise InputError(
                f"{which} of tenant {key.name!r} has records under key version {min(versions)}, which do not depend on"
                f" the tenant's key: {cure}"
            )


def _remains(keyset: Keyset, key: TenantKey) -> str:
    """Say where the key of a tenant may still lie."""
    if key.wrap:
        told = [f"destroy {key.wrap} in its key service, too: copies of the keyset from before hold what it wraps"]
    else:
        told = [f"copies of the keyset from before ({keyset.uri}) still hold the tenant's key: delete them"]
    older = [item.version for item in keyset.versions if item.version < key.since and item.version in keyset.held]
    if older:
        numbers = ", ".join(map(str, older))
        told.append(f"copies of the store from before the tenant had a key open with key versions {numbers}")
    return "; ".join(told)
