"""Read files of embeddings a batch at a time, by format.

Text, Parquet (by row groups) and mapped arrays never lie in memory as a whole. Readers shape data and name the row
that is wrong; whether a vector or a value can be stored is for the library to say.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..transfer.arrays import MAPPED, open_array, readable
from ..transfer.batch import Reader
from .arrays import ArchiveReader, ArrayReader
from .columns import Columns
from .lines import JsonLines, Sheet
from .parquet import ParquetReader

__all__ = ["FORMATS", "open_reader"]

FORMATS = MAPPED | {
    ".npz": "npz",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
"""File suffix -> format."""


def open_reader(path: str, kind: str | None, columns: Columns) -> Reader:
    """Open a file by its format, or by its suffix. `-` is JSON lines on standard input. Raises InputError."""
    if path == "-":
        if kind not in (None, "jsonl"):
            raise InputError(f"standard input is read as jsonl, not {kind}: give {kind} a file")
        return JsonLines(None, "standard input", columns)
    place = Path(path)
    if place.is_dir():
        raise InputError(f"{path} is a folder")
    kind = kind or FORMATS.get(place.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: its suffix is none of {', '.join(FORMATS)}; give --format")
    if columns.prefix is None:
        columns.prefix = place.stem
    if kind in MAPPED.values():
        given = {"id-column": columns.id, "document-column": columns.document, "columns": columns.only}
        for option, value in (given | {"exclude": columns.exclude, "flatten": columns.flatten}).items():
            if value:
                raise InputError(f"--{option} has no meaning for {kind}: it holds vectors only")
        return ArrayReader(open_array(place, kind, columns.vector), columns.prefix)
    readable(place)
    match kind:
        case "npz":
            return ArchiveReader(place, columns)
        case "parquet":
            return ParquetReader(place, columns)
        case "csv" | "tsv":
            return Sheet(place, path, columns, "," if kind == "csv" else "\t")
    return JsonLines(place, path, columns)
