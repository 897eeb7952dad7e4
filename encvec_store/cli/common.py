"""What commands share: the place of store and keys, passphrases, opening a store."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import click
from click.core import ParameterSource

from .. import migrate
from ..collection import Collection
from ..errors import CollectionNotFoundError, EncvecError, InputError, KeysetError
from ..indexes.registry import open_connection
from ..keys import PASSPHRASE, StoredKeyset
from ..keys.keyset import Keyset
from ..keys.stored import URI_VARIABLE
from ..keys.wrappers.passphrase_source import PASSPHRASE_FILE_VARIABLE, PASSPHRASE_VARIABLE, given
from ..runtime.urls import as_url, holds_password, opening_options
from ..store import Store, connect
from .output import printable

__all__ = [
    "LIMIT",
    "Failure",
    "Interrupted",
    "Place",
    "confirmed",
    "help_if_alone",
    "holds_collections",
    "need",
    "new_passphrase",
    "open_collection",
    "open_keyset",
    "open_store",
    "passphrase_for",
    "place_options",
    "store_options",
    "tenant_option",
]

LIMIT = 0.01
"""If attacks identify a larger share of the records without the key, the exit code is 1."""

KEYS_FILE = "keys.json"
KEYS_VARIABLES = [URI_VARIABLE, "ENCVEC_KEYS"]
NEW_PASSPHRASE_VARIABLE = "ENCVEC_NEW_PASSPHRASE"  # noqa: S105 - the variable's name
NEW_PASSPHRASE_FILE_VARIABLE = f"{NEW_PASSPHRASE_VARIABLE}_FILE"
STORE_FOLDER = "store"


class Failure(Exception):  # noqa: N818 - a message for the user, not a fault of the program
    """An error whose JSON form has `details` beside the message."""

    def __init__(self, kind: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details


class Interrupted(click.Abort):
    """Ctrl-C in a job that had done some of its work; `details` say how much."""

    def __init__(self, **details: Any) -> None:
        super().__init__()
        self.details = details


@dataclass(frozen=True)
class Place:
    """Where the store and the keys of this command are."""

    folder: Path
    store: str | None
    keys: str | None

    @property
    def keys_uri(self) -> str:
        """The keyset's URI."""
        return self.keys or f"file:{self.folder / KEYS_FILE}"

    @property
    def store_url(self) -> str:
        """The store's URL."""
        return self.store or "faiss://" + quote((self.folder / STORE_FOLDER).absolute().as_posix())


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --dir, --store, --keys and --json; the command takes `place` and `as_json`."""

    @click.option("--keys", metavar="URI", envvar=KEYS_VARIABLES, help="Keyset, if not DIR/keys.json.")
    @functools.wraps(command)
    def with_keys(*args: Any, place: Place, keys: str | None, **kwargs: Any) -> Any:
        return command(*args, place=dataclasses.replace(place, keys=keys), **kwargs)

    return store_options(with_keys)


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --dir, --store and --json, for commands that need no keys; the command takes `place` and `as_json`."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.option("--store", metavar="URL", envvar="ENCVEC_STORE", help="Store, if not DIR/store.")
    @click.option(
        "--dir",
        "folder",
        metavar="DIR",
        envvar="ENCVEC_DIR",
        default=".",
        type=click.Path(path_type=Path),
        help="Folder made by `encvec init` [default: .].",
    )
    @functools.wraps(command)
    def with_place(*args: Any, folder: Path, store: str | None, **kwargs: Any) -> Any:
        with suppress(RuntimeError):  # a shell expands "~" on the command line, and nobody does in ENCVEC_DIR
            folder = folder.expanduser()
        typed = click.get_current_context().get_parameter_source("store") is ParameterSource.COMMANDLINE
        if store and typed and holds_password(store):
            raise click.UsageError("a password on the command line can be seen by others: put the URL in ENCVEC_STORE")
        return command(*args, place=Place(folder, as_url(store) if store else None, None), **kwargs)

    return with_place


tenant_option = click.option("--tenant", default="", metavar="NAME", help="Whose collection it is.")


def help_if_alone(context: click.Context) -> None:
    """Show a group's help if no command was given, and exit with 2."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)


def passphrase_for(uri: str, *, new: bool = False) -> str | None:
    """Ask for the passphrase of a keyset. Return None if the environment holds it, or none is needed.

    Raises KeysetError where there is no terminal to ask on, or no keyset to open.
    """
    if (
        os.environ.get(PASSPHRASE_VARIABLE)
        or os.environ.get(PASSPHRASE_FILE_VARIABLE)
        or StoredKeyset(uri).wrapper(new=new) != PASSPHRASE
    ):
        return None
    return _asked(uri, "New passphrase" if new else f"Passphrase of {printable(uri)}", PASSPHRASE_VARIABLE, confirm=new)


