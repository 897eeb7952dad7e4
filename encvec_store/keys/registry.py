"""The tables URI scheme -> storage and name -> wrapper."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

from ..errors import UriError
from ..runtime import plugins
from .protocol import NONE, KeysetStorage, KeyWrapper
from .storage.env import EnvStorage
from .storage.file import FileStorage
from .storage.keyring import KeyringStorage
from .storage.memory import MemoryStorage
from .storage.store import beside_data
from .wrappers.passphrase import PassphraseWrapper

__all__ = ["PASSPHRASE", "STORAGES", "WRAPPERS", "known", "make_storage", "make_wrapper", "split"]

MakeStorage = Callable[[str], KeysetStorage]
MakeWrapper = Callable[[str, str | bytes | None], KeyWrapper | None]

PASSPHRASE = "passphrase"  # noqa: S105 - the wrapper's name


def _no_wrapper(rest: str, _: str | bytes | None) -> KeyWrapper | None:
    """Return None: the keyset is not wrapped."""
    if rest:
        raise UriError(f"the wrapper {NONE!r} takes nothing after its name: leave out the colon and what follows it")
    return None


def _service(path: str) -> MakeWrapper:
    """Return a function that imports a wrapper on first use: their libraries take long to import."""

    def make(rest: str, passphrase: str | bytes | None) -> KeyWrapper:
        return cast(KeyWrapper, plugins.resolve(f"{__package__}.wrappers.{path}")(rest, passphrase))

    return make


STORAGES: dict[str, MakeStorage] = {
    "file": FileStorage,
    "env": EnvStorage,
    "memory": MemoryStorage,
    "keyring": KeyringStorage,
    "store": beside_data,
}
"""URI scheme -> function (rest of the URI) -> storage. Other packages add theirs by entry points (`plugins`)."""

WRAPPERS: dict[str, MakeWrapper] = {
    NONE: _no_wrapper,
    PASSPHRASE: PassphraseWrapper,
    "awskms": _service("aws:AwsKmsWrapper"),
    "gcpkms": _service("gcp:GcpKmsWrapper"),
    "azurekv": _service("azure:AzureWrapper"),
    "vault": _service("vault:VaultWrapper"),
    "pkcs11": _service("pkcs11:Pkcs11Wrapper"),
    "age": _service("age:AgeWrapper"),
}
"""Name -> function (text after `name:`, passphrase) -> wrapper. Other packages add theirs by entry points."""


def split(uri: str) -> tuple[str, str | None]:
    """Split a keyset URI into the URI of its storage and the wrapper it names, if any.

    Only the last `?wrap=` counts. Any other "?" belongs to the storage, since file names may contain one. If a file
    name contains `?wrap=`, its URI must name the wrapper as well.
    """
    if not isinstance(uri, str):
        raise UriError(f"a keyset URI must be a string that begins with {known()}, got {type(uri).__name__}")
    place, sign, wrap = uri.rpartition("?wrap=")
    return (place, wrap) if sign else (uri, None)


def make_storage(uri: str) -> KeysetStorage:
    """Return the storage that a URI names. Raises UriError, PluginError."""
    scheme, colon, rest = uri.partition(":")
    if colon and scheme in STORAGES:
        return STORAGES[scheme](rest)
    others = plugins.find(plugins.KEYSET_STORAGES, STORAGES)
    if colon and scheme in others:
        return cast(KeysetStorage, others[scheme].load()(rest))
    # a string without a scheme may be a keyset or a passphrase in the wrong argument: never show it
    given = f"{scheme}:" if colon and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) else "another string"
    raise UriError(f"a keyset URI must begin with one of {known(*others)}, got {given}")


def make_wrapper(spec: str, passphrase: str | bytes | None) -> KeyWrapper | None:
    """Return the wrapper of a `name` or `name:more`; None for `none`. Raises UriError, PluginError."""
    name, _, rest = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    if name in WRAPPERS:
        return WRAPPERS[name](rest, passphrase)
    others = plugins.find(plugins.KEY_WRAPPERS, WRAPPERS)
    if name in others:
        return cast(KeyWrapper, others[name].load()(rest, passphrase))
    raise UriError(f"a key wrapper must be one of {', '.join([*WRAPPERS, *others])}, got {name!r}")


def known(*others: str) -> str:
    """Return the beginnings of keyset URIs, for messages."""
    return ", ".join(f"{name}:" for name in [*STORAGES, *others])
