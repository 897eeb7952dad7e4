"""`encvec ingest`: stream a file into a collection."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import click
import numpy as np

from ..collection import Collection
from ..data.metrics import METRICS, norms
from ..errors import CollectionNotFoundError, EncvecError, InputError, ShapeError
from ..keys.keyset import Keyset
from ..sealing.config import DEFAULT_SCHEME, NORM_MARGIN
from ..store import Store, connect
from ..transfer.batch import Batch, Reader
from .columns import Columns
from .common import Failure, Interrupted, Place, finish, open_store, place_options, tenant_option
from .output import emit, facts, note, progress
from .readers import FORMATS, open_reader

__all__ = ["Tally", "ingest", "new_collection_options", "new_settings", "open_or_make"]

_CHECK_ROWS = 65_536


@dataclass
class Tally:
    """What a run has done so far."""

    read: int = 0
    written: int = 0
    skipped: int = 0
    created: bool = False
    seconds: float | None = None
    started: float = field(default_factory=time.perf_counter)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        seconds = self.seconds or time.perf_counter() - self.started
        return {
            "read": self.read,
            "written": self.written,
            "skipped": self.skipped,
            "created": self.created,
            "seconds": round(seconds, 3),
            "records_per_second": round(self.written / seconds, 1) if seconds else None,
        }


def new_collection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the settings of a collection that is made on the way; the command takes them as `options`."""

    @click.option("--dim", type=click.IntRange(1), help="New collection: coordinates, if you want them checked.")
    @click.option("--metric", type=click.Choice(list(METRICS)), help="New collection: metric [default: cosine].")
    @click.option("--scheme", metavar="NAME", help="New collection: sketch, sap or sealed [default: sketch].")
    @click.option("--beta", type=float, help="New collection: noise. `encvec calibrate` finds it, also later.")
    @click.option("--threat", metavar="NAME", help="New collection: stolen-data [default] or watching-server.")
    @click.option("--max-norm", type=float, help="New collection, l2 or ip: length of the longest vector to come.")
    @click.option("--oversample", type=click.IntRange(1, 10_000), help="New collection: candidates re-ranked per hit.")
    @click.option("--precision", metavar="NAME", help="New collection: single [default] or half, in half the space.")
    @click.option(
        "--field", "fields", multiple=True, metavar="NAME=POLICY", help="New collection: sealed, blind or plain."
    )
    @functools.wraps(command)
    def with_options(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    return with_options


@click.command()
@click.argument("collection")
@click.argument("file", metavar="FILE")
@click.option("--format", "kind", type=click.Choice(sorted(set(FORMATS.values()))), help="If the suffix does not say.")
@click.option("--id-column", metavar="NAME", help="Column or key of the id [default: id, if there is one].")
@click.option("--vector-column", metavar="NAME", help="Of the vector [default: vector; in HDF5: train].")
@click.option("--document-column", metavar="NAME", help="Of the document [default: document, if there is one].")
@click.option("--id-prefix", metavar="TEXT", help="Rows without an id are named TEXT:ROW [default: the file's stem].")
@click.option("--batch-size", type=click.IntRange(1, 100_000), default=2048, show_default=True, help="Records a write.")
@click.option("--limit", type=click.IntRange(0), metavar="N", help="Only the first N records.")
@click.option("--resume", is_flag=True, help="Skip records whose ids are stored already.")
@click.option("--no-index", is_flag=True, help="Leave the index to the first search.")
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
    id_prefix: str | None,
    batch_size: int,
    limit: int | None,
    resume: bool,
    no_index: bool,
    tenant: str,
    place: Place,
    as_json: bool,
    **options: Any,
) -> None:
    """Encrypt FILE and store it in COLLECTION.

    The collection is created if there is none. Kinds of FILE:

    \b
    .npy      (n, dim) numbers
    .parquet  columns id, vector (a list of numbers) and document;
              all others are metadata, nulls left out
    .jsonl    a record a line; `-` is JSON lines on stdin:
              {"id": "a", "vector": [...], "metadata": {...}, "document": "..."}
    .hdf5     of ann-benchmarks: the data set `train`, and the metric it names

    JSON has fewer types than metadata: {"$date": "2024-05-01"} is a date, and so $datetime, $bytes (base64), $uuid,
    $decimal. `encvec get --json` writes them the same way.

    A record whose id exists is replaced. Rows without an id are named FILE-STEM:ROW, rows counted from 0. The file
    is streamed, and every batch is written whole or not at all: after an error or Ctrl-C the same command goes on
    where it stopped with --resume, which trusts ids and does not compare contents.

    \b
    Examples:
      encvec ingest docs embeddings.parquet --field lang=blind
      encvec ingest sift sift-128-euclidean.hdf5
      encvec ingest faces faces.npy --id-prefix 2024 --resume
      my-encoder texts.txt | encvec ingest docs -
    """
    reader = open_reader(file, kind, Columns(id_column, vector_column, document_column, id_prefix))
    settings = new_settings(options)
    with open_store(place, create=True) as store:
        tally = Tally()
        target: Collection | None = None
        total = reader.total if limit is None or reader.total is None else min(limit, reader.total)
        try:
            with progress(f"encrypting into {collection}", total) as advance:
                for batch in _limited(reader, batch_size, limit):
                    if target is None:
                        target = open_or_make(store, collection, tenant, settings, reader, batch, tally)
                    _write(target, reader, batch, resume, tally)
                    advance(len(batch.ids), None)
            tally.seconds = time.perf_counter() - tally.started
            if target is not None:
                finish(target, index=not no_index)
        except KeyboardInterrupt:
            if not as_json:
                note(f"{_so_far(tally)}; the same command with --resume goes on from here")
            raise Interrupted(**tally.to_dict()) from None
        except (EncvecError, OSError) as error:
            raise Failure(type(error).__name__, f"{error}; {_so_far(tally)}", **tally.to_dict()) from error
        if target is None:
            raise InputError(f"{reader.name} holds no records" if limit != 0 else "--limit 0 leaves nothing to do")
        summary = {"collection": collection, "tenant": tenant, "file": file, **tally.to_dict(), "count": target.count()}
    if as_json:
        emit(summary)
    else:
        facts((name, value) for name, value in summary.items() if name not in ("tenant", "created") or value)