def new_passphrase(uri: str) -> str | bytes:
    """Return the passphrase that a keyset shall get, from the environment or by a prompt. Raises KeysetError."""
    value = given(NEW_PASSPHRASE_VARIABLE, NEW_PASSPHRASE_FILE_VARIABLE)
    return value if value is not None else _asked(uri, "New passphrase", NEW_PASSPHRASE_VARIABLE, confirm=True)


def _asked(uri: str, label: str, variable: str, *, confirm: bool) -> str:
    if not sys.stdin.isatty():
        raise KeysetError(
            f"{uri} needs a {'new ' if confirm else ''}passphrase: name a file that holds it in {variable}_FILE, "
            f"set {variable}, or run on a terminal"
        )
    answer: str = click.prompt(label, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


def holds_collections(place: Place) -> bool | None:
    """Return whether the store of a place holds collections, which takes no keys; None if that cannot be seen."""
    try:
        url, _ = opening_options(place.store_url)
        if not migrate.current(url).revision:
            return False  # it has no tables yet, and shall not get any by this look
        with closing(open_connection(url).store) as store:
            return bool(store.collections())
    except (EncvecError, OSError):
        return None


def open_keyset(place: Place) -> Keyset:
    """Open the keyset of a place. Raises KeysetError, UriError."""
    uri = place.keys_uri
    stored = StoredKeyset(uri)
    if stored.lasting and not stored.exists():  # before anyone types a passphrase
        lost = f"no keyset at {uri.removeprefix('file:')}"
        if holds_collections(place):
            raise KeysetError(
                f"{lost}, and the store holds collections that no new keyset can read: bring the file back from a "
                "backup, or say where it is with --dir or --keys"
            )
        raise KeysetError(
            f"{lost}: say where it is with --dir or --keys; for a new store, create one with `encvec init` or "
            "`encvec keys create`"
        )
    return Keyset.open(uri, passphrase=passphrase_for(uri))


@contextmanager
def open_store(place: Place, *, create: bool = False) -> Iterator[Store]:
    """Open the store of a place, and close it at the end. A missing store is created only with `create`."""
    if place.store is not None and place.store.startswith("memory:"):
        raise click.UsageError("a memory: store would be gone when the command ends: use faiss:///path")
    # a mistyped name must not create an empty store, and must not ask for a passphrase first
    folder = place.folder / STORE_FOLDER if place.store is None else _folder_of(place.store)
    if folder is not None and not folder.is_dir() and (place.store is None or not create):
        raise Failure(
            "StoreUnreachableError",
            f"no store at {folder}: make one with `encvec init`, or say where it is with --dir or --store",
        )
    # `finish` does the maintenance that is due at the end of a command, with a progress bar
    with connect(place.store_url, keyset=open_keyset(place), maintenance="manual") as store:
        yield store


def _folder_of(url: str) -> Path | None:
    if not url.startswith("faiss:"):
        return None
    from ..indexes.faiss.options import parse_url

    return parse_url(url, {})[0]


def open_collection(store: Store, name: str, tenant: str, **settings: Any) -> Collection:
    """Open a collection that must exist. Raises CollectionNotFoundError."""
    try:
        return store.collection(name, tenant=tenant, **settings)
    except CollectionNotFoundError:
        raise not_found(store, name, tenant) from None


def not_found(store: Store, name: str, tenant: str) -> CollectionNotFoundError:
    """Return the error that says which collections there are."""
    owner = f" of tenant {tenant!r}" if tenant else ""
    try:
        there = [(whose, other) for whose, other in store.collections() if other == name or whose == tenant]
    except InputError:  # the store shows one tenant at a time
        there = store.collections(tenant)
    if not there:
        return CollectionNotFoundError(f"no collection {name!r}{owner}; `encvec ingest` makes one")
    labels = [repr(other) + (f" of tenant {whose!r}" if whose else "") for whose, other in there]
    listed = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
    return CollectionNotFoundError(f"no collection {name!r}{owner}; there are: {listed}")


def confirmed(question: str, yes: bool) -> bool:
    """Ask before something that cannot be undone. Raises UsageError if there is no terminal to ask on."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody is here to answer: add --yes if you mean it")
    # not click.confirm: before click 8.2 it leaves a space on stdout, which belongs to the answer
    click.echo(f"{printable(question)} [y/N]: ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        raise click.Abort
    return answer.strip().lower() in ("y", "yes")


def need(module: str) -> ModuleType:
    """Import a module of the extra `cli`. Raises Failure, which names the extra."""
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise Failure("ImportError", f"{name} is not installed: pip install 'encvec-store[cli]'") from None
