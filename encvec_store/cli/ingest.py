"""`encvec ingest`: stream a file into a collection."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

import time
from typing import Any

import click

from ..errors import EncvecError, InputError
from .building import Building, finish
from .columns import Columns, listed
from .common import Failure, Interrupted, Place, open_store, place_options, tenant_option
from .intake import Intake, Tally, open_or_make
from .order import batches_of, shuffled
from .output import emit, facts, note, progress
from .readers import FORMATS, open_reader
from .settings import new_collection_options, new_settings

__all__ = ["ingest"]

_TOLD = 20


@click.command()
@click.argument("collection")
@click.argument("file", metavar="FILE")
@click.option(
    "--format",
    "kind",
    type=click.Choice(sorted(set(FORMATS.values()))),
    help="File format, if the suffix does not tell.",
)
@click.option("--id-column", metavar="NAME", help="Id column or key [default: id, if present].")
@click.option(
    "--vector-column", metavar="NAME", help="Vector column; A.B is B inside A [default: vector; HDF5: train]."
)
@click.option("--document-column", metavar="NAME", help="Document column [default: document, if present].")
@click.option("--columns", metavar="A,B,C", help="Metadata columns [default: all others]; '' for none.")
@click.option("--exclude", metavar="A,B,C", help="Columns to leave out.")
@click.option("--flatten", multiple=True, metavar="NAME", help="Column of JSON objects: its keys become metadata.")
@click.option("--id-prefix", metavar="TEXT", help="Rows without an id are named TEXT:ROW [default: the file's stem].")
@click.option("--batch-size", type=click.IntRange(1, 100_000), default=2048, show_default=True, help="Records a write.")
@click.option("--limit", type=click.IntRange(0), metavar="N", help="Only the first N records.")
@click.option("--resume", is_flag=True, help="Skip records whose ids are stored already.")
@click.option(
    "--on-error", type=click.Choice(["stop", "skip"]), default="stop", show_default=True, help="What a bad row does."
)
@click.option("--shuffle", is_flag=True, help="Write the rows in random order.")
@click.option("--seed", type=click.IntRange(0), help="Seed of --shuffle [default: a secret random order].")
@click.option("--no-index", is_flag=True, help="Let the first search build the index.")
@new_collection_options
@tenant_option
@place_options
def ingest(
    collection: str,
    file: str,
    kind: str | None,
    id_column: str | None,
    vector_column: str | None,
    document_column: str | None,
    columns: str | None,
    exclude: str | None,
    flatten: tuple[str, ...],
    id_prefix: str | None,
    batch_size: int,
    limit: int | None,
    resume: bool,
    on_error: Any,
    shuffle: bool,
    seed: int | None,
    no_index: bool,
    tenant: str,
    place: Place,
    as_json: bool,
    **options: Any,
) -> int:
    """Encrypt FILE and store it in COLLECTION.

    The collection is created if there is none. Kinds of FILE:

    \b
    .npy .fvecs .bvecs  (n, dim) numbers; the last two under metric l2
    .npz      arrays: vectors, and optional ids, documents and metadata
    .parquet  columns id, vector and document; all others are metadata,
              nulls left out
    .csv .tsv the same, with names in the first line; metadata are text
    .jsonl    a record a line; `-` is JSON lines on stdin:
              {"id": "a", "vector": [...], "metadata": {...}, "document": "..."}
    .hdf5     of ann-benchmarks: the data set `train`, and the metric it names

    A vector is a list of numbers, a tensor of one dimension, or little-endian float32 as bytes or base64.

    JSON has fewer types than metadata: {"$date": "2024-05-01"} is a date, and so $datetime, $bytes (base64), $uuid,
    $decimal. `encvec get --json` writes them the same way.

    A record whose id exists is replaced, but the file must not hold an id twice. Rows without an id get the id
    FILE-STEM:ROW, with rows counted from 0. The file is streamed, and a batch is written completely or not at all.
    After an error or Ctrl-C the same command with --resume goes on where it stopped; it compares ids, not contents.
    A sealed collection is indexed as it grows, and at the end the index is stored: the next search finds it ready.
    With --on-error skip, rows that cannot be stored are left out and listed, and the exit code is 1.

    A store shows the order in which records were written. --shuffle hides the file's order; it takes memory for the
    whole file, except for arrays that are mapped (.npy, .fvecs, .bvecs).

    \b
    Examples:
      encvec ingest docs embeddings.parquet --field lang=blind
      encvec ingest docs rows.csv --vector-column embedding --exclude notes
      encvec ingest sift sift-128-euclidean.hdf5
      encvec ingest faces faces.npy --id-prefix 2024 --resume
      my-encoder texts.txt | encvec ingest docs -
    """
    if seed is not None and not shuffle:
        raise click.UsageError("--seed goes with --shuffle")
    wanted = Columns(
        id_column,
        vector_column,
        document_column,
        id_prefix,
        only=listed(columns),
        exclude=listed(exclude) or [],
        flatten=flatten,
    )
    reader = open_reader(file, kind, wanted)
    settings = new_settings(options)
    with open_store(place, create=True) as store:
        tally = Tally()
        intake = Intake(reader, tally, on_error, resume)
        building, target = Building(wanted=not no_index), None
        total = reader.total if limit is None or reader.total is None else min(limit, reader.total)
        batches = shuffled(reader, batch_size, limit, seed) if shuffle else batches_of(reader, batch_size, limit)
        try:
            with progress(f"encrypting into {collection}", total) as advance:
                for batch in batches:
                    good = intake.sound(batch)
                    if good.ids:
                        if target is None:
                            skip = on_error == "skip"
                            made = open_or_make(store, collection, tenant, settings, reader, good, skip=skip)
                            target, tally.created = made
                        written = intake.write(target, good)
                        building.wrote(target, len(written.ids))
                    advance(len(batch.ids) + len(batch.faults), None)
            tally.seconds = time.perf_counter() - tally.started
            if target is not None:
                finish(target, index=not no_index)
        except KeyboardInterrupt:
            if not as_json:
                note(_left(tally))
            raise Interrupted(**tally.to_dict()) from None
        except (EncvecError, OSError) as error:
            raise Failure(type(error).__name__, f"{error}; {_so_far(tally)}", **tally.to_dict()) from error
        if target is None:
            raise InputError(_nothing(reader.name, tally, limit))
        summary = {"collection": collection, "tenant": tenant, "file": file, **tally.to_dict(), "count": target.count()}
    if as_json:
        emit(summary)
    else:
        seldom = ("tenant", "created", "refused")
        facts((name, value) for name, value in summary.items() if name != "faults" and (name not in seldom or value))
        for fault in tally.faults[:_TOLD]:
            note(f"skipped {fault.id}: {fault.reason}")
    return 1 if tally.refused else 0


def _nothing(name: str, tally: Tally, limit: int | None) -> str:
    if limit == 0:
        return "--limit 0 leaves nothing to do"
    if not tally.faults:
        return f"{name} holds no records"
    first = tally.faults[0]
    return f"{name}: none of its {tally.refused:,} rows can be stored; {first.id}: {first.reason}"


def _left(tally: Tally) -> str:
    if tally.seconds is not None:
        return f"all {tally.written:,} records are written; `encvec maintain` and the first search do the rest"
    return f"{_so_far(tally)}; the same command with --resume goes on from here"


def _so_far(tally: Tally) -> str:
    written = f"{tally.written:,} records were written before" if tally.written else "nothing was written"
    return written + (f", {tally.skipped:,} skipped" if tally.skipped else "")
