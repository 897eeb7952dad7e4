"""`encvec scheme`: change the scheme of a collection in place."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

from typing import Any

import click

from .building import finish
from .common import Interrupted, Place, open_collection, open_store, place_options, tenant_option
from .output import emit, facts, note, progress

__all__ = ["scheme"]


@click.command()
@click.argument("collection")
@click.argument("scheme")
@click.option("--beta", type=float, help="Noise of sketch or sap. `encvec calibrate` finds it, also later.")
@click.option("--threat", metavar="NAME", help="For a sketch: stolen-data [default] or watching-server.")
@click.option("--max-norm", type=float, help="l2 or ip: longest length of a vector [default: as it is].")
@tenant_option
@place_options
def scheme(
    collection: str,
    scheme: str,
    beta: float | None,
    threat: str | None,
    max_norm: float | None,
    tenant: str,
    place: Place,
    as_json: bool,
) -> None:
    """Encrypt COLLECTION anew under SCHEME: sealed, sketch or sap.

    Ids, metadata and documents stay. Others search and write meanwhile, and see the old scheme until the end. Stop it
    with Ctrl-C, or kill it, and the same command goes on where it was; with the old SCHEME it gives up what was done.
    Then the index is built. The answer says where old ciphertexts may still lie, and what to run.

    \b
    Examples:
      encvec scheme docs sealed
      encvec scheme docs sketch --beta 5
    """
    given = {name: value for name, value in (("beta", beta), ("threat", threat)) if value is not None}
    spec: Any = {"name": scheme, **given} if given else scheme
    with open_store(place) as store:
        target = open_collection(store, collection, tenant)
        try:
            with progress(f"encrypting {collection} anew", target.count()) as advance:
                found = target.change(scheme=spec, max_norm=max_norm, progress=advance)
        except KeyboardInterrupt:
            left = target.stats()["change"]
            if left and not as_json:
                note(f"{left['done']:,} of {left['records']:,} records are done; the same command does the rest")
            raise Interrupted(change=left) from None
        if found.changed:
            finish(target, index=True)
    answer = {"collection": collection, "tenant": tenant, **found.to_dict()}
    if as_json:
        emit(answer)
        return
    facts((name, value) for name, value in answer.items() if name != "remains" and (name != "tenant" or value))
    if found.changed and found.remains:
        click.echo(f"\n{found.remains}")
