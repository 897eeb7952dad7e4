"""Read files of embeddings a batch at a time: npy, parquet, jsonl, ann-benchmarks hdf5.

No reader holds more than a batch (parquet: a row group) in memory. Readers shape data and name the row that is
wrong; whether a vector or a value can be stored is for the library to say.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, ShapeError
from ..transfer.batch import Batch, Reader, RowError
from ..transfer.typed import from_json, metadata_from_json
from .columns import Columns, text_id
from .common import need
from .parquet import ParquetReader
from .values import vector_of

__all__ = ["FORMATS", "open_reader"]

FORMATS = {
    ".npy": "npy",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".hdf5": "hdf5",
    ".h5": "hdf5",
}
"""File suffix -> format."""


def open_reader(path: str, kind: str | None, columns: Columns) -> Reader:
    """Open a file by its format, or by its suffix. `-` is JSON lines on standard input. Raises InputError."""
    if path == "-":
        if kind not in (None, "jsonl"):
            raise InputError(f"standard input is read as jsonl, not {kind}: give {kind} a file")
        return _Lines(None, "standard input", columns)
    place = Path(path)
    if place.is_dir():
        raise InputError(f"{path} is a folder")
    kind = kind or FORMATS.get(place.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: its suffix is none of {', '.join(FORMATS)}; give --format")
    if columns.prefix is None:
        columns.prefix = place.stem
    if kind in ("npy", "hdf5"):
        for option, value in (("--id-column", columns.id), ("--document-column", columns.document)):
            if value is not None:
                raise InputError(f"{option} has no meaning for {kind}: it holds vectors only")
    match kind:
        case "npy":
            return _Array(*_open_npy(place, columns), columns.prefix)
        case "hdf5":
            return _Array(*_open_hdf5(place, columns), columns.prefix)
        case "parquet":
            return ParquetReader(place, columns)
    _readable(place)
    return _Lines(place, path, columns)


def _readable(path: Path) -> None:
    """Raise OSError, in the system's own words, for a file that is missing or may not be read."""
    with path.open("rb"):
        pass


# ------------------------------------------------------------------------------------------- arrays


