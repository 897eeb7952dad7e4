"""`encvec init`, `collections`, `stats`, `verify`, `drop`: commands for the whole store."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import AuthenticationError, KeyUnavailableError
from ..maintenance.verify import VerifyReport
from ..sealing.names import NAMES
from ..store import Store, connect
from .common import (
    KEYS_FILE,
    STORE_FOLDER,
    Failure,
    Place,
    confirmed,
    not_found,
    open_collection,
    open_store,
    place_options,
    tenant_option,
)
from .keys import LOST, create_keyset
from .output import emit, facts, note, progress, snippet, table

__all__ = ["chosen", "collections", "drop", "init", "label", "stats", "verify"]


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", envvar="ENCVEC_DIR", type=click.Path(path_type=Path))
@click.option(
    "--names",
    type=click.Choice(NAMES),
    default="clear",
    show_default=True,
    help="How the store keeps the names of tenants and collections: sealed, only key holders can list them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def init(folder: Path, names: str, as_json: bool) -> None:
    """Create a keyset and an empty store in DIR.

    The keyset, DIR/keys.json, is wrapped by a passphrase. It is taken from ENCVEC_PASSPHRASE_FILE or
    ENCVEC_PASSPHRASE, or you are asked for it. Keep a copy of the file and the passphrase apart from the store:
    without both, nobody can read the data.

    \b
    Example:
      encvec init vectors && cd vectors
    """
    store = folder / STORE_FOLDER
    if store.is_dir() and any(store.iterdir()) and not (folder / KEYS_FILE).exists():
        raise Failure(
            "KeysetError",
            f"{store} holds a store, but {folder / KEYS_FILE} is missing: restore the key file, or move the store away",
        )
    if (folder / KEYS_FILE).exists():
        raise Failure("KeysetError", f"{folder / KEYS_FILE} exists already: a new keyset could not read its records")
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(folder, None, None)
    keyset = create_keyset(place.keys_uri)
    store.mkdir(mode=0o700, exist_ok=True)
    connect(place.store_url, keyset=keyset, names=names).close()
    if as_json:
        emit({"dir": str(folder), "keys": keyset.uri, "store": place.store_url})
        return
    facts([("keys", str(folder / KEYS_FILE)), ("store", str(store))])
    where = "" if folder == Path() else f" --dir {folder}"
    click.echo(
        f"\nBack up {folder / KEYS_FILE}, and remember its passphrase: {LOST}.\n"
        f"\nNext:\n  encvec ingest my-collection FILE{where}    .npy, .parquet, .jsonl or ann-benchmarks .hdf5"
        f"\n  encvec search my-collection --vector-file query.npy{where}"
    )


@click.command()
@click.option("--tenant", metavar="NAME", help="Only this tenant's collections.")
@place_options
def collections(tenant: str | None, place: Place, as_json: bool) -> None:
    """List the collections of the store."""
    with open_store(place) as store:
        rows = []
        for owner, name in store.collections(tenant):
            row: dict[str, Any] = {"tenant": owner, "collection": name}
            try:
                found = store.collection(name, tenant=owner)
                row |= {"count": found.count(), "dim": found.dim, "metric": found.metric}
            except (AuthenticationError, KeyUnavailableError) as error:
                row |= {"count": None, "dim": None, "metric": None, "error": str(error)}
            rows.append(row)
    if as_json:
        emit({"collections": rows})
        return
    owners = any(row["tenant"] for row in rows)
    columns = [*(["tenant"] if owners else []), "collection", "count", "dim", "metric"]
    if rows:
        table(columns, [[row[name] for name in columns] for row in rows])
    else:
        note("there are no collections yet; `encvec ingest` creates one")
    for row in rows:
        if "error" in row:
            note(f"{row['collection']!r}: {row['error']}")


@click.command()
@click.argument("collection")
@tenant_option
@place_options
def stats(collection: str, tenant: str, place: Place, as_json: bool) -> None:
    """Describe COLLECTION: settings, sizes, and what leaks.

    The list holds its key versions, calibration, index and maintenance too.
    """
    with open_store(place) as store:
        document = open_collection(store, collection, tenant).stats()
    if as_json:
        emit(document)
        return
    document["calibration"] = document["calibration"] and {
        name: value for name, value in document["calibration"].items() if name not in ("frontier", "choices")
    }
    facts((name, value) for name, value in _flat(document) if name != "tenant" or value)


def _flat(document: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        name = f"{above} {key}".strip().replace("_", " ")
        if isinstance(value, dict) and value:
            yield from _flat(value, name)
        else:
            yield name, value


@click.command()
@click.argument("names", nargs=-1, metavar="[COLLECTION]...")
@click.option("--tenant", metavar="NAME", help="Only this tenant's collections.")
@place_options
def verify(names: tuple[str, ...], tenant: str | None, place: Place, as_json: bool) -> int:
    """Check every record of the collections (default: all).

    Opens each record and checks that its parts belong together. Finds records that were forged, altered, swapped or
    moved, and lets the store check its own files. The exit code is 1 if damage was found. Records under a disabled or
    destroyed key version cannot be checked: they are counted as unreadable, which is no damage. A collection whose
    sealed name is damaged is found by its name only: give it, and its tenant.
    """
    with open_store(place) as store:
        places, unnamed = (chosen(store, names, tenant), []) if names else store.verify_names(tenant)
        reports = [_verified(store, owner, name) for owner, name in places]
        reports += [_not_opened(None, None, [line]) for line in unnamed]
    answers = [report["ok"] for report in reports]
    ok = False if False in answers else None if None in answers else True
    if as_json:
        emit({"ok": ok, "collections": reports})
    elif reports:
        _show_reports(reports)
    else:
        note("there are no collections to verify")
    if ok is None:
        closed = ", ".join(f"{label(report)} ({report['error']})" for report in reports if report["ok"] is None)
        raise Failure("KeyUnavailableError", f"some collections could not be checked: {closed}")
    return 0 if ok else 1


def _show_reports(reports: list[dict[str, Any]]) -> None:
    table(
        ["collection", "checked", "damaged", "unreadable"],
        [[label(report), report["checked"], len(report["damaged"]), report["unreadable"]] for report in reports],
    )
    damage = [
        [label(report), item["row"], snippet(item["id"] or "(unreadable)", 80), item["part"]]
        for report in reports
        for item in report["damaged"]
    ]
    for report in reports:
        findings = [*report["store"], *([f"not checked: {report['error']}"] if "error" in report else [])]
        damage += [[label(report), "", "", finding] for finding in findings]
    if damage:
        table(["collection", "row", "id", "damaged part"], damage)
    for report in reports:
        for line in report["notes"]:
            note(f"{label(report)}: {line}")


def chosen(store: Store, names: tuple[str, ...], tenant: str | None) -> list[tuple[str, str]]:
    """Return (tenant, name) of the named collections, or of all. Raises CollectionNotFoundError.

    If sealed names are damaged, a named collection that is not listed may be there: whoever opens it sees.
    """
    if not names:
        return store.collections(tenant)
    there, unnamed = store.verify_names(tenant)
    missing = [name for name in names if name not in {other for _, other in there}]
    if missing and not unnamed:
        raise not_found(store, missing[0], tenant or "")
    return [place for place in there if place[1] in names] + [(tenant or "", name) for name in missing]


def _verified(store: Store, tenant: str, name: str) -> dict[str, Any]:
    try:
        found = store.collection(name, tenant=tenant)
    except AuthenticationError as error:
        # settings that do not authenticate are damage too; go on with the other collections
        return _not_opened(tenant, name, store=[str(error)])
    except KeyUnavailableError as error:  # "could not check" is not "wrong"
        return {**_not_opened(tenant, name), "ok": None, "unreadable": None, "error": str(error)}
    with progress(f"verifying {name}", found.count()) as advance:
        return {"tenant": tenant, "collection": name, **found.verify(progress=advance).to_dict()}


def _not_opened(tenant: str | None, name: str | None, store: Sequence[str] = ()) -> dict[str, Any]:
    """Return the report of a collection that could not be opened, with its damage."""
    return {"tenant": tenant, "collection": name, **VerifyReport(store=list(store)).to_dict()}


def label(report: dict[str, Any]) -> str:
    """Return the name to show for the collection of a report."""
    if report["collection"] is None:
        return "(unreadable)"
    return f"{report['tenant']}/{report['collection']}" if report["tenant"] else str(report["collection"])


@click.command()
@click.argument("collection")
@click.option("--yes", is_flag=True, help="Do not ask.")
@tenant_option
@place_options
def drop(collection: str, yes: bool, tenant: str, place: Place, as_json: bool) -> int:
    """Delete COLLECTION and all its records."""
    with open_store(place) as store:
        if not yes:
            try:
                content = f"its {open_collection(store, collection, tenant).count():,} records"
            except (AuthenticationError, KeyUnavailableError):
                content = "records that these keys do not open"
            if not confirmed(f"Drop collection {collection!r} with {content}?", yes):
                return 1
        if not store.drop(collection, tenant=tenant):
            raise not_found(store, collection, tenant)
    if as_json:
        emit({"collection": collection, "tenant": tenant, "dropped": True})
    else:
        facts([("dropped", collection)])
    return 0
