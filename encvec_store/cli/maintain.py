"""`encvec maintain`: do the maintenance that is due for whole collections."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

from typing import Any

import click

from ..errors import EncvecError
from ..store import Store
from .admin import chosen, label
from .common import Failure, Place, open_store, place_options
from .output import emit, note, progress, table

__all__ = ["maintain"]


@click.command()
@click.argument("names", nargs=-1, metavar="[COLLECTION]...")
@click.option("--tenant", metavar="NAME", help="Only this tenant's collections.")
@place_options
def maintain(names: tuple[str, ...], tenant: str | None, place: Place, as_json: bool) -> None:
    """Do what is due for the collections (default: all).

    Fits the profile of a sketch once there are enough records, and again when recent records differ. As a collection
    grows, spreads it over more cells and re-ranks more candidates. Each step is one transaction: searches go on
    meanwhile, and an interrupted step is simply run again. `encvec stats` says what is due.

    \b
    Example:
      encvec maintain docs
    """
    with open_store(place) as store:
        reports = [_maintained(store, owner, name) for owner, name in chosen(store, names, tenant)]
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


def _maintained(store: Store, tenant: str, name: str) -> dict[str, Any]:
    place = {"tenant": tenant, "collection": name}
    try:
        found = store.collection(name, tenant=tenant)
        with progress(f"maintaining {name}", found.count()) as advance:
            return {**place, "done": found.maintain(progress=advance)}
    except EncvecError as error:  # go on with the other collections
        return {**place, "done": [], "kind": type(error).__name__, "error": str(error)}
