"""Maps the scheme of a URL to a store, which is imported on first use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

from ..errors import UriError
from ..runtime import plugins
from .protocol import Connection

__all__ = ["STORES", "StoreKind", "open_connection", "waits_in_loop"]


@dataclass(frozen=True)
class StoreKind:
    """How stores of one URL scheme are opened."""

    open: str
    """`module:callable`, called as callable(url, **options) -> `indexes.protocol.Connection`."""
    open_in_loop: str | None = None
    """The same, for stores that wait in the event loop of async callers. None: async callers use threads."""


_POSTGRES = StoreKind("encvec_store.indexes.pgvector:connect", "encvec_store.indexes.pgvector:connect_in_loop")

STORES: dict[str, StoreKind] = {
    "memory": StoreKind("encvec_store.indexes.exact:connect"),
    "faiss": StoreKind("encvec_store.indexes.faiss:connect"),
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
    "postgresql+psycopg": _POSTGRES,
}
"""Built-in stores. Other packages add stores through entry points of the group `encvec_store.stores`."""


def open_connection(url: str, *, in_loop: bool = False, **options: Any) -> Connection:
    """Open the store that a URL names.

    Args:
        url: the scheme, and a rest that the store reads.
        in_loop: the caller runs in `concurrency.spawn`, and the store waits in the event loop; see `waits_in_loop`.
        options: the options of the store.

    Raises:
        UriError: no store has this scheme.
        PluginError: the store comes from another package, which cannot be loaded.
        StoreUnreachableError: the store could not be opened.
    """
    kind, plugin = _find(url)
    path = kind.open_in_loop if in_loop else kind.open
    if path is None:  # a store that blocks would stop the event loop
        raise UriError(f"stores of {_scheme(url)}: do not wait in the event loop: call them in a thread")
    connect = plugins.resolve(path) if plugin is None else plugin.resolve(path)
    return cast(Connection, connect(url, **options))


def waits_in_loop(url: str) -> bool:
    """Say whether async callers open this store with `in_loop`. Raises UriError, PluginError."""
    return _find(url)[0].open_in_loop is not None


def _find(url: str) -> tuple[StoreKind, plugins.Plugin | None]:
    scheme = _scheme(url)
    if scheme in STORES:  # looked up first, so that no package can take the name and no metadata is read
        return STORES[scheme], None
    others = plugins.find(plugins.STORES, STORES)
    if scheme in others:
        return others[scheme].load(StoreKind), others[scheme]
    if STORES.get(scheme.lower().partition("+")[0]) is _POSTGRES:  # it says which drivers it takes
        return _POSTGRES, None
    known = ", ".join(f"{name}:" for name in [*STORES, *others])
    given = f"{scheme}:" if scheme else "another string" if isinstance(url, str) else type(url).__name__
    raise UriError(f"a store URL must begin with one of {known}; got {given}. A path must begin with ./ or /")


def _scheme(url: str) -> str:
    """Return the scheme, or "" if there is none: the string may be a password in the wrong place."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", url) if isinstance(url, str) else None
    return found[1] if found else ""
