"""Keysets have two axes: where one is stored, and what encrypts ("wraps") it.

A keyset URI names the storage, and may name the wrapper:

    file:PATH    a file that only its owner can read; wrapped by a passphrase
    env:NAME     an environment variable; not wrapped, because the environment itself is secret
    keyring:NAME the keyring of the operating system; not wrapped
    store:URL    the store itself, its database or folder; a wrapper must be named
    memory:      this process only, for tests and trials; not wrapped
    ...?wrap=W   another wrapper: `passphrase`, `none`, a key service, or one of an installed package

A *storage* reads and writes bytes and knows no keys. A *wrapper* finds a key and knows no storage. `stored` joins the
two. `registry` has both tables; other packages extend them through entry points.
"""

from __future__ import annotations

from .document import TenantKey
from .keyset import Keyset, KeyState, KeyVersion
from .protocol import NONE, Header, KeysetStorage, KeyWrapper
from .registry import PASSPHRASE, STORAGES, WRAPPERS
from .stored import StoredKeyset
from .tenants import Tenants
from .wrappers.service import ServiceWrapper

__all__ = [
    "NONE",
    "PASSPHRASE",
    "STORAGES",
    "WRAPPERS",
    "Header",
    "KeyState",
    "KeyVersion",
    "KeyWrapper",
    "Keyset",
    "KeysetStorage",
    "ServiceWrapper",
    "StoredKeyset",
    "TenantKey",
    "Tenants",
]
