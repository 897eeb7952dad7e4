"""The table URI scheme -> provider; imports the providers, errors."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import UriError
from .base import KeysetHome
from .env import EnvHome
from .file import FileHome
from .memory import MemoryHome

__all__ = ["PROVIDERS", "home"]

Provider = Callable[[str, str | bytes | None], KeysetHome]

PROVIDERS: dict[str, Provider] = {
    "file": FileHome,
    "env": lambda rest, _: EnvHome(rest),
    "memory": lambda rest, _: MemoryHome(rest),
}
"""URI scheme -> provider of (rest of the URI, passphrase). Add an entry to bring your own."""


def home(uri: str, passphrase: str | bytes | None = None) -> KeysetHome:
    """Find the home that a URI names. Raises UriError."""
    scheme, colon, rest = uri.partition(":") if isinstance(uri, str) else ("", "", "")
    if not colon or scheme not in PROVIDERS:
        known = ", ".join(f"{name}:" for name in PROVIDERS)
        raise UriError(f"no keyset provider for {uri!r}; a keyset URI begins with one of {known}")
    return PROVIDERS[scheme](rest, passphrase)
