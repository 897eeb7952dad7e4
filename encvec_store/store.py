"""Connect to a store and open its collections."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from types import TracebackType
from typing import Any, NoReturn

from .collection import Collection, Embed, Shared, embedder
from .crypto.envelope import envelope_size
from .data.ids import check_name
from .data.precision import Precision
from .engine.candidates import Reading, Sources
from .engine.session import Session
from .errors import AuthenticationError, CollectionNotFoundError, InputError, StoreClosedError
from .indexes.protocol import Connection
from .indexes.registry import open_connection
from .keys.keyset import Keyset
from .maintenance.erasure import TenantKeys
from .maintenance.lifecycle import MODES, Lifecycle
from .maintenance.notices import tell_of_ranking, tell_of_unused
from .maintenance.rekey import Rekeyed
from .maintenance.rewrite import Progress, reseal
from .openings import Openings, shared_index
from .runtime.concurrency import Lock
from .runtime.urls import as_url, opening_options
from .schemes.device import device
from .sealed_index import BUDGET, Indexes
from .sealing.config import CollectionConfig, check_oversample
from .sealing.keyring import Keyring
from .sealing.names import named
from .sealing.roots import TenantRoots
from .storage.protocol import CollectionSpec, Records

__all__ = ["Store", "connect", "open_store"]


def connect(
    url: str | os.PathLike[str],
    *,
    keyset: Keyset,
    maintenance: str = "background",
    replica: bool = False,
    index_memory: int | None = None,
    reads: str | None = None,
    threat: str | None = None,
    cache: str | PathLike[str] | None = None,
    names: str | None = None,
    erasable: bool = False,
    **options: Any,
) -> Store:
    """Open a store.

    Args:
        url: `memory:`, `faiss:///path/to/folder` or `postgresql://user@host/database`. A `Path`, or a string that
            begins with "/", "./" or "~", names the folder of a `faiss:` store.
        keyset: the keys; see `Keyset.create` and `Keyset.open`.
        maintenance: who does the work that a growing collection needs (`Collection.maintain`): "background", a thread;
            "inline", the write that makes it due; "manual", nobody until `maintain` is called.
        replica: True if the store is a read-only copy that may lag behind its original. Settings older than those
            seen before are then not taken for an attack: the store waits for newer ones.
        index_memory: bytes that the indexes of all sealed collections of this process may take together; by default a
            quarter of the memory. An index that does not fit gets shorter codes, and those unused for the longest
            time are dropped.
        reads: which rows of sealed collections a search reads, as a server that watches sees: "candidates", or only
            the "hits" that it returns, for which the index keeps vectors in half precision in memory.
        threat: "watching-server" if searches of sealed collections must not show a server that watches what they look
            for: sealed records are fetched once, in a fixed order, and kept sealed in memory, as far as `index_memory`
            allows. Otherwise whole buckets of random rows are read, each once, and kept in `cache`.
        cache: a local folder for sealed buckets that were read. Keep it: without it they are read again.
        names: "sealed" to begin a store in which keyed tokens stand for the names of tenants and collections: only who
            has the keyset can list them. By default a store stays as it was begun, and a new one keeps names in clear.
        erasable: give each new tenant a key of its own, so that `erase_tenant` can destroy it; see `add_tenant`.
        options: options of the store. They, and `index_memory`, `reads`, `threat`, `cache` and `names`, can also stand
            in the URL (`?reads=hits`).

    Raises:
        UriError: unknown kind of store or option.
        ConfigMismatchError: the store was begun with names in the other way.
        AuthenticationError: its names are sealed under other keys.
        StoreUnreachableError: it could not be opened.
    """
    how: dict[str, Any] = {"maintenance": maintenance, "replica": replica, "index_memory": index_memory}
    how |= {"reads": reads, "threat": threat, "cache": cache, "names": names, "erasable": erasable}
    return open_store(url, keyset, options, **how)


def open_store(
    url: str | os.PathLike[str],
    keyset: Keyset,
    options: Mapping[str, Any],
    *,
    maintenance: str = "background",
    replica: bool = False,
    erasable: bool = False,
    in_loop: bool = False,
    **given: Any,
) -> Store:
    """Do what `connect` does; with `in_loop`, the store waits in an event loop."""
    if not isinstance(keyset, Keyset):
        raise InputError(
            f"keyset must be a Keyset, got {type(keyset).__name__}: use Keyset.open(uri) or Keyset.create(uri)"
        )
    if maintenance not in MODES:
        raise InputError(f"maintenance must be one of {', '.join(MODES)}, got {maintenance!r}")
    place, written = opening_options(as_url(url))
    dials = {**written, **{name: value for name, value in given.items() if value is not None}}
    memory, names = dials.pop("index_memory", None), dials.pop("names", None)
    reading = Reading(**dials)
    if memory is not None:
        BUDGET.set(memory)
    connection = open_connection(place, in_loop=in_loop, **options)
    how: dict[str, Any] = {"maintenance": maintenance, "replica": replica, "erasable": erasable}
    try:
        return Store(connection, keyset, reading=reading, names=names, **how)
    except BaseException:
        connection.store.close()
        raise


class Store(TenantKeys):
    """The collections at one URL, under one keyset. Close it, or use it in a `with` statement."""

    def __init__(
        self,
        connection: Connection,
        keyset: Keyset,
        *,
        maintenance: str = "background",
        replica: bool = False,
        erasable: bool = False,
        reading: Reading | None = None,
        names: str | None = None,
    ) -> None:
        self._connection = connection
        self._records = named(connection.store, keyset, names)
        self._keyset = keyset
        self._maintenance = maintenance
        self._replica = replica
        self._erasable = erasable
        self._reading = reading or Reading()
        self._openings = Openings()
        """Opened twice, a collection shares keys, settings and index."""
        self._lock = Lock()
        self._closed = False

    @property
    def url(self) -> str:
        """The URL of the store."""
        return self._records.url

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
        embed: Embed | None = None,
        embed_query: Embed | None = None,
        model: str | None = None,
    ) -> Collection:
        """Open a collection. If it does not exist and `dim` is given, create it.

        Args:
            name: 1 to 255 bytes.
            dim: the number of coordinates of a vector; needed to create.
            metric: "cosine" (default), "l2" or "ip".
            scheme: "sealed" (default): the search runs in this process, and the store ranks nothing. "sketch" or "sap":
                the store ranks encrypted vectors, which gives more away (docs/threat-model.md). Or a mapping with
                parameters, such as {"name": "sketch", "beta": 5}. Until it has 5,000 vectors, a sketch is sealed too.
            tenant: the owner. Each tenant has its own keys. To be able to destroy them, see `add_tenant`.
            fields: the policy of each field that filters may name: "sealed", "blind" or "plain". None allows any
                field, sealed.
            max_norm: for l2 and ip, the largest length of a vector; by default 1.25 times that of the first batch,
                and with scheme "sealed" any length is allowed.
            oversample: for "sketch" and "sap", candidates re-ranked per hit (default 10); for this opening only, if the
                collection exists. The index of a sealed collection chooses by itself.
            precision: "single" (default) keeps vectors as float32. "half" keeps them as float16, in half the space:
                they come back rounded to 11 significant bits, and scores are exact for the rounded vectors.
            embed: makes vectors of texts: takes a list of n strings, and returns (n, dim) numbers, or an awaitable of
                these. It is for this opening only. Then `upsert` takes texts, and `search` takes words.
            embed_query: the same for queries, if the model tells them from documents; by default `embed`.
            model: the name of the model that makes the vectors; needed with embed. It is kept with the collection, if
                it is new, or by the first write of an opening that names one.

        Raises:
            CollectionNotFoundError: it does not exist, and no dim was given.
            ConfigMismatchError: it exists with other settings, or with vectors of another model.
            AuthenticationError: it was written under other keys, or altered.
            TenantErasedError: the tenant was erased.
        """
        name, tenant = check_name("collection name", name, 1), check_name("tenant", tenant, 0)
        given: dict[str, Any] = {
            "metric_name": metric,
            "scheme_spec": scheme,
            "fields": fields,
            "max_norm": max_norm,
            "oversample": oversample,
            "precision_name": precision,
            "model": (made := embedder(embed, embed_query, model)).model,
        }
        shared, opened_with = self._open(tenant, name, dim, given)
        return Collection(shared, opened_with, made)

    def _open(self, tenant: str, name: str, dim: int | None, given: dict[str, Any]) -> tuple[Shared, int | None]:
        """Return what all openings of a collection share, and the oversample of this opening."""
        oversample = given["oversample"]
        self._keyset.tenants.key(tenant)  # it may have been erased
        shared = self._known(tenant, name)
        if shared is None:
            with self._lock:
                shared = self._known(tenant, name)
                if shared is None:
                    created, shared = self._by_newest(tenant, lambda: self._opened(tenant, name, dim, given))
                    if created:
                        oversample = None
                    shared = self._openings.add((tenant, name), shared)
        shared.session.config.check_same(dim=dim, **given)
        tell_of_unused(shared.session.config, given, self._connection.ranked_options)
        reseal(shared.session)
        self._openings.close_unused()
        return shared, None if oversample is None else check_oversample(oversample)

    def _known(self, tenant: str, name: str) -> Shared | None:
        """Return a collection that is open already, with current settings; None if it is not open."""
        if self._closed:
            raise StoreClosedError("the store is closed")
        shared = self._openings.get((tenant, name))
        if shared is None:
            return None
        try:
            shared.session.refresh()
        except CollectionNotFoundError:  # another process dropped it, and perhaps created it again
            self._forget(tenant, name)
            return None
        return shared

    def _opened(self, tenant: str, name: str, dim: int | None, given: dict[str, Any]) -> tuple[bool, Shared]:
        """Open or create a collection in the record store. Returns whether it was created, and the collection."""
        at, keyring, roots = device(self._connection.device), None, TenantRoots(self._keyset, tenant)
        records = self._records.open(tenant, name)
        created = records is None
        if records is None:
            if dim is None:
                owner = f" of tenant {tenant!r}" if tenant else ""
                raise CollectionNotFoundError(f"no collection {name!r}{owner}; give dim=... to create it")
            config = CollectionConfig.build(dim=dim, **given)
            key = self._own_key(tenant)
            keyring = Keyring(roots, tenant, name, config.incarnation, at)
            half = config.precision is Precision.HALF
            size = envelope_size(config.dim, config.precision)
            spec = CollectionSpec(tenant, name, config.index_dim, size, half=half, ranked=config.ranked)
            records = self._records.create(spec, keyring.seal_config(config))
            if self._own_key(tenant) != key and keyring.is_of(records.config()):
                self._records.drop(tenant, name)  # another process gave the tenant a key just now: make it under that
                return self._opened(tenant, name, dim, given)
            tell_of_ranking(config.scheme)
        sealed = records.config()
        if keyring is None or not keyring.is_of(sealed):  # another process may have created it first
            keyring = Keyring.of_settings(sealed, roots, tenant, name, at)
        session = self._session_of(records, keyring)
        if not session.config.index_dim:
            session.index.forget()  # files of an earlier scheme, if its change was interrupted
        indexes = Indexes(session, lambda config: shared_index(session, config, self._connection))
        sources = Sources(session, indexes, self._reading)
        lifecycle = Lifecycle(session, indexes, self._maintenance)
        return created, Shared(session, sources, lifecycle, self._records)

    def _session_of(self, records: Records, keyring: Keyring) -> Session:
        spec = records.spec
        try:
            return Session(records, self._connection.index(records), keyring, replica=self._replica)
        except AuthenticationError:  # perhaps the scheme was changed while we read: then the number of coordinates was
            again = self._records.open(*spec.place)
            if again is None or again.spec.index_dim == spec.index_dim:
                raise
        return Session(again, self._connection.index(again), keyring, replica=self._replica)

    def _forget(self, tenant: str, name: str) -> None:
        """Release a collection that was dropped."""
        shared = self._openings.pop((tenant, name))
        if shared is not None:
            shared.lifecycle.drop()
            shared.session.index.remove()

    def collections(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """List the collections as (tenant, name), of all tenants or of one.

        Raises:
            InputError: row-level security is on, so PostgreSQL shows one tenant at a time, and none was given.
            AuthenticationError: names are sealed, and one of them was altered.
        """
        return self._records.collections(None if tenant is None else check_name("tenant", tenant, 0))

    def rekey(self, *, tenant: str | None = None, progress: Progress | None = None) -> list[Rekeyed]:
        """Seal all collections anew, of all tenants or of one, under the primary key version: see `Collection.rekey`.

        Args:
            tenant: only the collections of this tenant.
            progress: called after each page, with numbers of the collection that it belongs to.
        """
        return [
            self.collection(name, tenant=owner).rekey(progress=progress) for owner, name in self.collections(tenant)
        ]

    def drop(self, name: str, *, tenant: str = "") -> bool:
        """Delete a collection and all its records. Returns False if it does not exist."""
        name, tenant = check_name("collection name", name, 1), check_name("tenant", tenant, 0)
        dropped = self._records.drop(tenant, name)
        self._forget(tenant, name)
        return dropped

    def close(self) -> None:
        """Save indexes and release files and connections. A second call does nothing."""
        self._closed = True
        try:
            for each in self._openings.clear():
                each.close()
        finally:
            self._records.close()

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

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Store cannot be pickled: connect where it is needed, or fork after connecting")
