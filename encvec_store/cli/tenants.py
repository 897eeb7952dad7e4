"""`encvec db tenants`: who has how much in a PostgreSQL store."""

from __future__ import annotations

import click

from ..runtime.urls import opening_options
from .common import Place, store_options
from .output import emit, note, table

__all__ = ["tenants"]


@click.command()
@store_options
def tenants(place: Place, as_json: bool) -> None:
    """List the tenants of a PostgreSQL store, largest first.

    Bytes are all of a tenant's tables and indexes on the server. Takes no keys; under row-level security it takes a
    superuser or a role with BYPASSRLS, since others see one tenant at a time. Where names are sealed, tokens stand for
    the tenants.
    """
    if not place.store_url.startswith("postgres"):
        raise click.UsageError("tenants are listed of a PostgreSQL store: give its URL by --store or ENCVEC_STORE")
    from ..storage.postgres import PostgresStore

    backend = PostgresStore(opening_options(place.store_url)[0], create=False)
    try:
        found = backend.tenants()
    finally:
        backend.close()
    if as_json:
        emit({"tenants": found})
    elif found:
        table(list(found[0]), [list(entry.values()) for entry in found])
    else:
        note("no collections yet")
