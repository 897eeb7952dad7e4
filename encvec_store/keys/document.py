"""Key versions and the keys of tenants, and the JSON document that holds them."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from ..errors import KeysetError
from .protocol import Header
from .stored import TENANTS_FORMAT
from .stored import UNWRAPPED_FORMAT as FORMAT

__all__ = ["Document", "KeyState", "KeyVersion", "TenantKey", "first", "fresh", "now", "parse"]


class KeyState(StrEnum):
    """What a key version may do."""

    ENABLED = "enabled"
    """Opens and searches records, and encrypts if it is the primary."""
    DISABLED = "disabled"
    """Opens nothing until it is enabled again. Records under it can still be replaced and deleted."""
    DESTROYED = "destroyed"
    """Its root key is erased: what it sealed can never be read again."""


@dataclass(frozen=True)
class KeyVersion:
    """One numbered root key. Its repr never shows the key."""

    version: int
    state: KeyState
    created: str
    root: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class TenantKey:
    """The key of one tenant, or what is left of it after erasure. Its repr never shows the key."""

    name: str
    created: str
    life: int = 1
    """How many tenants of this name there have been."""
    since: int = 1
    """The first key version whose keys depend on it. Older versions hold what was written before the tenant had it."""
    erased: str = ""
    """When it was erased; empty if it was not."""
    wrap: str = ""
    """The wrapper that keeps the secret; empty if it lies in the keyset itself."""
    header: Header = field(default_factory=dict, repr=False)
    """By which the wrapper finds it again."""
    secret: bytes = field(default=b"", repr=False)
    """32 random bytes; empty if something wraps them, or after erasure."""


@dataclass(frozen=True)
class Document:
    """All that a keyset holds."""

    versions: Mapping[int, KeyVersion]
    primary: int
    tenants: Mapping[str, TenantKey] = field(default_factory=dict)

    def bare(self) -> Document:
        """Return the same without keys."""
        versions = {number: replace(item, root=b"") for number, item in self.versions.items()}
        tenants = {name: replace(item, secret=b"", header={}) for name, item in self.tenants.items()}
        return Document(versions, self.primary, tenants)

    def goes_back(self, seen: Document) -> bool:
        """Say whether this is an older state than one seen before, or another keyset."""
        if self.primary < seen.primary or not seen.versions.keys() <= self.versions.keys():
            return True
        destroyed = (number for number, item in seen.versions.items() if item.state is KeyState.DESTROYED)
        if any(self.versions[number].state is not KeyState.DESTROYED for number in destroyed):
            return True
        return any(_is_older(self.tenants.get(name), item) for name, item in seen.tenants.items())

    def serialised(self) -> bytes:
        """Return the JSON document, with all keys in clear. Without tenants it is as it was before there were any."""
        versions = [
            {
                "version": item.version,
                "state": item.state.value,
                "created": item.created,
                "root": base64.b64encode(item.root).decode(),
            }
            for _, item in sorted(self.versions.items())
        ]
        fields: dict[str, Any] = {"format": FORMAT, "primary": self.primary, "versions": versions}
        if self.tenants:
            fields |= {"format": TENANTS_FORMAT, "tenants": [_fields(item) for _, item in sorted(self.tenants.items())]}
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _is_older(item: TenantKey | None, seen: TenantKey) -> bool:
    return item is None or (item.life, bool(item.erased)) < (seen.life, bool(seen.erased))


def _fields(item: TenantKey) -> dict[str, Any]:
    return {**vars(item), "header": dict(item.header), "secret": base64.b64encode(item.secret).decode()}


def now() -> str:
    """Return the time as a document has it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def first() -> Document:
    """Return the document of a new keyset."""
    return Document({1: fresh(1)}, 1)


def fresh(version: int) -> KeyVersion:
    """Return a new version with a random root key."""
    return KeyVersion(version, KeyState.ENABLED, now(), os.urandom(32))


def _integer(value: object) -> int:
    if type(value) is not int:  # int() would round 1.5, and fail on Infinity, which JSON readers accept
        raise TypeError
    return value


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _tenant(fields: dict[str, Any]) -> TenantKey:
    """Read the key of a tenant. Raises ValueError, KeyError, TypeError."""
    secret, header = base64.b64decode(_text(fields["secret"]), validate=True), fields["header"]
    name, created, erased, wrap = (_text(fields[name]) for name in ("name", "created", "erased", "wrap"))
    item = TenantKey(name, created, _integer(fields["life"]), _integer(fields["since"]), erased, wrap, header, secret)
    if type(header) is not dict or not item.name or set(fields) != set(vars(item)):
        raise ValueError
    if item.life < 1 or not 0 < item.since < 2**32 or (item.erased and (item.wrap or item.header)):
        raise ValueError
    if len(secret) != (0 if item.erased or item.wrap else 32):
        raise ValueError
    return item


def parse(document: bytes) -> Document:
    """Read a document. Raises KeysetError."""
    try:
        fields = json.loads(document)
        if fields["format"] not in (FORMAT, TENANTS_FORMAT):
            raise ValueError
        versions = [
            KeyVersion(
                _integer(item["version"]),
                KeyState(item["state"]),
                str(item["created"]),
                base64.b64decode(item["root"], validate=True),
            )
            for item in fields["versions"]
        ]
        primary = _integer(fields["primary"])
        by_number = {item.version: item for item in versions}
        if by_number[primary].state is not KeyState.ENABLED or len(by_number) != len(versions):
            raise ValueError
        for item in versions:
            if len(item.root) != (0 if item.state is KeyState.DESTROYED else 32) or not 0 < item.version < 2**32:
                raise ValueError
        listed = [_tenant(item) for item in fields["tenants"]] if fields["format"] == TENANTS_FORMAT else []
        tenants = {item.name: item for item in listed}
        if len(tenants) != len(listed):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeysetError("the keyset has an unknown format, or is damaged") from None
    return Document(by_number, primary, tenants)
