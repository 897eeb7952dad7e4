"""`encvec tenant`: give tenants keys of their own, list them, and erase a tenant for good."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

import click

from ..errors import EncvecError
from ..keys import TenantKey
from ..store import Store
from .common import Place, confirmed, help_if_alone, open_keyset, open_store, place_options
from .group import Passing
from .output import emit, facts, note, table

__all__ = ["tenant"]


@click.group(cls=Passing, invoke_without_command=True)
@click.pass_context
def tenant(context: click.Context) -> None:
    """Give tenants keys of their own, and erase a tenant for good.

    A tenant with a key of its own can be erased: its key is destroyed, and nothing of it can be read again, also in
    backups of the store. The key lies in the keyset, or a key of the tenant in a key service wraps it.

    \b
    Example:
      encvec tenant add acme
      encvec ingest docs file.parquet --tenant acme
      encvec tenant erase acme
    """
    help_if_alone(context)


@tenant.command()
@click.argument("name")
@click.option("--wrap", metavar="W", help="The tenant's own key in a key service, such as awskms:alias/acme.")
@click.option("--rotate", is_flag=True, help="It has collections already: use its key from a new key version on.")
@place_options
def add(name: str, wrap: str | None, rotate: bool, place: Place, as_json: bool) -> None:
    """Give the tenant NAME a key of its own, best before its first collection.

    With --rotate, run `encvec rekey --tenant NAME` next: until then its records do not depend on its key.
    """
    with open_store(place) as store:
        store.add_tenant(name, wrap=wrap, rotate=rotate)
        made = store.keyset.tenants.get(name)
    if made is not None:
        answer = _described(made)
        emit(answer) if as_json else facts((key, value) for key, value in answer.items() if value != "")
        if not as_json:
            note("back up the keyset: without it the tenant's records cannot be read")
            if made.since > 1:
                note(f"its key counts from key version {made.since} on: run `encvec rekey --tenant {name}` now")


@tenant.command("list")
@place_options
def list_(place: Place, as_json: bool) -> None:
    """List the tenants that have a key of their own, or had one until they were erased."""
    found = [_described(item) for item in open_keyset(place).tenants]
    if as_json:
        emit({"tenants": found})
    elif found:
        table(list(found[0]), [list(entry.values()) for entry in found])
    else:
        note("no tenant has a key of its own: `encvec tenant add NAME` gives it one")


@tenant.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_options
def erase(name: str, yes: bool, place: Place, as_json: bool) -> int:
    """Destroy the key of the tenant NAME for good, and delete its collections.

    Nothing of it can be read again, in files, logs, free pages and backups of the store. The answer says when other
    processes stop, and where its key may still lie: in copies of the keyset. If it is stopped, run it again.
    """
    with open_store(place) as store:
        known = store.keyset.tenants.get(name)
        if known is not None and not known.erased and not yes:
            question = f"Erase tenant {name!r} for good? It has {_content(store, name)}, which nobody can read again."
            if not confirmed(question, yes):
                return 1
        report = store.erase_tenant(name)
    if as_json:
        emit(report.to_dict())
    else:
        facts(report.to_dict().items())
    return 0


def _described(item: TenantKey) -> dict[str, str | int]:
    return {
        "tenant": item.name,
        "created": item.created,
        "erased": item.erased,
        "wrapped_by": item.wrap,
        "since_version": item.since,
    }


def _content(store: Store, name: str) -> str:
    """Say how much a tenant has, as far as that can be seen."""
    there, unnamed = store.verify_names(name)
    collections = f"{len(there) + len(unnamed):,} collections"
    try:
        records = sum(store.collection(other, tenant=name).count() for _, other in there)
    except EncvecError:
        return collections
    return collections if unnamed else f"{collections} with {records:,} records"
