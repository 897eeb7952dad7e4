"""Parquet files of embeddings, a batch at a time."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..transfer.batch import Batch, RowError
from .columns import Columns, text_id
from .common import need

__all__ = ["ParquetReader"]


class ParquetReader:
    """Columns id, vector, document; every other column is metadata, with its type. Nulls are left out."""

    unit = "row"
    metric: str | None = None

    def __init__(self, path: Path, columns: Columns) -> None:
        self._arrow = need("pyarrow")
        self._types = need("pyarrow.types")
        self.name = str(path)
        with path.open("rb"):  # for the system's own words on a file that is missing or may not be read
            pass
        try:
            self._file = need("pyarrow.parquet").ParquetFile(path)
            schema = self._file.schema_arrow
        except (self._arrow.ArrowException, OSError) as error:
            raise InputError(f"{path} is no parquet file: {error}") from None
        self.total: int | None = self._file.metadata.num_rows
        self._columns = columns
        names: list[str] = schema.names
        if len(set(names)) != len(names):
            raise InputError(f"{path} has two columns of one name: {', '.join(names)}")
        self._vector = self._pick(names, columns.vector, "vector", required=True) if columns.vectors else None
        self._id = self._pick(names, columns.id, "id", required=columns.id is not None)
        self._document = self._pick(names, columns.document, "document", required=columns.document is not None)
        if self._vector is None:
            return
        kind = schema.field(self._vector).type
        if not self._is_list(kind) or not self._is_number(kind.value_type):
            raise InputError(f"{path}: column {self._vector!r} is {kind}, not a list of numbers")

    def _pick(self, names: list[str], given: str | None, usual: str, *, required: bool) -> str:
        wanted = given or usual
        if wanted not in names and required:
            listed = ", ".join(names)
            raise InputError(f"{self.name} has no column {wanted!r}; it has: {listed}. Name it with --{usual}-column")
        return wanted

    def _is_list(self, kind: Any) -> bool:
        types = self._types
        return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))

    def _is_number(self, kind: Any) -> bool:
        return bool(self._types.is_floating(kind) or self._types.is_integer(kind))

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield row groups in pieces."""
        for start, piece in self._pieces(size, None):
            yield self._batch(piece, start)

    def scan(self, size: int) -> Generator[npt.NDArray[Any]]:
        """Yield the vector column alone."""
        wanted = [] if self._vector is None else [self._vector]
        for start, piece in self._pieces(size, wanted):
            yield self._vectors(piece.column(*wanted), start)

    def _pieces(self, size: int, columns: list[str] | None) -> Iterator[tuple[int, Any]]:
        start = 0
        pieces = self._file.iter_batches(batch_size=size, columns=columns)
        while True:
            try:
                piece = next(pieces, None)
            except (self._arrow.ArrowException, OSError) as error:
                raise InputError(f"{self.name}: cannot be read after row {start}: {error}") from None
            if piece is None:
                return
            if piece.num_rows:
                yield start, piece
            start += piece.num_rows

    def _batch(self, piece: Any, start: int) -> Batch:
        rows = range(start, start + piece.num_rows)
        vectors = np.empty((len(rows), 0), np.float32)
        if self._vector is not None:
            vectors = self._vectors(piece.column(self._vector), start)
        ids = [f"{self._columns.prefix}:{row}" for row in rows]
        documents: list[Any] | None = None
        metadata: list[dict[str, Any]] = [{} for _ in rows]
        for name in piece.schema.names:
            if name == self._vector:
                continue
            values = self._values(piece.column(name), name, start)
            if name == self._id:
                ids = [self._text(value, name, row) for value, row in zip(values, rows, strict=True)]
            elif name == self._document:
                documents = values
            else:
                for item, value in zip(metadata, values, strict=True):
                    if value is not None:
                        item[name] = value
        return Batch(rows, ids, vectors, metadata, documents)

    def _text(self, value: Any, name: str, row: int) -> str:
        try:
            return text_id(str(value) if isinstance(value, uuid.UUID) else value, name)
        except InputError as error:
            raise RowError(f"{self.name}, row {row}: {error}") from None

    def _values(self, column: Any, name: str, start: int) -> list[Any]:
        try:
            if self._types.is_timestamp(column.type) and column.type.unit == "ns":
                column = column.cast(self._arrow.timestamp("us", column.type.tz))  # refuses to lose digits
            values: list[Any] = column.to_pylist()
        except (self._arrow.ArrowException, ValueError, OverflowError) as error:
            what = f"{self.name}, row {start} and on: column {name!r}, {column.type}"
            raise RowError(f"{what}, has a value that Python cannot hold: {error}") from None
        return values

    def _vectors(self, column: Any, start: int) -> npt.NDArray[Any]:
        if column.null_count:
            row = start + int(np.flatnonzero(np.asarray(column.is_null()))[0])
            raise RowError(f"{self.name}, row {row}: {self._vector!r} is null")
        if self._types.is_fixed_size_list(column.type):
            lengths = np.full(len(column), column.type.list_size)
        else:
            lengths = np.asarray(need("pyarrow.compute").list_value_length(column))
        odd = np.flatnonzero(lengths != lengths[0])
        if len(odd):
            raise RowError(
                f"{self.name}, row {start + int(odd[0])}: a vector of {lengths[odd[0]]} numbers, "
                f"where row {start} has {lengths[0]}"
            )
        flat = column.flatten()
        if flat.null_count:
            row = start + int(np.flatnonzero(np.asarray(flat.is_null()))[0]) // int(lengths[0])
            raise RowError(f"{self.name}, row {row}: {self._vector!r} holds a null")
        vectors: npt.NDArray[Any] = flat.to_numpy(zero_copy_only=False).reshape(len(column), int(lengths[0]))
        return vectors
