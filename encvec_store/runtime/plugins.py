"""Find what other packages add through entry points, by name, and import it on first use.

Built-in names are looked up first, and a package cannot take them: a package that nobody asked for must not come
between a program and its store or keys. A package that tries is ignored, with a warning. This is not an error,
because then a package that nobody uses could stop every program.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import PluginError

__all__ = ["COMMANDS", "KEYSET_STORAGES", "KEY_WRAPPERS", "STORES", "Plugin", "find", "resolve"]

STORES = "encvec_store.stores"
"""Entry points: URL scheme = `indexes.registry.StoreKind`."""
KEYSET_STORAGES = "encvec_store.key_storages"
"""Entry points: URI scheme = callable(rest of the URI) -> `keys.protocol.KeysetStorage`."""
KEY_WRAPPERS = "encvec_store.key_wrappers"
"""Entry points: name = callable(what follows the name, passphrase) -> `keys.protocol.KeyWrapper`."""
COMMANDS = "encvec_store.commands"
"""Entry points: name = click command, added to `encvec`."""

T = TypeVar("T")
_WHAT = {STORES: "store", KEYSET_STORAGES: "keyset storage", KEY_WRAPPERS: "key wrapper", COMMANDS: "command"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plugin:
    """A name that installed packages offer."""

    group: str
    name: str
    entries: tuple[importlib.metadata.EntryPoint, ...]
    """One entry; several if packages offer the same name."""

    def __str__(self) -> str:
        return f"the {_WHAT.get(self.group, 'plugin')} {self.name!r} of {_packages(self.entries)}"

    def load(self, kind: type[T] | None = None) -> Any:
        """Import the object. Raises PluginError, which names the package.

        Args:
            kind: the class that it must be an instance of; None means that it must be callable.
        """
        if len(self.entries) > 1:
            raise PluginError(f"{self} is offered more than once: uninstall all but one of these packages")
        found = self.guard(self.entries[0].load)
        if not (callable(found) if kind is None else isinstance(found, kind)):
            wanted = "callable" if kind is None else f"a {kind.__name__}"
            raise PluginError(f"{self} must be {wanted}, got {type(found).__name__}: tell its authors")
        return found

    def resolve(self, path: str) -> Any:
        """Import `module:name` that the loaded object names. Raises PluginError."""
        return self.guard(lambda: resolve(path))

    def guard(self, load: Callable[[], T]) -> T:
        """Call a function that imports a part of the package. Raises PluginError."""
        try:
            return load()
        except (Exception, SystemExit) as error:  # its modules may raise anything
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(f"{self} cannot be loaded ({reason}): repair, upgrade or uninstall it") from error


def find(group: str, built_in: Collection[str] = ()) -> dict[str, Plugin]:
    """Return what installed packages offer, without importing them.

    Args:
        group: one of the groups above.
        built_in: names that cannot be taken. A package that offers one is ignored, with a warning.
    """
    offered: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for entry in importlib.metadata.entry_points(group=group):
        offered.setdefault(entry.name, []).append(entry)
    plugins = {name: Plugin(group, name, tuple(entries)) for name, entries in sorted(offered.items())}
    for name in plugins.keys() & set(built_in):
        _log.warning("%s is ignored: the name is built in", plugins.pop(name))
    return plugins


def resolve(path: str) -> Any:
    """Import `module:name`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _packages(entries: Collection[importlib.metadata.EntryPoint]) -> str:
    names = [f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value for entry in entries]
    return ("the package " if len(names) == 1 else "the packages ") + " and ".join(sorted(names))
