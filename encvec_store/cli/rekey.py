"""`encvec rekey`: seal collections anew under the primary key version, while others use them."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

from typing import Any

import click

from ..errors import EncvecError
from ..store import Store
from .admin import chosen, label
from .common import Failure, Place, open_store, place_options
from .output import emit, note, progress, table

__all__ = ["rekey"]


@click.command()
@click.argument("names", nargs=-1, metavar="[COLLECTION]...")
@click.option("--tenant", metavar="NAME", help="Only this tenant's collections.")
@place_options
def rekey(names: tuple[str, ...], tenant: str | None, place: Place, as_json: bool) -> None:
    """Seal collections anew under the primary key version.

    All of them, unless some are named. Run it after `encvec keys rotate`. Reads and writes go on meanwhile. It may be
    stopped at any moment, also by kill -9: run it again, and it goes on where it was. When no record is left under an
    older version, that one can be destroyed. The answer says where old ciphertexts may still lie, and what to run.

    \b
    Example:
      encvec keys rotate && encvec rekey
    """
    with open_store(place) as store:
        reports = [_rekeyed(store, owner, name) for owner, name in chosen(store, names, tenant)]
    if as_json:
        emit({"collections": reports})
    elif reports:
        heads = ["collection", "key version", "sealed anew", "left under others", "old segments"]
        table(heads, [[label(each), *_cells(each)] for each in reports])
        for remains in dict.fromkeys(each["remains"] for each in reports if each.get("remains")):
            click.echo(f"\n{remains}")
    else:
        note("there are no collections to seal anew")
    failed = [each for each in reports if "error" in each]
    if failed:
        which = ", ".join(f"{label(each)} ({each['error']})" for each in failed)
        raise Failure(failed[0]["kind"], f"not sealed anew: {which}")
    left = [label(each) for each in reports if not each["done"]]
    if left and not as_json:
        note(
            f"not all is under the primary key version: {', '.join(left)}. Records under a disabled version wait until"
            " it is enabled, old segments until no other process builds; then run `encvec rekey` again"
        )


def _rekeyed(store: Store, tenant: str, name: str) -> dict[str, Any]:
    try:
        found = store.collection(name, tenant=tenant)
        with progress(f"sealing {name} anew", found.count()) as advance:
            return found.rekey(progress=advance).to_dict()
    except EncvecError as error:  # go on with the other collections
        return {"tenant": tenant, "collection": name, "done": False, "kind": type(error).__name__, "error": str(error)}


def _cells(report: dict[str, Any]) -> list[Any]:
    if "error" in report:
        return [report["error"], "", "", ""]
    left = ", ".join(f"{n:,} under {version}" for version, n in report["left"].items())
    return [report["version"], report["sealed"], left or "none", report["segments"]]
