"""Key versions, and the JSON document that holds them."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
from dataclasses import dataclass, field
from enum import StrEnum

from ..errors import KeysetError
from .stored import UNWRAPPED_FORMAT as FORMAT

__all__ = ["KeyState", "KeyVersion", "fresh", "parse", "serialised"]


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


def serialised(versions: dict[int, KeyVersion], primary: int) -> bytes:
    """Return the document, with all roots in clear."""
    items = [
        {
            "version": item.version,
            "state": item.state.value,
            "created": item.created,
            "root": base64.b64encode(item.root).decode(),
        }
        for _, item in sorted(versions.items())
    ]
    return json.dumps(
        {"format": FORMAT, "primary": primary, "versions": items}, sort_keys=True, separators=(",", ":")
    ).encode()


def fresh(version: int) -> KeyVersion:
    """Return a new version with a random root key."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return KeyVersion(version, KeyState.ENABLED, now, os.urandom(32))


def _integer(value: object) -> int:
    if type(value) is not int:  # int() would round 1.5, and fail on Infinity, which JSON readers accept
        raise TypeError
    return value


def parse(document: bytes) -> tuple[list[KeyVersion], int]:
    """Read a document: its versions and the number of the primary. Raises KeysetError."""
    try:
        fields = json.loads(document)
        if fields["format"] != FORMAT:
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
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeysetError("the keyset has an unknown format, or is damaged") from None
    return versions, primary