def new_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Turn the options of a new collection into arguments of `Store.collection`."""
    scheme, fields = options.pop("scheme"), options.pop("fields")
    given = {name: value for name in ("beta", "threat") if (value := options.pop(name)) is not None}
    if given:
        scheme = {"name": scheme or DEFAULT_SCHEME, **given}
    policies: dict[str, str] | None = None
    if fields:
        policies = {}
        for text in fields:
            name, equals, policy = text.rpartition("=")
            if not equals or name in policies:
                raise click.UsageError(f"--field must be NAME=POLICY, once a name, got {text!r}")
            policies[name] = policy
    return {**options, "scheme": scheme, "fields": policies}


def _limited(reader: Reader, size: int, limit: int | None) -> Iterator[Batch]:
    left = limit
    if left == 0:
        return
    for batch in reader.batches(size if left is None else min(size, left)):
        yield batch if left is None or len(batch.ids) <= left else batch.take(range(left))
        if left is not None:
            left -= len(batch.ids)
            if left <= 0:
                return


def open_or_make(
    store: Store, name: str, tenant: str, settings: dict[str, Any], reader: Reader, first: Batch, tally: Tally
) -> Collection:
    """Open the collection, or create it once its settings and the first batch have proved good."""
    dim = first.vectors.shape[1]
    if settings["dim"] not in (None, dim):
        raise ShapeError(f"{reader.name} has vectors of {dim} coordinates, not {settings['dim']}")
    try:
        target = store.collection(name, tenant=tenant, **{**settings, "dim": None})
    except CollectionNotFoundError:
        wanted = {**settings, "dim": dim, "metric": settings["metric"] or reader.metric}
        if wanted["metric"] in ("l2", "ip") and wanted["max_norm"] is None and reader.total is not None:
            wanted["max_norm"] = _longest(reader)
        _rehearse(store.keyset, name, wanted, reader, first)
        tally.created = True
        return store.collection(name, tenant=tenant, **wanted)
    if target.dim != dim:
        raise ShapeError(f"{reader.name} has vectors of {dim} coordinates, collection {name!r} of {target.dim}")
    return target


def _longest(reader: Reader) -> float | None:
    """Read the file once for the longest vector, since later batches may exceed what the first one shows."""
    longest = 0.0
    with progress("looking for the longest vector", reader.total) as advance, closing(reader.scan(_CHECK_ROWS)) as scan:
        for vectors in scan:
            lengths = norms(np.asarray(vectors, np.float32))
            longest = max(longest, float(lengths.max(initial=0.0, where=np.isfinite(lengths))))
            advance(len(vectors), None)
    return NORM_MARGIN * longest if longest else None


def _rehearse(keyset: Keyset, name: str, settings: dict[str, Any], reader: Reader, batch: Batch) -> None:
    """Write the first batch in memory: a mistake must not leave an empty collection with wrong settings behind."""
    with connect("memory:", keyset=keyset) as trial:
        _write(trial.collection(name, **settings), reader, batch, False, Tally())


def _write(target: Collection, reader: Reader, batch: Batch, resume: bool, tally: Tally) -> None:
    tally.read += len(batch.ids)
    if resume:
        there = {record.id for record in target.get(batch.ids, include_vectors=False)}
        tally.skipped += len(there & set(batch.ids))
        batch = batch.take([place for place, id in enumerate(batch.ids) if id not in there])
    if not batch.ids:
        return
    try:
        target.upsert(batch.ids, batch.vectors, batch.metadata, batch.documents)
    except InputError as error:
        raise _placed(error, reader, batch) from None
    tally.written += len(batch.ids)


def _placed(error: InputError, reader: Reader, batch: Batch) -> InputError:
    """Name the file's row where the library names a place in the batch."""
    found = re.search(r"\b(ids|vectors|metadata|documents)\[(\d+)\]", str(error))
    if found is None or int(found[2]) >= len(batch.ids):
        span = f"{reader.unit}s {batch.positions[0]} to {batch.positions[-1]}"
        return type(error)(f"{reader.name}, {span}: {error}")
    what = {"ids": "the id", "vectors": "the vector", "documents": "the document"}.get(found[1], found[1])
    place = f"{reader.name}, {reader.unit} {batch.positions[int(found[2])]}"
    return type(error)(f"{place}: {str(error).replace(found[0], what, 1)}")


def _so_far(tally: Tally) -> str:
    written = f"{tally.written:,} records were written before" if tally.written else "nothing was written"
    return written + (f", {tally.skipped:,} skipped" if tally.skipped else "")
