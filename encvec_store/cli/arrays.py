"""Files of arrays: (n, dim) numbers alone, or NumPy's archives with ids and metadata beside."""

from __future__ import annotations

import zipfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, ShapeError
from ..transfer import metric_names
from ..transfer.arrays import StoredArray
from ..transfer.batch import Batch, Fault
from .columns import Columns, no_column, text_id

__all__ = ["ArchiveReader", "ArrayReader"]

_VECTORS = ("vector", "vectors", "embedding", "embeddings")
_IDS = ("id", "ids")
_DOCUMENTS = ("document", "documents")
_KINDS = "biufUSM"


class ArrayReader:
    """(n, dim) numbers on disk: a memory map or an HDF5 data set. Ids are `prefix:row`."""

    unit = "row"

    def __init__(self, array: StoredArray, prefix: str) -> None:
        self.name = array.name
        self.total: int | None = len(array.numbers)
        self._array = array.numbers
        self._named = array.named
        self._prefix = prefix

    @property
    def metric(self) -> str | None:
        """The metric that the file names. Raises MetricError for one that is not known."""
        return metric_names.told(self._named)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield slices."""
        for start in range(0, len(self._array), size):
            try:
                vectors = np.asarray(self._array[start : start + size])
            except OSError as error:
                raise InputError(f"{self.name}: cannot be read at row {start}: {error}") from None
            yield self._batch(range(start, start + len(vectors)), vectors)

    def at(self, rows: Sequence[int]) -> Batch:
        """Return rows by their numbers. The first call reads an HDF5 data set into memory."""
        if not isinstance(self._array, np.ndarray):  # HDF5 reads scattered rows one by one
            self._array = self._array[:]
        return self._batch(rows, self._array[np.asarray(rows, np.int64)])

    def scan(self, size: int) -> Generator[npt.NDArray[Any]]:
        """Yield slices."""
        for batch in self.batches(size):
            yield batch.vectors

    def _batch(self, rows: Sequence[int], vectors: npt.NDArray[Any]) -> Batch:
        return Batch(rows, [f"{self._prefix}:{row}" for row in rows], vectors)


class ArchiveReader:
    """The arrays of a .npz file: vectors (n, dim), ids (n,), documents (n,); every other one of n values is metadata.

    An archive is compressed as a whole, so its arrays are read into memory.
    """

    unit = "row"

    def __init__(self, path: Path, columns: Columns) -> None:
        self.name = str(path)
        self._columns = columns
        with path.open("rb") as file:
            try:
                self._file: Any = np.load(file, allow_pickle=False)
                names: list[str] = list(self._file.files)
            except (ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
                raise InputError(f"{path} is no archive of arrays in NumPy's format: {error}") from None
            self._load_all(path, names, columns)

    def _load_all(self, path: Path, names: list[str], columns: Columns) -> None:
        columns.check(self.name, names)
        vector = _chosen(path, names, columns.vector, _VECTORS, "vector")
        if vector is None:
            raise InputError(f"{path} has no array of vectors; it has: {', '.join(names)}: --vector-column names it")
        self._vectors = self._load(vector)
        if self._vectors.ndim != 2 or not self._vectors.shape[1] or self._vectors.dtype.kind not in "fiu":
            shape = f"{self._vectors.shape} of {self._vectors.dtype}"
            raise ShapeError(f"{path}, {vector}: expected (n, dim) numbers, got {shape}")
        self.total: int | None = len(self._vectors)
        id = _chosen(path, names, columns.id, _IDS, "id")
        document = _chosen(path, names, columns.document, _DOCUMENTS, "document")
        self._ids = None if id is None else self._column(id)
        self._documents = None if document is None else self._column(document)
        others = [name for name in names if name not in (vector, id, document) and columns.takes(name)]
        self._metadata = {name: self._column(name) for name in others}

    @property
    def metric(self) -> str | None:
        """No metric is named. Raises MetricError where the numbers may be packed bits."""
        return metric_names.told(metric_names.of_numbers(self._vectors.dtype, self.name))

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield slices."""
        for start in range(0, len(self._vectors), size):
            yield self.at(range(start, min(start + size, len(self._vectors))))

    def at(self, rows: Sequence[int]) -> Batch:
        """Return rows by their numbers."""
        good: list[int] = []
        ids: list[str] = []
        metadata: list[dict[str, Any]] = []
        faults: list[Fault] = []
        for row in rows:
            try:
                id = f"{self._columns.prefix}:{row}" if self._ids is None else text_id(self._ids[row], "id")
                found = {name: values[row] for name, values in self._metadata.items() if values[row] is not None}
                metadata.append(self._columns.fields(found))
            except InputError as error:
                faults.append(Fault(f"row {row}", str(error)))
                continue
            good.append(row)
            ids.append(id)
        documents = None if self._documents is None else [self._documents[row] for row in good]
        return Batch(good, ids, self._vectors[np.asarray(good, np.int64)], metadata, documents, faults)

    def scan(self, size: int) -> Generator[npt.NDArray[Any]]:
        """Yield slices."""
        for start in range(0, len(self._vectors), size):
            yield self._vectors[start : start + size]

    def _load(self, name: str) -> npt.NDArray[Any]:
        try:
            found: npt.NDArray[Any] = np.asarray(self._file[name])
        except Exception as error:  # zlib's, zipfile's and NumPy's own
            raise InputError(f"{self.name}: array {name!r} cannot be read: {error}") from None
        return found

    def _column(self, name: str) -> list[Any]:
        array = self._load(name)
        if array.shape != (self.total,) or array.dtype.kind not in _KINDS:
            what = f"array {name!r} is {array.dtype} of shape {array.shape}"
            raise InputError(f"{self.name}: {what}, not a value for each of {self.total:,} rows: --exclude {name}")
        if array.dtype.kind == "M":
            exact = array.astype("datetime64[us]")
            if (exact.astype(array.dtype) != array)[~np.isnat(array)].any():
                raise InputError(
                    f"{self.name}: array {name!r} has times below a microsecond, which Python cannot hold:"
                    f" --exclude {name}"
                )
            array = exact
        values: list[Any] = array.tolist()
        return values


def _chosen(path: Path, names: list[str], given: str | None, usual: Sequence[str], what: str) -> str | None:
    if given is None:
        return next((name for name in usual if name in names), None)
    if given not in names:
        raise no_column(str(path), given, names, what, "array")
    return given
