"""`encvec import`: copy a plaintext table or index into a collection, and compare the two."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..collection import Collection
from ..data.ids import Id
from ..errors import EncvecError, InputError
from ..keys.keyset import Keyset
from ..store import Store, connect
from ..transfer import Comparison, ImportSource, LoadResult, compare, load
from ..transfer.batch import sound
from ..transfer.load import BATCH, refuse
from ..transfer.trial import faults_of
from ..transfer.vectorfile import NAMELESS, VectorFile
from .building import Building, finish
from .columns import Columns, listed, text_id
from .common import Failure, Interrupted, Place, open_collection, open_store, place_options, tenant_option
from .intake import open_or_make
from .output import emit, facts, note, progress, snippet, table
from .plaintext import checked_table, folder_of, is_url, remains
from .readers import open_reader
from .settings import new_collection_options, new_settings

__all__ = ["import_"]

_FINE, _WANTING = 0, 1


@click.command("import")
@click.argument("source")
@click.argument("collection")
@click.option("--table", "table_name", metavar="NAME", help="SCHEMA.TABLE of a database, or table of a folder.")
@click.option("--id-column", metavar="NAME", help="Id column [default: the primary key, or id].")
@click.option("--vector-column", metavar="NAME", help="Vector column [default: the only one].")
@click.option("--metadata-columns", metavar="A,B,C", help="Metadata columns [default: all others]; '' for none.")
@click.option("--document-column", metavar="NAME", help="Document column [default: document, if text].")
@click.option("--flatten", multiple=True, metavar="NAME", help="Column of JSON objects: its keys become metadata.")
@click.option("--ids", "ids_file", metavar="FILE", help="Ids of a file's vectors, in order: .npy, .txt or .jsonl.")
@click.option("--metadata", "metadata_file", metavar="FILE", help="Metadata of a file's vectors: .jsonl or .parquet.")
@click.option(
    "--batch-size", type=click.IntRange(1, 100_000), default=BATCH, show_default=True, help="Records a write."
)
@click.option(
    "--on-error", type=click.Choice(["stop", "skip"]), default="stop", show_default=True, help="What a bad row does."
)
@click.option("--dry-run", is_flag=True, help="Write nothing; show what would be done.")
@click.option("--verify-only", is_flag=True, help="Only compare the collection with the source.")
@click.option("--no-verify", is_flag=True, help="Do not compare afterwards.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Compare N random rows instead of all.")
@click.option("--queries", type=click.IntRange(0), default=100, show_default=True, help="Searches to compare.")
@click.option(
    "--min-recall",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="Lowest recall@10 of these searches.",
)
@click.option("--no-index", is_flag=True, help="Let the first search build the index.")
@new_collection_options
@tenant_option
@place_options
def import_(
    source: str,
    collection: str,
    batch_size: int,
    on_error: Any,
    dry_run: bool,
    verify_only: bool,
    no_verify: bool,
    sample: int | None,
    queries: int,
    min_recall: float,
    no_index: bool,
    tenant: str,
    place: Place,
    as_json: bool,
    **options: Any,
) -> int:
    """Encrypt a plaintext table, index or folder into COLLECTION.

    The collection is created if there is none. Kinds of SOURCE:

    \b
    postgresql://...  a pgvector table, named by --table; vector or halfvec.
                      A password comes from PGPASSFILE, PGPASSWORD or a service.
    index.faiss       any FAISS index that can give its vectors back
    vectors.npy       (n, dim) numbers
    chroma:FOLDER     a collection of Chroma (PersistentClient)
    qdrant:FOLDER     a collection of Qdrant's local mode; only from people you trust
    lancedb:FOLDER    a table of LanceDB
                      Where a folder holds several, --table names one.

    Records that exist and are equal bit for bit are left alone. So after an error, Ctrl-C or a kill the same command
    goes on where it stopped, and later it brings what has changed. A batch is written completely or not at all.

    A sealed collection is indexed as it grows, and at the end the index is stored: the next search finds it ready.

    Then every record is read back, decrypted and compared with the source, and searches are compared with exact ones.
    The exit code is 1 if anything differs, a row was skipped, or recall@10 is below --min-recall.

    \b
    Examples:
      encvec import postgresql://app@db/shop docs --table public.items
      encvec import index.faiss docs --metadata docs.jsonl --metric cosine
      encvec import chroma:./chroma docs --table notes
      encvec import postgresql://app@db/shop docs --table public.items --verify-only
    """
    if verify_only and (dry_run or no_verify):
        raise click.UsageError("--verify-only does not go with --dry-run or --no-verify")
    sourcing = ("table_name", "id_column", "vector_column", "metadata_columns", "document_column", "flatten")
    reading = _source(source, {name: options.pop(name) for name in (*sourcing, "ids_file", "metadata_file")})
    settings = new_settings(options)
    done, report, building = LoadResult(), None, Building(wanted=not no_index)
    answer: dict[str, Any] = {"collection": collection, "tenant": tenant, "source": reading.name}
    with closing(reading), open_store(place, create=not (dry_run or verify_only)) as store:
        if reading.lossy and not as_json:
            note(f"warning: {reading.name}: {reading.lossy}")
        try:
            if verify_only:
                target, created = open_collection(store, collection, tenant), False
            else:
                target, created = _target(store, collection, tenant, settings, reading, batch_size, on_error, dry_run)
                with progress(f"importing into {collection}", reading.total) as advance:
                    load(
                        reading,
                        target,
                        batch_size=batch_size,
                        on_error=on_error,
                        dry_run=dry_run,
                        progress=advance,
                        loaded=done,
                        wrote=partial(building.wrote, target),
                    )
                if not dry_run:
                    finish(target, index=not no_index)
                answer |= {"dry_run": dry_run, "created": created and not dry_run, **done.to_dict()}
                answer["count"] = 0 if created and dry_run else target.count()
            if not (no_verify or dry_run):
                if not verify_only:
                    reading.again()
                with progress("comparing", reading.total) as advance:
                    report = compare(
                        reading, target, sample=sample, queries=queries, batch_size=batch_size, progress=advance
                    )
        except KeyboardInterrupt:
            if not as_json:
                note(f"{_so_far(done)}; the same command goes on from here")
            raise Interrupted(**done.to_dict()) from None
        except (EncvecError, OSError) as error:
            raise Failure(type(error).__name__, f"{error}; {_so_far(done)}", **done.to_dict()) from error
    low = report is not None and report.recall is not None and report.recall < min_recall
    good = not done.skipped and not low and (report is None or report.ok)
    answer |= {"ok": good, "lossy": reading.lossy, "verification": report and report.to_dict()}
    if as_json:
        emit(answer)
    else:
        _show(answer, done, report, min_recall if low else None, source)
    return _FINE if good else _WANTING


def _target(
    store: Store,
    name: str,
    tenant: str,
    settings: dict[str, Any],
    reading: ImportSource,
    size: int,
    on_error: Any,
    dry_run: bool,
) -> tuple[Collection, bool]:
    """Open the collection, or make it once its settings and the first batch have proved good."""
    with closing(reading.batches(size)) as batches:  # type: ignore[type-var]
        first = next(batches, None)
    if first is None:
        raise InputError(f"{reading.name} holds no records")
    if (tenant, name) not in store.collections():
        trial = connect("memory:", keyset=Keyset.create("memory:"))
        wanted = {**settings, "dim": reading.dim, "metric": settings["metric"] or reading.metric}
        rehearsed = trial.collection(name, tenant=tenant, **wanted)
        bad = [*first.faults, *faults_of(rehearsed, first)]
        refuse(LoadResult(), reading, bad, on_error)
        if dry_run:
            return rehearsed, True
        names = {fault.id for fault in bad}
        first = first.take([at for at, id in enumerate(first.ids) if id not in names])
    return open_or_make(store, name, tenant, settings, reading, first)


def _source(place: str, options: dict[str, Any]) -> ImportSource:
    columns = {name: options[f"{name}_column"] for name in ("id", "vector", "document")}
    metadata = listed(options["metadata_columns"])
    if is_url(place) or folder_of(place):
        for name in ("ids", "metadata"):
            if options[f"{name}_file"] is not None:
                raise click.UsageError(f"--{name} is for files: tables and folders have their own")
    if is_url(place):
        table_name = checked_table(place, options["table_name"])
        from ..transfer.table import TableSource

        return TableSource(place, table_name, metadata=metadata, flatten=options["flatten"], **columns)
    if (folder := folder_of(place)) is not None:
        return folder(options["table_name"], metadata=metadata, flatten=options["flatten"], **columns)
    for name in ("table_name", "metadata_columns", "vector_column"):
        if options[name] is not None:
            raise click.UsageError(f"--{name.removesuffix('_name').replace('_', '-')} is for tables, not for a file")
    ids, extra = options["ids_file"], None
    if options["metadata_file"] is not None:
        wanted = Columns(columns["id"], None, columns["document"], NAMELESS, vectors=False, flatten=options["flatten"])
        extra = open_reader(options["metadata_file"], None, wanted)
    elif columns["id"] or columns["document"] or options["flatten"]:
        raise click.UsageError("--id-column, --document-column and --flatten name columns of the file of --metadata")
    return VectorFile(place, None if ids is None else _ids(Path(ids)), extra)


def _ids(path: Path) -> Sequence[Id]:
    """Read ids: an array, a line each, or the key `id` of JSON lines. Raises InputError."""
    match path.suffix.lower():
        case ".npy":
            import numpy as np

            try:
                return [text_id(value, str(path)) for value in np.load(path, allow_pickle=False).tolist()]
            except (ValueError, EOFError, TypeError) as error:
                raise InputError(f"{path} is no array of ids in NumPy's format: {error}") from None
        case ".jsonl" | ".ndjson":
            reader = open_reader(str(path), None, Columns("id", vectors=False))
            return [id for batch in sound(reader, 65_536) for id in batch.ids]
        case ".txt":
            try:
                return path.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError:
                raise InputError(f"{path} is no UTF-8 text") from None
    raise InputError(f"{path}: ids come from .npy, .txt or .jsonl")


def _so_far(done: LoadResult) -> str:
    n = done.written + done.updated
    return f"{n:,} records were written before" if n else "nothing was written"


def _show(answer: dict[str, Any], done: LoadResult, report: Comparison | None, low: float | None, source: str) -> None:
    hidden, seldom = ("faults", "verification", "ok", "lossy"), ("tenant", "dry_run", "created")
    shown = [(name, value) for name, value in answer.items() if name not in hidden and (value or name not in seldom)]
    facts((name.replace("_", " "), value) for name, value in shown)
    for fault in done.faults[:20]:
        note(f"skipped id {fault.id!r}: {fault.reason}")
    if answer.get("dry_run"):
        note("nothing was written: this was a dry run")
        return
    if report is None:
        return
    click.echo()
    facts(
        [
            ("rows in the source", f"{report.source:,}"),
            ("records in the collection", f"{report.collection:,}"),
            ("compared", f"{report.compared:,}"),
            ("different", f"{report.different:,}"),
            ("changed in the source meanwhile", f"{report.changed:,}"),
            (
                "recall@10",
                "not measured" if report.recall is None else f"{report.recall:.4f}, {report.queries} queries",
            ),
            ("wrong scores", report.wrong_scores),
        ]
    )
    if report.mismatches:
        click.echo()
        listed = report.mismatches[:50]
        rows = [(snippet(str(m.id), 80), snippet(m.what, 100), "yes" if m.changed else "") for m in listed]
        table(["id", "what", "changed meanwhile"], rows)
    if report.changed:
        note("the source was written to meanwhile: the same command brings what has changed")
    if low is not None:
        note(f"recall@10 is below {low:g}: see `encvec calibrate`, or raise --oversample")
    if report.ok:
        remains(answer["source"] if is_url(source) else source, in_table=is_url(source))
