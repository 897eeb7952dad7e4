"""`encvec keys`: make, list, rotate, disable and destroy key versions."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..errors import EncvecError, KeyUnavailableError
from ..keys import StoredKeyset
from ..keys.keyset import Keyset
from ..keys.registry import split
from .common import Failure, Place, confirmed, help_if_alone, open_keyset, open_store, passphrase_for, place_options
from .output import emit, facts, note, table

__all__ = ["LOST", "create_keyset", "keys"]

LOST = "without both, nothing can be read"


@click.group(invoke_without_command=True)
@click.pass_context
def keys(context: click.Context) -> None:
    """Make, list, rotate, disable and destroy keys.

    A keyset holds numbered key versions. New records are written under the primary; every enabled version is read.
    The keyset is DIR/keys.json unless --keys or ENCVEC_KEYS names another. Back it up apart from the store: without
    it and its passphrase nothing can be read, by anyone.

    \b
    Key URIs:
      file:PATH    a file wrapped by a passphrase
      env:NAME     an environment variable with an unwrapped keyset; read only from here
      ...?wrap=W   with another wrapper: passphrase, none, or one of an installed package
    """
    help_if_alone(context)


def create_keyset(uri: str) -> Keyset:
    """Create a keyset where it will last. Raises KeysetError, UriError."""
    _check_lasting(uri, "made")
    return Keyset.create(uri, passphrase=passphrase_for(uri, new=True))


def back_up(uri: str) -> str:
    """Say what must not be lost of a keyset."""
    what = split(uri)[0].removeprefix("file:")
    match StoredKeyset(uri).wrapper(new=True):
        case "passphrase":
            return f"back up {what}, and remember its passphrase: {LOST}"
        case "none":
            return f"back up {what}, and let nobody read it: it is in clear, and without it nothing can be read"
        case wrapper:
            return f"back up {what}, and what the wrapper {wrapper!r} needs: {LOST}"


def _check_lasting(uri: str, done: str) -> None:
    if not StoredKeyset(uri).lasting:
        raise Failure(
            "UriError",
            f"{uri} would be {done} for this process only and lost with it: use a file: keyset; "
            "`encvec keys export` gives what an env: variable holds",
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
@place_options
def create(place: Place, as_json: bool) -> None:
    """Make a new keyset of one version. `encvec init` does this and makes a store too."""
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
    """Add a fresh version and make it the primary. Records written before stay under the older ones, readable."""
    _change(place, as_json, lambda keyset: keyset.rotate())


@keys.command()
@click.argument("version", type=click.IntRange(1))
@place_options
def enable(version: int, place: Place, as_json: bool) -> None:
    """Let a disabled VERSION work again."""
    _change(place, as_json, lambda keyset: keyset.enable(version))


@keys.command()
@click.argument("version", type=click.IntRange(1))
@place_options
def disable(version: int, place: Place, as_json: bool) -> None:
    """Stop VERSION from opening anything, until it is enabled again. Its records are out of reach meanwhile."""
    _change(place, as_json, lambda keyset: keyset.disable(version))


@keys.command()
@click.argument("version", type=click.IntRange(1))
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_options
def destroy(version: int, yes: bool, place: Place, as_json: bool) -> int:
    """Erase VERSION for good.

    What is stored under it can never be read again. Copies of the keyset made earlier still hold the version; erase
    them too.
    """
    _check_lasting(place.keys_uri, "changed")
    keyset = open_keyset(place)
    if version not in {item.version for item in keyset.versions}:
        raise KeyUnavailableError(f"key version {version} is not in {keyset.uri}")
    if version != keyset.primary and not yes:
        lost = _records_under(place, version)
        known = "how many records are under it could not be seen" if lost is None else f"{lost:,} records are under it"
        if not confirmed(f"Destroy key version {version} of {keyset.uri} for good? In the store, {known}.", yes):
            return 1
    keyset.destroy(version)
    show(keyset, as_json)
    return 0


def _records_under(place: Place, version: int) -> int | None:
    """Count what would become unreadable; None where the store cannot say."""
    try:
        with open_store(place) as store:
            told = [store.collection(name, tenant=tenant).stats() for tenant, name in store.collections()]
    except (EncvecError, Failure, OSError):
        return None
    return sum(int(stats["key_versions"].get(str(version), 0)) for stats in told)


@keys.command()
@click.option("--unsafe-cleartext", is_flag=True, help="Yes, in clear.")
@place_options
def export(unsafe_cleartext: bool, place: Place, as_json: bool) -> None:
    """Print the keyset unwrapped, as an env: variable holds it. Whoever sees it owns all data.

    \b
    Example, for a job that gets its secrets from its environment:
      export MY_KEYS="$(encvec keys export --unsafe-cleartext)"
      encvec search docs --keys env:MY_KEYS --vector-file query.npy
    """
    if not unsafe_cleartext:
        raise click.UsageError("export gives the keys away in clear: add --unsafe-cleartext if you mean it")
    text = open_keyset(place).export(unsafe_cleartext=True)
    if as_json:
        emit({"keyset": text})
    else:
        click.echo(text)


def _change(place: Place, as_json: bool, change: Callable[[Keyset], object]) -> None:
    _check_lasting(place.keys_uri, "changed")
    keyset = open_keyset(place)
    change(keyset)
    show(keyset, as_json)
