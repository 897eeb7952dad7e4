"""Files of text: JSON lines, and tables of comma- or tab-separated values."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..data.ids import Id
from ..errors import InputError
from ..transfer.batch import Batch, Fault
from ..transfer.typed import from_json, metadata_from_json
from .columns import Columns, no_column, taken_out, text_id
from .values import vector_of

__all__ = ["JsonLines", "Sheet"]

_LONGEST_CELL = 1 << 26


class _Row(NamedTuple):
    id: Id
    vector: npt.NDArray[Any]
    metadata: dict[str, Any]
    document: Any


class _Text:
    """Rows of a text file; `_parsed` yields each with the number of its line, or what is wrong with it."""

    unit = "line"
    total: int | None = None
    metric: str | None = None

    def __init__(self, path: Path | None, name: str, columns: Columns) -> None:
        self.name = name
        self._path = path
        self._columns = columns
        self._first: tuple[int, int] | None = None
        """Line and length of the first vector: all others must have its length."""

    def _parsed(self) -> Iterator[tuple[int, _Row | str]]:
        raise NotImplementedError

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield lines, parsed."""
        rows: list[tuple[int, _Row]] = []
        faults: list[Fault] = []
        for number, row in self._parsed():
            wrong = row if isinstance(row, str) else self._misfit(number, len(row.vector))
            if wrong or isinstance(row, str):
                faults.append(Fault(f"line {number}", wrong))
            else:
                rows.append((number, row))
            if len(rows) + len(faults) == size:
                yield self._batch(rows, faults)
                rows, faults = [], []
        if rows or faults:
            yield self._batch(rows, faults)

    def scan(self, size: int) -> Generator[npt.NDArray[Any]]:
        """Yield nothing."""
        yield from ()

    def _misfit(self, number: int, length: int) -> str:
        self._first = self._first or (number, length)
        first, wanted = self._first
        return "" if length == wanted else f"a vector of {length} numbers, where line {first} has {wanted}"

    def _batch(self, rows: list[tuple[int, _Row]], faults: list[Fault]) -> Batch:
        dim = self._first[1] if self._first else 0
        return Batch(
            [number for number, _ in rows],
            [row.id for _, row in rows],
            np.stack([row.vector for _, row in rows]) if rows else np.empty((0, dim), np.float32),
            [row.metadata for _, row in rows],
            [row.document for _, row in rows],
            faults,
        )

    def _id(self, item: dict[str, Any], count: int) -> Id:
        columns = self._columns
        key = columns.id or "id"
        try:
            value = taken_out(item, key)
            return from_json(value) if isinstance(value, dict) else text_id(value, key)  # exports tag other types
        except KeyError:
            pass
        if columns.id is not None or columns.prefix is None:
            raise InputError(f"no key {key!r}" + ("" if columns.id else ": give ids, or --id-prefix"))
        return f"{columns.prefix}:{count}"

    def _vector(self, item: dict[str, Any]) -> npt.NDArray[Any]:
        if not self._columns.vectors:
            return np.empty(0, np.float32)
        name = self._columns.vector or "vector"
        try:
            value = taken_out(item, name)
        except KeyError:
            keys = ", ".join(map(repr, list(item)[:20])) or "none"
            raise InputError(f"no key {name!r}; there are: {keys}. Name the vector's with --vector-column") from None
        return vector_of(value, repr(name))


class JsonLines(_Text):
    """One JSON object a line: id, vector, metadata, document; other keys are metadata too."""

    def _parsed(self) -> Iterator[tuple[int, _Row | str]]:
        count = 0
        with self._opened() as file:
            for number, line in enumerate(file, 1):
                if not (content := line.strip()):
                    continue
                try:
                    yield number, self._parse(content, count)
                except InputError as error:
                    yield number, str(error)
                count += 1

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        with open(0, "rb", closefd=False) if self._path is None else self._path.open("rb") as file:
            yield file

    def _parse(self, line: bytes, count: int) -> _Row:
        try:
            item = json.loads(line)
        except UnicodeDecodeError:
            raise InputError("not UTF-8") from None
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON: {error.msg} at column {error.colno}") from None
        except (ValueError, RecursionError):
            raise InputError("not JSON that can be read: a number is too long, or it is nested too deeply") from None
        if not isinstance(item, dict):
            raise InputError(f"a record must be a JSON object, got {type(item).__name__}")
        vector = self._vector(item)
        try:
            document = taken_out(item, self._columns.document or "document")
        except KeyError:
            document = None
        id = self._id(item, count)
        metadata = item.pop("metadata", None)
        if metadata is None:
            metadata = {}
        if not isinstance(metadata, dict):
            raise InputError(f"'metadata' must be a JSON object, got {type(metadata).__name__}")
        if twice := metadata.keys() & item.keys():
            raise InputError(f"{min(twice)!r} stands both in 'metadata' and beside it")
        fields = metadata_from_json(metadata) | {key: from_json(value) for key, value in item.items()}
        return _Row(id, vector, self._columns.fields(fields), document)


class Sheet(_Text):
    """A table of separated values with a line of names on top. Metadata are text; empty cells are left out."""

    def __init__(self, path: Path, name: str, columns: Columns, separator: str) -> None:
        super().__init__(path, name, columns)
        self._file = path
        self._separator = separator
        with self._rows() as rows:
            self._names: list[str] = next(rows, [])
        if len(set(self._names)) != len(self._names):
            raise InputError(f"{name} has two columns of one name: {', '.join(self._names)}")
        given = (columns.vector or ("vector" if columns.vectors else None), columns.id, columns.document)
        for wanted, what in zip(given, ("vector", "id", "document"), strict=True):
            if wanted is not None and wanted not in self._names:
                raise no_column(name, wanted, self._names, what)
        columns.check(name, self._names)

    @contextmanager
    def _rows(self) -> Iterator[Any]:
        csv.field_size_limit(_LONGEST_CELL)
        with self._file.open(encoding="utf-8-sig", newline="") as file:
            try:
                yield csv.reader(file, delimiter=self._separator, strict=True)
            except UnicodeDecodeError:
                raise InputError(f"{self.name} is not UTF-8") from None
            except csv.Error as error:
                raise InputError(f"{self.name}: not separated values: {error}") from None

    def _parsed(self) -> Iterator[tuple[int, _Row | str]]:
        with self._rows() as rows:
            next(rows, None)
            for count, cells in enumerate(row for row in rows if row):
                try:
                    yield rows.line_num, self._parse(cells, count)
                except InputError as error:
                    yield rows.line_num, str(error)

    def _parse(self, cells: list[str], count: int) -> _Row:
        if len(cells) != len(self._names):
            raise InputError(f"{len(cells)} cells under {len(self._names)} names")
        item: dict[str, Any] = dict(zip(self._names, cells, strict=True))
        vector = self._vector(item)
        document = item.pop(self._columns.document or "document", None) or None
        id = self._id(item, count)
        return _Row(id, vector, self._columns.fields({name: cell for name, cell in item.items() if cell}), document)