class _Array:
    """(n, dim) numbers on disk: a memory map or an HDF5 dataset."""

    unit = "row"

    def __init__(self, name: str, array: Any, metric: str | None, prefix: str) -> None:
        shape, kind = tuple(array.shape), np.dtype(array.dtype).kind
        if len(shape) != 2 or not shape[1]:
            raise ShapeError(f"{name}: expected (n, dim) numbers, got shape {shape}")
        if kind not in "fiu":
            raise ShapeError(f"{name}: expected numbers, got {array.dtype}")
        self.name = name
        self.metric = metric
        self.total: int | None = shape[0]
        self._array = array
        self._prefix = prefix

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield slices."""
        for start in range(0, len(self._array), size):
            try:
                vectors = np.asarray(self._array[start : start + size])
            except OSError as error:
                raise InputError(f"{self.name}: cannot be read at row {start}: {error}") from None
            rows = range(start, start + len(vectors))
            yield Batch(rows, [f"{self._prefix}:{row}" for row in rows], vectors)

    def scan(self, size: int) -> Generator[npt.NDArray[Any]]:
        """Yield slices."""
        for batch in self.batches(size):
            yield batch.vectors


def _open_npy(path: Path, columns: Columns) -> tuple[str, Any, str | None]:
    if columns.vector is not None:
        raise InputError("--vector-column has no meaning for npy: it holds one array")
    try:
        return str(path), np.load(path, mmap_mode="r", allow_pickle=False), None
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is no array of numbers in NumPy's format: {error}") from None


_METRICS = {"angular": "cosine", "euclidean": "l2", "dot": "ip"}


def _open_hdf5(path: Path, columns: Columns) -> tuple[str, Any, str | None]:
    h5py = need("h5py")
    wanted = columns.vector or "train"
    _readable(path)
    try:
        file = h5py.File(path, "r")
        names = sorted(name for name, item in file.items() if isinstance(item, h5py.Dataset))
        found = file.get(wanted)
    except OSError as error:
        raise InputError(f"{path} is no HDF5 file: {error}") from None
    if not isinstance(found, h5py.Dataset):
        listed = ", ".join(names) or "none"
        raise InputError(f"{path} has no data set {wanted!r}; it has: {listed}. Name one with --vector-column")
    return f"{path}, {wanted}", found, _METRICS.get(str(file.attrs.get("distance")))


# --------------------------------------------------------------------------------------- JSON lines


class _Lines:
    """One JSON object a line: id, vector, metadata, document; other keys are metadata too."""

    unit = "line"
    total: int | None = None
    metric: str | None = None

    def __init__(self, path: Path | None, name: str, columns: Columns) -> None:
        self.name = name
        self._path = path
        self._columns = columns

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield lines, parsed."""
        rows: list[tuple[int, str, npt.NDArray[Any], dict[str, Any], Any]] = []
        count = 0
        with open(0, "rb", closefd=False) if self._path is None else self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not (content := line.strip()):
                    continue
                try:
                    rows.append((number, *self._parse(content, count)))
                except InputError as error:
                    raise RowError(f"{self.name}, line {number}: {error}") from None
                if len(rows[-1][2]) != len(rows[0][2]):
                    raise RowError(
                        f"{self.name}, line {number}: a vector of {len(rows[-1][2])} numbers, "
                        f"where line {rows[0][0]} has {len(rows[0][2])}"
                    )
                count += 1
                if len(rows) == size:
                    yield self._batch(rows)
                    rows = []
        if rows:
            yield self._batch(rows)

    def scan(self, size: int) -> Generator[npt.NDArray[Any]]:
        """Yield nothing."""
        yield from ()

    def _batch(self, rows: list[Any]) -> Batch:
        positions, ids, vectors, metadata, documents = (list(column) for column in zip(*rows, strict=True))
        return Batch(positions, ids, np.stack(vectors), metadata, documents)

    def _parse(self, line: bytes, count: int) -> tuple[str, npt.NDArray[Any], dict[str, Any], Any]:
        columns = self._columns
        try:
            item = json.loads(line)
        except UnicodeDecodeError:
            raise InputError("not UTF-8") from None
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON: {error.msg} at column {error.colno}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON that can be read: {error}") from None
        if not isinstance(item, dict):
            raise InputError(f"a record must be a JSON object, got {line[:40].decode(errors='replace')!r}")
        vector = self._vector(item) if columns.vectors else np.empty(0, np.float32)
        document = item.pop(columns.document or "document", None)
        key = columns.id or "id"
        if key in item:
            id = text_id(item.pop(key), key)
        elif columns.id is not None or columns.prefix is None:
            raise InputError(f"no key {key!r}" + ("" if columns.id else ": give ids, or --id-prefix"))
        else:
            id = f"{columns.prefix}:{count}"
        metadata = item.pop("metadata", None)
        if metadata is None:
            metadata = {}
        if not isinstance(metadata, dict):
            raise InputError(f"'metadata' must be a JSON object, got {json.dumps(metadata)[:40]}")
        if twice := metadata.keys() & item.keys():
            raise InputError(f"{min(twice)!r} stands both in 'metadata' and beside it")
        return id, vector, metadata_from_json(metadata) | {k: from_json(v) for k, v in item.items()}, document

    def _vector(self, item: dict[str, Any]) -> npt.NDArray[Any]:
        name = self._columns.vector or "vector"
        if name not in item:
            keys = ", ".join(map(repr, list(item)[:20])) or "none"
            raise InputError(f"no key {name!r}; there are: {keys}. Name the vector's with --vector-column")
        return vector_of(item.pop(name), repr(name))
