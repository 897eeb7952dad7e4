"""`encvec update`: change records that exist."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..errors import InputError
from .common import Place, open_collection, open_store, place_options, tenant_option
from .data import named, tell, where_option
from .values import parse_where

__all__ = ["update"]


@click.command()
@click.argument("collection")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--set", "fields", metavar="JSON", help="Metadata to set, '{\"seen\": true}'; `-` is stdin.")
@click.option("--document", metavar="FILE", help="The new document, in UTF-8; `-` is stdin.")
@click.option("--replace", is_flag=True, help="Replace all metadata, instead of the keys that are given.")
@where_option
@tenant_option
@place_options
def update(
    collection: str,
    ids: tuple[str, ...],
    fields: str | None,
    document: str | None,
    replace: bool,
    where: str | None,
    tenant: str,
    place: Place,
    as_json: bool,
) -> None:
    """Change metadata or the document of records that exist.

    All or nothing. Other keys of their metadata stay, and so do vectors. Missing ids are no error. Other users see
    command lines: give secrets on stdin.

    \b
    Examples:
      encvec update docs docs:17 --set '{"lang": "de"}'
      encvec update docs --where '{"source": "old.pdf"}' --set '{"archived": true}'
    """
    if bool(ids) == (where is not None):
        raise click.UsageError("update takes either ids or --where")
    if fields is None and document is None:
        raise click.UsageError("update takes --set, --document or both")
    if fields == document == "-":
        raise click.UsageError("only one of --set and --document can be on standard input")
    metadata = parse_where(sys.stdin.read() if fields == "-" else fields, "--set")
    texts = None if document is None else [_text_of(document)] * len(ids)
    condition = parse_where(where)
    with open_store(place) as store:
        target = open_collection(store, collection, tenant)
        if ids:
            n = target.update(named(target, ids), metadata=metadata, documents=texts, replace=replace)
        else:
            n = target.update(where=condition, metadata=metadata, documents=texts, replace=replace)
    tell({"collection": collection, "tenant": tenant, "updated": n}, as_json)


def _text_of(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file} is not text in UTF-8") from None
