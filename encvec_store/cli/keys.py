"""`encvec keys`: create, rewrap, export and import a keyset; list, rotate, disable and destroy key versions."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from ..errors import EncvecError, KeyUnavailableError
from ..keys import NONE, PASSPHRASE, StoredKeyset
from ..keys.keyset import Keyset
from ..keys.registry import split
from .common import (
    Failure,
    Place,
    confirmed,
    help_if_alone,
    holds_collections,
    new_passphrase,
    open_keyset,
    open_store,
    passphrase_for,
    place_options,
)
from .group import Passing
from .output import emit, facts, note, table

__all__ = ["LOST", "create_keyset", "keys"]

_MOST = 1 << 24
LOST = "without both, nothing can be read"


@click.group(cls=Passing, invoke_without_command=True)
@click.pass_context
def keys(context: click.Context) -> None:
    """Create, list, rotate, disable and destroy keys.

    A keyset holds numbered key versions. The primary encrypts new records; every enabled version decrypts. The
    keyset is DIR/keys.json unless --keys or ENCVEC_KEYSET names another. Back it up apart from the store: without it
    and its passphrase nobody can read the data.

    \b
    Key URIs:
      file:PATH    a file wrapped by a passphrase
      env:NAME     an environment variable with an unwrapped keyset; these commands can only read it
      keyring:NAME an entry of the system keyring
      store:URL    the store itself; the wrapper must be named
      ...?wrap=W   with another wrapper: passphrase, none, awskms:KEY, gcpkms:KEY, azurekv:KEY,
                   vault:KEY, pkcs11:TOKEN/KEY, age:RECIPIENT, or one of an installed package
    """
    help_if_alone(context)


def create_keyset(uri: str) -> Keyset:
    """Create a keyset in a lasting storage. Raises KeysetError, UriError."""
    _check_lasting(uri, "created")
    return Keyset.create(uri, passphrase=passphrase_for(uri, new=True))


def back_up(uri: str) -> str:
    """Say what the user must keep to be able to open the keyset."""
    what = split(uri)[0].removeprefix("file:")
    match StoredKeyset(uri).wrapper(new=True):
        case "passphrase":
            return f"back up {what}, and remember its passphrase: {LOST}"
        case "none":
            return f"back up {what}, and keep it secret: it is in clear, and without it nothing can be read"
        case wrapper:
            return f"back up {what}, and what the wrapper {wrapper!r} needs: {LOST}"


def _check_lasting(uri: str, done: str) -> None:
    if not StoredKeyset(uri).lasting:
        raise Failure(
            "UriError",
            f"{uri} would be {done} in this process only, and lost when it ends: use a file: keyset; "
            "`encvec keys export` prints what an env: variable must hold",
        )


def describe(keyset: Keyset) -> dict[str, Any]:
    """Return a keyset as JSON values, without its keys."""
    versions = [
        {
            "version": item.version,
            "state": item.state.value,
            "primary": item.version == keyset.primary,
            "created": item.created,
        }
        for item in keyset.versions
    ]
    return {"uri": keyset.uri, "primary": keyset.primary, "versions": versions}


def show(keyset: Keyset, as_json: bool) -> None:
    """Print a keyset, without its keys."""
    document = describe(keyset)
    if as_json:
        emit(document)
        return
    facts([("keyset", keyset.uri)])
    marks = {True: "primary", False: ""}
    rows = [[item["version"], item["state"], marks[item["primary"]], item["created"]] for item in document["versions"]]
    table(["version", "state", "", "created"], rows)


@keys.command()
@click.option("--beside-full-store", is_flag=True, help="Even if the store holds collections, which it cannot read.")
@place_options
def create(beside_full_store: bool, place: Place, as_json: bool) -> None:
    """Create a keyset with one version. `encvec init` does this and creates a store too."""
    if not beside_full_store and holds_collections(place):
        raise Failure(
            "KeysetError",
            "the store holds collections that a new keyset cannot read: bring their keyset back from a backup, or "
            "name another store with --store. If you mean it, add --beside-full-store",
        )
    keyset = create_keyset(place.keys_uri)
    show(keyset, as_json)
    if not as_json:
        note(back_up(keyset.uri))


@keys.command("list")
@place_options
def list_(place: Place, as_json: bool) -> None:
    """List the versions of the keyset."""
    show(open_keyset(place), as_json)


@keys.command()
@place_options
def rotate(place: Place, as_json: bool) -> None:
    """Add a new version and make it the primary. Earlier records stay readable under the older versions."""
    _change(place, as_json, lambda keyset: keyset.rotate())


@keys.command()
@click.argument("version", type=click.IntRange(1))
@place_options
def enable(version: int, place: Place, as_json: bool) -> None:
    """Enable a disabled VERSION again."""
    _change(place, as_json, lambda keyset: keyset.enable(version))


@keys.command()
@click.argument("version", type=click.IntRange(1))
@place_options
def disable(version: int, place: Place, as_json: bool) -> None:
    """Disable VERSION. Its records cannot be read until it is enabled again."""
    _change(place, as_json, lambda keyset: keyset.disable(version))


@keys.command()
@click.argument("version", type=click.IntRange(1))
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_options
def destroy(version: int, yes: bool, place: Place, as_json: bool) -> int:
    """Erase VERSION for good.

    Records under it can never be read again. Earlier copies of the keyset still hold the version: erase them too.
    """
    _check_lasting(place.keys_uri, "changed")
    keyset = open_keyset(place)
    if version not in {item.version for item in keyset.versions}:
        raise KeyUnavailableError(f"key version {version} is not in {keyset.uri}")
    if version != keyset.primary and not yes:
        lost = _records_under(place, version)
        known = "it is not known how many records are under it" if lost is None else f"{lost:,} records are under it"
        if not confirmed(f"Destroy key version {version} of {keyset.uri} for good? In the store, {known}.", yes):
            return 1
    keyset.destroy(version)
    show(keyset, as_json)
    return 0


def _records_under(place: Place, version: int) -> int | None:
    """Count the records that would become unreadable; None if the store cannot be read."""
    try:
        with open_store(place) as store:
            told = [store.collection(name, tenant=tenant).stats() for tenant, name in store.collections()]
    except (EncvecError, Failure, OSError):
        return None
    return sum(int(stats["key_versions"].get(str(version), 0)) for stats in told)


@keys.command()
@place_options
def passphrase(place: Place, as_json: bool) -> None:
    """Change the passphrase of the keyset.

    The old one is taken as for every command. The new one is taken from the file that ENCVEC_NEW_PASSPHRASE_FILE
    names, from ENCVEC_NEW_PASSPHRASE, or you are asked for it. The keys stay the same. Earlier copies of the keyset
    still open with the old passphrase: if others may know it, run `encvec keys rotate` as well.
    """
    _check_lasting(place.keys_uri, "changed")
    keyset = open_keyset(place)
    keyset.change_passphrase(new_passphrase(keyset.uri))
    show(keyset, as_json)
    if not as_json:
        note("the passphrase is changed; earlier copies of the keyset still open with the old one")


@keys.command()
@click.option("--unsafe-cleartext", is_flag=True, help="Confirm that the keys are printed in clear.")
@place_options
def export(unsafe_cleartext: bool, place: Place, as_json: bool) -> int:
    """Print the keyset unwrapped, as an env: variable holds it. Whoever sees it can read all data.

    Every export begins with eyJmb3JtYXQiOiJlbmN2ZWMta2V5c2V0Lz, so that a search for this finds forgotten ones.

    \b
    Example, for a job that gets its secrets from its environment:
      export MY_KEYS="$(encvec keys export --unsafe-cleartext)"
      encvec search docs --keys env:MY_KEYS --vector-file query.npy
    """
    if not unsafe_cleartext:
        if not sys.stdin.isatty():
            raise click.UsageError("export prints the keys in clear: add --unsafe-cleartext if you mean it")
        if not confirmed(f"Print the keys of {place.keys_uri} in clear? Whoever sees them can read all data.", False):
            return 1
    text = open_keyset(place).export(unsafe_cleartext=True)
    if as_json:
        emit({"keyset": text})
    else:
        click.echo(text)
    return 0


@keys.command("import")
@place_options
def import_(place: Place, as_json: bool) -> None:
    """Store a keyset that `encvec keys export` printed.

    It is read from standard input, and wrapped as the key URI says. Nothing is replaced: there must be no keyset yet.

    \b
    Example, taking a keyset from another machine:
      ssh old encvec keys export --unsafe-cleartext | encvec keys import
    """
    _check_lasting(place.keys_uri, "created")
    if sys.stdin.isatty():
        note("paste the exported keyset, then press Ctrl-D")
    text = sys.stdin.read(_MOST).strip()
    keyset = Keyset.restore(place.keys_uri, text, passphrase=passphrase_for(place.keys_uri, new=True))
    show(keyset, as_json)
    if not as_json:
        note(back_up(keyset.uri))


@keys.command()
@click.argument("wrapper")
@click.option("--yes", is_flag=True, help="Do not ask before the keyset is stored in clear.")
@place_options
def rewrap(wrapper: str, yes: bool, place: Place, as_json: bool) -> int:
    """Wrap the keyset by another WRAPPER.

    WRAPPER is passphrase, none, or a key service with its key, such as vault:app.
    The keys stay the same, and no record is touched. Earlier copies of the keyset still open as before. For the
    wrapper `passphrase`, the new passphrase is taken as by `encvec keys passphrase`. From then on use the key URI that
    is shown.
    """
    _check_lasting(place.keys_uri, "changed")
    keyset = open_keyset(place)
    name = wrapper.partition(":")[0]
    if name == NONE and not confirmed(f"Store the keys of {keyset.uri} in clear?", yes):
        return 1
    keyset.rewrap(wrapper, passphrase=new_passphrase(keyset.uri) if name == PASSPHRASE else None)
    show(keyset, as_json)
    if not as_json:
        note(f"use --keys '{keyset.uri}' from now on; earlier copies of the keyset still open as before")
    return 0


def _change(place: Place, as_json: bool, change: Callable[[Keyset], object]) -> None:
    _check_lasting(place.keys_uri, "changed")
    keyset = open_keyset(place)
    change(keyset)
    show(keyset, as_json)
