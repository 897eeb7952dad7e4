"""Parquet files of embeddings, a batch at a time."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..transfer import metric_names
from ..transfer.arrays import readable
from ..transfer.batch import Batch, Fault
from .columns import Columns, no_column, text_id
from .common import need
from .parquet_vectors import VectorColumn

__all__ = ["ParquetReader"]


class ParquetReader:
    """Columns id, vector, document; every other column is metadata, with its type. Nulls are left out."""

    unit = "row"

    def __init__(self, path: Path, columns: Columns) -> None:
        self._arrow = need("pyarrow")
        self._types = need("pyarrow.types")
        self.name = str(path)
        readable(path)
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
        self._vector: VectorColumn | None = None
        if columns.vectors:
            self._vector = VectorColumn(schema, columns.vector or "vector", self.name)
        self._id = self._pick(names, columns.id, "id")
        self._document = self._pick(names, columns.document, "document")
        columns.check(self.name, names)
        special = {self._id, self._document, self._vector and self._vector.column}
        self._read = [name for name in names if name in special or columns.takes(name)]
        self._whole: Any = None

    @property
    def metric(self) -> str | None:
        """No metric is named in Parquet. Raises MetricError where the numbers may be packed bits."""
        named = None if self._vector is None else metric_names.of_numbers(self._vector.numbers, self.name)
        return metric_names.told(named)

    def _pick(self, names: list[str], given: str | None, usual: str) -> str:
        if given is not None and given not in names:
            raise no_column(self.name, given, names, usual)
        return given or usual

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield row groups in pieces."""
        for start, piece in self._pieces(size, self._read):
            yield self._batch(piece, range(start, start + piece.num_rows))

    def at(self, rows: Sequence[int]) -> Batch:
        """Return rows by their numbers. The first call reads the file into memory."""
        if self._whole is None:
            try:
                self._whole = self._file.read(self._read)
            except (self._arrow.ArrowException, OSError) as error:
                raise InputError(f"{self.name}: cannot be read: {error}") from None
        return self._batch(self._whole.take(np.asarray(rows, np.int64)).combine_chunks(), rows)

    def scan(self, size: int) -> Generator[npt.NDArray[Any]]:
        """Yield the vector column alone, without the rows that have none."""
        if self._vector is None:
            return
        for _, piece in self._pieces(size, [self._vector.column]):
            yield self._vector.read(piece.column(0))[0]

    def _pieces(self, size: int, columns: list[str]) -> Iterator[tuple[int, Any]]:
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

    def _batch(self, piece: Any, rows: Sequence[int]) -> Batch:
        bad: dict[int, str] = {}
        vectors = np.empty((len(rows), 0), np.float32)
        if self._vector is not None:
            vectors, bad = self._vector.read(_one_chunk(piece.column(self._vector.column)))
        keep = [place for place in range(len(rows)) if place not in bad]
        row_of = dict(zip(keep, range(len(keep)), strict=True))
        values = {name: self._values(_one_chunk(piece.column(name)), name, bad) for name in piece.schema.names}
        ids, metadata, documents = [], [], []
        for place in keep:
            try:
                if place in bad:
                    raise InputError(bad[place])
                fields = {name: column[place] for name, column in values.items() if column[place] is not None}
                if self._vector is not None:
                    self._vector.drop(fields)
                id, document = self._id_of(fields, rows[place]), fields.pop(self._document, None)
                metadata.append(self._columns.fields(fields))
            except InputError as error:
                bad[place] = str(error)
                continue
            ids.append(id)
            documents.append(document)
        good = [place for place in keep if place not in bad]
        faults = [Fault(f"row {rows[place]}", bad[place]) for place in sorted(bad)]
        vectors = vectors if len(good) == len(keep) else vectors[[row_of[place] for place in good]]
        return Batch([rows[place] for place in good], ids, vectors, metadata, documents, faults)

    def _id_of(self, fields: dict[str, Any], row: int) -> str:
        if self._id in self._file.schema_arrow.names:
            value = fields.pop(self._id, None)
            return text_id(str(value) if isinstance(value, uuid.UUID) else value, self._id)
        return f"{self._columns.prefix}:{row}"

    def _values(self, column: Any, name: str, bad: dict[int, str]) -> list[Any]:
        """Return a column's values; where Python cannot hold one, its row is bad."""
        if self._vector is not None and name == self._vector.column and not self._vector.nested:
            return [None] * len(column)
        try:
            return self._held(column)
        except (self._arrow.ArrowException, ValueError, OverflowError):
            values = []
        for place in range(len(column)):
            try:
                values += self._held(column.slice(place, 1))
            except (self._arrow.ArrowException, ValueError, OverflowError):
                values.append(None)
                what = f"column {name!r}, {column.type}, has a value that Python cannot hold"
                bad.setdefault(place, f"{what}; --exclude {name} leaves the column out")
        return values

    def _held(self, column: Any) -> list[Any]:
        if self._types.is_timestamp(column.type) and column.type.unit == "ns":
            column = column.cast(self._arrow.timestamp("us", column.type.tz))  # refuses to lose digits
        values: list[Any] = column.to_pylist()
        return values


def _one_chunk(column: Any) -> Any:
    return column.combine_chunks() if hasattr(column, "combine_chunks") else column
