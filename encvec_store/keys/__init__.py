"""Keysets on two axes: where one lies, and what wraps it.

A keyset URI names the place, and may name the wrapper:

    file:PATH    a file that only its owner may read; wrapped by a passphrase
    env:NAME     an environment variable; not wrapped, since the environment is the secret's carrier
    memory:      this process only, for tests and trials; not wrapped
    ...?wrap=W   another wrapper than these: `passphrase`, `none`, or one of an installed package

A *storage* takes bytes and gives bytes, and knows no keys. A *wrapper* finds a key, and knows no place. `stored` joins
the two; `registry` has both tables, which other packages extend through entry points.
"""

from __future__ import annotations

from .protocol import NONE, Header, KeysetStorage, KeyWrapper
from .registry import PASSPHRASE, STORAGES, WRAPPERS
from .stored import StoredKeyset

__all__ = ["NONE", "PASSPHRASE", "STORAGES", "WRAPPERS", "Header", "KeyWrapper", "KeysetStorage", "StoredKeyset"]
