"""`encvec export`: write a collection to a table or files, in clear."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

import time
from typing import Any

import click

from .common import Place, need, open_collection, open_store, place_options, tenant_option
from .output import emit, facts, note, progress
from .plaintext import checked_table, is_url

__all__ = ["export"]


@click.command()
@click.argument("collection")
@click.argument("destination", metavar="DEST")
@click.option("--plaintext", is_flag=True, help="Confirm that the export is not encrypted. Required.")
@click.option("--table", "table_name", metavar="NAME", help="Table of the database: SCHEMA.TABLE.")
@click.option("--index", type=click.Choice(["flat", "hnsw"]), help="Kind of a FAISS index [default: flat].")
@click.option("--replace", is_flag=True, help="Replace the table or files if they exist.")
@tenant_option
@place_options
def export(
    collection: str,
    destination: str,
    plaintext: bool,
    table_name: str | None,
    index: Any,
    replace: bool,
    tenant: str,
    place: Place,
    as_json: bool,
) -> None:
    """Write COLLECTION out, in clear.

    DEST is not encrypted. Only the owner can read the files (mode 0600); a table belongs to the role that writes it.
    Kinds of DEST:

    \b
    postgresql://...  a table, named by --table: id text, embedding vector,
                      metadata jsonb, document text
    vectors.npy       an array; ids, metadata and documents in vectors.jsonl
    vectors.parquet   columns id, vector, document, and a column a metadata key
    vectors.faiss     a FAISS index; the rest in vectors.jsonl

    The export is of one moment, when it begins. Others may write meanwhile; only what replaces the whole collection
    must wait, in PostgreSQL. A file or table gets its name only when it is complete. If the command is killed, run it
    again: it begins anew, with a new moment.
    `encvec import DEST COLLECTION --verify-only` compares a table, an array or an index with the collection.

    \b
    Examples:
      encvec export docs vectors.npy --plaintext
      encvec export docs postgresql://app@db/shop --table public.items --plaintext
    """
    if not plaintext:
        raise click.UsageError("an export is in clear, vectors, ids, metadata and all: add --plaintext if you mean it")
    started = time.perf_counter()
    if is_url(destination):
        table_name = checked_table(destination, table_name)
        if index is not None:
            raise click.UsageError("--index is for a FAISS index, not for a table")
    elif table_name is not None:
        raise click.UsageError("--table is for a database, not for a file")
    elif destination.lower().endswith((".parquet", ".pq")):
        need("pyarrow.parquet")
    with open_store(place) as store:
        target = open_collection(store, collection, tenant)
        with progress(f"exporting {collection}", target.count()) as advance:
            if is_url(destination):
                from ..transfer.to_table import to_table

                n = to_table(target, destination, str(table_name), replace=replace, progress=advance)
            else:
                from ..transfer.to_files import to_file

                n = to_file(target, destination, index=index or "flat", replace=replace, progress=advance)
    where = table_name if is_url(destination) else destination
    seconds = round(time.perf_counter() - started, 3)
    answer = {"collection": collection, "tenant": tenant, "destination": where, "exported": n, "seconds": seconds}
    if as_json:
        emit(answer)
    else:
        facts((name, value) for name, value in answer.items() if name != "tenant" or value)
        note(f"{where} is plaintext")
