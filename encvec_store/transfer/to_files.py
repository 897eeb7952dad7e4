"""Export to files: an array or a FAISS index with a file of JSON lines, or Parquet.

Every file is written under another name, for its owner only, and renamed when it is complete.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import secrets
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from ..collection import Collection
from ..data.records import Record
from ..errors import InputError
from .typed import record_to_json
from .unload import Moment, Progress, moment

__all__ = ["SUFFIXES", "to_file"]

SUFFIXES = {".npy": "npy", ".parquet": "parquet", ".pq": "parquet", ".faiss": "faiss", ".index": "faiss"}
_OWN = ("id", "vector", "document")
_LINES = "A .npy file has JSON lines beside, which hold everything"
_LABEL = re.compile(r"0|[1-9][0-9]{0,17}")  # what a label of 64 bits holds, and its text gives back


def to_file(
    collection: Collection,
    path: str | Path,
    *,
    index: Literal["flat", "hnsw"] = "flat",
    replace: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write a collection, in clear, to a file: `.npy`, `.parquet`, or `.faiss`. It is written as it is at one moment.

    Arrays and indexes get a second file beside, `.jsonl`: id, metadata and document of each vector, a line each.

    Args:
        collection: what to write.
        path: its suffix says what it becomes.
        index: kind of a FAISS index. It has the ids itself where all of them are whole numbers. Under cosine it ranks
            by inner product over the vectors as they are, which is the same where they have unit length.
        replace: replace files of these names.
        progress: called with (records done since the last call, records in all).

    Returns:
        How many records.

    Raises:
        InputError: unknown suffix, a file is there, or metadata that has no column type in Parquet.
    """
    target = Path(path)
    kind = SUFFIXES.get(target.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: its suffix is none of {', '.join(SUFFIXES)}")
    beside = None if kind == "parquet" else target.with_suffix(".jsonl")
    for file in (target, beside):
        if file is not None and file.exists() and not replace:
            raise InputError(f"{file} exists already: name another file, or add --replace")
    with ExitStack() as stack:
        now = stack.enter_context(moment(collection))
        if kind == "parquet":
            return _parquet(now, stack.enter_context(_fresh(target)), progress)
        main = stack.enter_context(_fresh(target))
        lines = stack.enter_context(_fresh(target.with_suffix(".jsonl")))
        write = _npy if kind == "npy" else _faiss(index)
        return write(now, main, lines, progress)


@contextmanager
def _fresh(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that gets its name when it is complete, and is removed after an error. Its mode is 0600."""
    trial = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    file = open(os.open(trial, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "w+b")  # noqa: SIM115
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(trial, path)
    finally:
        trial.unlink(missing_ok=True)


def _line(record: Record) -> bytes:
    return json.dumps(record_to_json(record, vectors=False), ensure_ascii=False).encode() + b"\n"


def _stacked(chunk: list[Record]) -> npt.NDArray[np.float32]:
    return np.stack([record.vector for record in chunk if record.vector is not None])


def _npy(now: Moment, main: IO[bytes], lines: IO[bytes], progress: Progress | None) -> int:
    def header(n: int) -> int:
        shape = {"descr": "<f4", "fortran_order": False, "shape": (n, now.dim)}
        np.lib.format.write_array_header_1_0(main, shape)
        return main.tell()

    begin, n = header(0), 0
    for chunk in now.chunks(progress):
        main.write(_stacked(chunk).astype("<f4").tobytes())
        lines.writelines(map(_line, chunk))
        n += len(chunk)
    main.seek(0)
    assert header(n) == begin  # noqa: S101 - NumPy leaves room for the number of rows to grow
    return n


def _faiss(kind: str) -> Any:
    def write(now: Moment, main: IO[bytes], lines: IO[bytes], progress: Progress | None) -> int:
        import faiss

        metric = faiss.METRIC_L2 if now.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        index: Any = faiss.index_factory(now.dim, "HNSW32,Flat" if kind == "hnsw" else "Flat", metric)
        mapped, labels = faiss.IndexIDMap(index), []
        for chunk in now.chunks(progress):
            index.add(_stacked(chunk))
            lines.writelines(map(_line, chunk))
            texts = [record.id for record in chunk if isinstance(record.id, str)]
            labels += [int(text) for text in texts if _LABEL.fullmatch(text)]
        n = int(index.ntotal)
        if n and len(labels) == n:
            faiss.copy_array_to_vector(np.array(labels, np.int64), mapped.id_map)
            mapped.ntotal, index = n, mapped
        main.write(faiss.serialize_index(index).tobytes())
        return n

    return write


# ------------------------------------------------------------------------------------------- Parquet


def _parquet(now: Moment, main: IO[bytes], progress: Progress | None) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    vector = pa.list_(pa.float32(), now.dim)
    schema = pa.schema([("id", pa.string()), ("vector", vector), ("document", pa.string()), *_columns(now)])
    n = 0
    with pq.ParquetWriter(main, schema) as writer:
        for chunk in now.chunks(progress, as_text=True):
            rows = [
                {"id": str(record.id), "vector": record.vector, "document": record.document, **record.metadata}
                for record in chunk
            ]
            try:
                writer.write_table(pa.Table.from_pylist(rows, schema))
            except (pa.ArrowException, OverflowError):
                raise InputError(f"{_formless(rows, schema)}; a .npy file has JSON lines beside") from None
            n += len(chunk)
    return n


def _formless(rows: list[dict[str, Any]], schema: Any) -> str:
    """Name the metadata that its column cannot hold. The library's own message would show a value."""
    import pyarrow as pa

    for column in schema:
        try:
            pa.array([row.get(column.name) for row in rows], column.type)
        except (pa.ArrowException, OverflowError):
            return f"metadata {column.name!r} has a value that does not fit into a Parquet column of {column.type}"
    return "the records have no form in Parquet"


def _columns(now: Moment) -> list[tuple[str, Any]]:
    """Read all metadata once for the type of each column."""
    found: dict[str, Any] = {}
    for chunk in now.chunks(vectors=False):
        for record in chunk:
            for name, value in record.metadata.items():
                if value is None:
                    continue  # as a column leaves it out
                kind = _arrow_type(value)
                if name in _OWN or kind is None or found.setdefault(name, kind) != kind:
                    what = (
                        "is a column of its own" if name in _OWN else f"{type(value).__name__}, has no one column type"
                    )
                    raise InputError(
                        f"record {record.id!r}: metadata {name!r}, {what}: not for Parquet; "
                        "a .npy file has JSON lines beside, which hold everything"
                    )
    return sorted(found.items())


def _arrow_type(value: Any) -> Any:
    import pyarrow as pa

    match value:
        case bool():
            return pa.bool_()
        case int():
            return pa.int64()
        case float():
            return pa.float64()
        case str():
            return pa.string()
        case bytes():
            return pa.binary()
        case uuid.UUID():
            return pa.uuid() if hasattr(pa, "uuid") else None
        case dt.datetime():
            return pa.timestamp("us", None if value.utcoffset() is None else "UTC")
        case dt.date():
            return pa.date32()
        case list():
            kinds = {_arrow_type(item) for item in value}
            return pa.list_(kinds.pop()) if len(kinds) == 1 and None not in kinds else None
    return None
