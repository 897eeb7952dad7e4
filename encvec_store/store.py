"""Connect to a store and open its collections; imports collection, vault, config, backends, crypto, errors."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from .collection import Collection
from .crypto.envelope import envelope_size
from .data.precision import Precision
from .engine.session import Handle
from .engine.write import reseal
from .errors import CollectionNotFoundError, InputError
from .keys.keyset import Keyset
from .schemes.device import device
from .sealing.config import CollectionConfig, check_oversample
from .sealing.keyring import Vault
from .storage import BACKENDS, Backend, CollectionSpec, open_backend

__all__ = ["Store", "connect", "open_store"]

MAX_NAME_BYTES = 255


def connect(url: str, *, keyset: Keyset, **options: Any) -> Store:
    """Open a store.

    Args:
        url: `memory:`, `faiss:///path/to/folder` or `postgresql://user@host/database`.
        keyset: the keys; see `Keyset.create` and `Keyset.open`.
        options: the backend's own.

    Raises:
        UriError: unknown kind of store or option.
        StoreUnreachableError: it could not be opened.
    """
    return open_store(url, keyset, options)


def open_store(url: str, keyset: Keyset, options: Mapping[str, Any], table: Mapping[str, str] = BACKENDS) -> Store:
    """Do as `connect` says, with a backend of a table."""
    if not isinstance(keyset, Keyset):
        raise InputError(f"keyset is a Keyset, not {type(keyset).__name__}: use Keyset.open(uri) or Keyset.create(uri)")
    return Store(open_backend(url, table, **options), keyset)


class Store:
    """Collections behind one URL and one keyset. Close it, or use it in a `with` statement."""

    def __init__(self, backend: Backend, keyset: Keyset) -> None:
        self._backend = backend
        self._keyset = keyset

    @property
    def url(self) -> str:
        """Where the store is."""
        return self._backend.url

    @property
    def keyset(self) -> Keyset:
        """The keys in use."""
        return self._keyset

    def collection(
        self,
        name: str,
        dim: int | None = None,
        metric: str | None = None,
        scheme: str | Mapping[str, Any] | None = None,
        *,
        tenant: str = "",
        fields: Mapping[str, str] | None = None,
        max_norm: float | None = None,
        oversample: int | None = None,
        precision: str | None = None,
    ) -> Collection:
        """Open a collection, creating it where `dim` is given and there is none.

        Args:
            name: 1 to 255 bytes.
            dim: coordinates of a vector; needed to create.
            metric: cosine (default), l2 or ip.
            scheme: how index vectors are encrypted: "sketch" (default), "sap", "sealed", or a mapping with parameters,
                such as {"name": "sketch", "threat": "watching-server"}. A sketch is fitted on the collection's own
                vectors, once there are 5,000; until then they are sealed, and searched in memory.
            tenant: whose it is. Tenants have keys of their own.
            fields: policy of each field that filters may name: sealed, blind or plain. None: any field, sealed.
            max_norm: for l2 and ip, the largest length of a vector; by default 1.25 times that of the first batch.
            oversample: candidates re-ranked per hit (default 10). On an existing collection, for this opening only.
            precision: `single` (default) keeps vectors as float32. `half` keeps them as float16, in half the space:
                they come back rounded to 11 binary digits, and scores are exact for the rounded vectors.

        Raises:
            CollectionNotFoundError: there is none, and no dim was given.
            ConfigMismatchError: it exists with other settings.
            AuthenticationError: it was written under other keys, or altered.
        """
        _check_name("collection name", name, 1)
        _check_name("tenant", tenant, 0)
        given: dict[str, Any] = {
            "metric_name": metric,
            "scheme_spec": scheme,
            "fields": fields,
            "max_norm": max_norm,
            "oversample": oversample,
            "precision_name": precision,
        }
        vault = Vault(self._keyset, tenant, name, device(self._backend.device))
        found = self._backend.open(tenant, name)
        if found is None:
            if dim is None:
                owner = f" of tenant {tenant!r}" if tenant else ""
                raise CollectionNotFoundError(f"no collection {name!r}{owner}; give dim=... to create it")
            config = CollectionConfig.build(dim=dim, **given)
            size = envelope_size(config.dim, config.precision)
            spec = CollectionSpec(tenant, name, config.index_dim, size, half=config.precision is Precision.HALF)
            found, oversample = self._backend.create(spec, vault.seal_config(config)), None
        handle = Handle(found, vault, None if oversample is None else check_oversample(oversample))
        handle.config.check_same(dim=dim, **given)
        reseal(handle)
        return Collection(handle)

    def collections(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """List (tenant, name) of the collections, those of one tenant if it is given.

        Raises:
            InputError: PostgreSQL's row-level security shows one tenant at a time, and none was given.
        """
        return self._backend.collections(tenant)

    def drop(self, name: str, *, tenant: str = "") -> bool:
        """Delete a collection and all its records; False where there is none."""
        return self._backend.drop(tenant, name)

    def drop_tenant(self, tenant: str) -> int:
        """Delete all collections of a tenant; returns how many there were.

        Each goes in a transaction of its own: whatever stops this, a second call does the rest.
        """
        _check_name("tenant", tenant, 0)
        return sum(self._backend.drop(tenant, name) for _, name in self._backend.collections(tenant))

    def close(self) -> None:
        """Save indexes and release files. A second call does nothing."""
        self._backend.close()

    def __enter__(self) -> Store:
        """Enter a `with` statement."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def __repr__(self) -> str:
        return f"Store({self.url!r})"


def _check_name(what: str, value: str, least: int) -> None:
    if not isinstance(value, str):
        raise InputError(f"{what} is a string, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InputError(f"{what} cannot be encoded as UTF-8: {value!r}") from None
    if not least <= size <= MAX_NAME_BYTES or "\0" in value:
        raise InputError(f"{what} has {least} to {MAX_NAME_BYTES} bytes and no NUL, not {value!r}")
