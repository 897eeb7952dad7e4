"""`encvec db upgrade`, `downgrade`, `current`, `history`, `sql`: revisions of tables.

Exit codes: 0 fine; 1 it ran, and the answer is bad (`current`: this version cannot use the tables; `downgrade`: you
answered no); 2 not done.
"""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from .. import migrate
from .common import Place, confirmed, store_options
from .output import emit, facts, note, table

__all__ = ["current", "downgrade", "history", "sql", "upgrade"]


@click.command()
@click.argument("revision", metavar="[REV]", default="head")
@store_options
def upgrade(revision: str, place: Place, as_json: bool) -> None:
    """Upgrade the store's tables to REV (default: the newest).

    Creates them if there are none. The upgrade is all or nothing. Older versions of encvec can still use the tables
    if they read the format that `encvec db history` shows for REV. In PostgreSQL you must own the tables.
    """
    _told(*migrate.upgrade(place.store_url, revision), as_json)


@click.command()
@click.argument("revision", metavar="REV")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--accept-data-loss", is_flag=True, help="Delete data that earlier tables cannot hold.")
@store_options
def downgrade(revision: str, yes: bool, accept_data_loss: bool, place: Place, as_json: bool) -> int:
    """Downgrade the store's tables to REV; 0 removes them.

    Refuses if that would delete data, unless you pass --accept-data-loss.
    """
    url = place.store_url
    fate = " Data that it cannot hold will be deleted." if accept_data_loss else ""
    if not confirmed(f"Downgrade the tables of {migrate.current(url).store} to revision {revision}?{fate}", yes):
        return 1
    _told(*migrate.downgrade(url, revision, accept_data_loss=accept_data_loss), as_json)
    return 0


@click.command()
@store_options
def current(place: Place, as_json: bool) -> int:
    """Show the revision of the store's tables.

    The exit code is 1 if this version of encvec cannot use them.
    """
    version = migrate.current(place.store_url)
    document = asdict(version) | {"usable": version.usable}
    if as_json:
        emit(document)
    else:
        facts(document.items())
        if not version.usable:
            note("run `encvec db upgrade`" if version.revision < version.head else "install a newer version of encvec")
    return 0 if version.usable else 1


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def history(as_json: bool) -> None:
    """List all revisions, with their formats.

    The format is what a version of encvec must be able to read to use the tables after that revision.
    """
    found = [asdict(revision) for revision in migrate.history()]
    if as_json:
        emit({"revisions": found})
    else:
        table(["revision", "format", "what"], [[entry["number"], entry["format"], entry["title"]] for entry in found])


@click.command()
@click.argument("revision", metavar="[REV]", default="head")
@click.option("--from", "start", metavar="REV", default="0", help="Current revision [default: no tables yet].")
@click.option("--with-extension", is_flag=True, help="Begin with CREATE EXTENSION, which needs a superuser.")
@store_options
def sql(revision: str, start: str, with_extension: bool, place: Place, as_json: bool) -> None:
    """Print the SQL of an upgrade to REV, for a DBA to run.

    Connects to no server. Only the option `schema` of a PostgreSQL --store matters.

    \b
    Example:
      encvec db sql --store postgresql:///vectors | psql -v ON_ERROR_STOP=1 vectors
    """
    text = migrate.sql(place.store_url, revision, start=start, with_extension=with_extension)
    if as_json:
        emit({"sql": text})
    else:
        click.echo(text, nl=False)


def _told(before: migrate.Version, after: migrate.Version, as_json: bool) -> None:
    document: dict[str, Any] = {"store": after.store, "before": before.revision, "revision": after.revision}
    if as_json:
        emit(document)
    else:
        facts(document.items())
