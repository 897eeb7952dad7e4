"""`encvec maintain` and `encvec refit`: do the maintenance that is due for whole collections."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

from typing import Any

import click

from ..errors import EncvecError
from ..store import Store
from .admin import chosen, label
from .common import Failure, Place, open_collection, open_store, place_options, tenant_option
from .output import emit, facts, note, progress, table

__all__ = ["maintain", "refit"]


@click.command()
@click.argument("names", nargs=-1, metavar="[COLLECTION]...")
@click.option("--purge", is_flag=True, help="Sealed collections: leave nothing of deleted records in the index.")
@click.option("--tenant", metavar="NAME", help="Only this tenant's collections.")
@place_options
def maintain(names: tuple[str, ...], purge: bool, tenant: str | None, place: Place, as_json: bool) -> None:
    """Do what is due for the collections (default: all).

    Fits the profile of a sketch once there are enough records, and again when recent records differ. As a collection
    grows, spreads it over more cells and re-ranks more candidates. Each step is one transaction. For a sealed
    collection, indexes new records and stores the index. Searches go on meanwhile, and an interrupted step is simply
    run again. `encvec stats` says what is due.

    \b
    Example:
      encvec maintain docs
    """
    with open_store(place) as store:
        reports = [_maintained(store, owner, name, purge=purge) for owner, name in chosen(store, names, tenant)]
    if as_json:
        emit({"collections": reports})
    elif reports:
        rows = [[label(report), line] for report in reports for line in report["done"] or ["nothing was due"]]
        table(["collection", "done"], rows)
    else:
        note("there are no collections to maintain")
    failed = [report for report in reports if "error" in report]
    if failed:
        which = ", ".join(f"{label(report)} ({report['error']})" for report in failed)
        raise Failure(failed[0]["kind"], f"not maintained: {which}")


def _maintained(store: Store, tenant: str, name: str, *, purge: bool) -> dict[str, Any]:
    place = {"tenant": tenant, "collection": name}
    try:
        found = store.collection(name, tenant=tenant)
        with progress(f"maintaining {name}", found.count()) as advance:
            return {**place, "done": found.maintain(purge=purge, progress=advance)}
    except EncvecError as error:  # go on with the other collections
        return {**place, "done": [], "kind": type(error).__name__, "error": str(error)}


@click.command()
@click.argument("collection")
@tenant_option
@place_options
def refit(collection: str, tenant: str, place: Place, as_json: bool) -> None:
    """Fit the profile of COLLECTION again, and encrypt it anew.

    Use it when recent records differ from those that the profile was fitted on: `encvec stats` says so. It is one
    transaction: searches go on meanwhile, and if it is interrupted nothing has changed. Only the scheme sketch has a
    profile.

    \b
    Example:
      encvec refit docs
    """
    with open_store(place) as store:
        target = open_collection(store, collection, tenant)
        count = target.count()
        with progress(f"encrypting {collection} anew", count) as advance:
            target.refit(progress=advance)
        with progress("building the index"):
            target.flush()
    answer = {"collection": collection, "tenant": tenant, "refitted": True, "count": count}
    if as_json:
        emit(answer)
    else:
        facts((name, value) for name, value in answer.items() if name != "tenant" or value)
