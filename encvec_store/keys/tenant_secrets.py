"""What is in memory for tenants with keys of their own: unwrapped secrets, and who holds what was derived or opened."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from ..errors import KeysetError
from ..runtime.forks import Mutex
from ..runtime.freeing import give_back
from .document import TenantKey
from .lifetime import KeyHolder, moment
from .registry import make_wrapper

__all__ = ["TenantSecrets"]


class TenantSecrets:
    """The secrets that wrappers of tenants gave, and all holders of a tenant's keys and opened vectors."""

    def __init__(self) -> None:
        self._unwrapped: dict[tuple[str, int], tuple[bytes, float]] = {}
        """By name and life: the secret, and when it was unwrapped."""
        self._keys: weakref.WeakKeyDictionary[KeyHolder, str] = weakref.WeakKeyDictionary()
        self._content: weakref.WeakKeyDictionary[KeyHolder, str] = weakref.WeakKeyDictionary()
        self._lock = Mutex()

    def watch(self, name: str, holder: KeyHolder, *, content: bool) -> None:
        """Have `holder.forget()` called when the tenant is erased; unless it holds content, also when its keys end."""
        with self._lock:
            (self._content if content else self._keys)[holder] = name

    def secret(self, key: TenantKey) -> bytes:
        """Return the secret of a tenant, unwrapped if that is needed. Raises KeysetError."""
        if not key.wrap:
            return key.secret
        found = self._unwrapped.get((key.name, key.life))
        if found is None:
            found = self._unwrapped[key.name, key.life] = _unwrapped(key), moment()
        return found[0]

    def forget(self) -> None:
        """Drop all unwrapped secrets."""
        self._unwrapped.clear()

    def end(self, seconds: float) -> None:
        """Drop secrets that were unwrapped so many seconds ago, and the keys derived from them."""
        old = [place for place, (_, then) in list(self._unwrapped.items()) if moment() - then >= seconds]
        for place in old:
            self._unwrapped.pop(place, None)
        self._forget({name for name, _ in old}, self._keys)

    def drop(self, names: Iterable[str]) -> None:
        """Drop all that is held for tenants: secrets, keys, and what was opened with them."""
        gone = set(names)
        for place in [place for place in list(self._unwrapped) if place[0] in gone]:
            self._unwrapped.pop(place, None)
        if self._forget(gone, self._keys, self._content):
            give_back()

    def _forget(self, names: set[str], *held: weakref.WeakKeyDictionary[KeyHolder, str]) -> bool:
        with self._lock:
            found = [holder for holders in held for holder, name in holders.items() if name in names] if names else []
        for holder in found:
            holder.forget()
        return bool(found)


def _unwrapped(key: TenantKey) -> bytes:
    wrapper = make_wrapper(key.wrap, None)
    if wrapper is None:
        raise KeysetError(f"the key of tenant {key.name!r} is malformed: nothing wraps it")
    try:
        secret = wrapper.recover(key.header)
    except KeysetError as error:
        raise type(error)(f"the key of tenant {key.name!r}: {error}") from error.__cause__
    if type(secret) is not bytes or len(secret) != 32:
        raise KeysetError("a key wrapper must return a key of 32 bytes")
    return secret
