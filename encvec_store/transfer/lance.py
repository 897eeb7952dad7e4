"""A LanceDB folder as a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..data.ids import Id
from ..errors import InputError
from . import metric_names
from .batch import Batch
from .folder import FolderRow, FolderSource, package, picked, reading

__all__ = ["LanceSource"]

_TOLD = 5


class LanceSource(FolderSource):
    """A table of a LanceDB folder, read as of one version. Nothing is written to the folder."""

    kind = "lancedb"
    _now: Any = None
    _before: tuple[Any, dict[str, Any]] | None = None

    def again(self) -> None:
        """Take the newest version. `as_read` still gives what was read before."""
        self._before = self._now, self._keys
        with reading(self.name):
            self._load()
        self.total = len(self._keys)

    def as_read(self, ids: Sequence[Id]) -> Batch:
        """Return records of the first version by id."""
        now = self._now, self._keys
        self._now, self._keys = self._before or now
        try:
            return super().as_read(ids)
        finally:
            self._now, self._keys = now

    def close(self) -> None:
        """Do nothing: no files stay open."""

    def _open(self, table: str | None) -> None:
        self._database = package("lancedb", self.kind).connect(str(self._path))
        self._arrow = package("pyarrow", self.kind)
        self._table = picked(self._tables(), table, str(self._path), "table")
        self.name = f"{self._path}, {self._table!r}"
        self._load()

    def _tables(self) -> list[str]:
        if not hasattr(self._database, "list_tables"):
            return list(self._database.table_names(limit=1_000_000))
        names: list[str] = []
        page = self._database.list_tables()
        names += page.tables
        while page.page_token:
            page = self._database.list_tables(page_token=page.page_token)
            names += page.tables
        return names

    def _load(self) -> None:
        """Open the newest version, check its columns, and read its ids."""
        self._now = self._database.open_table(self._table)
        self._now.checkout(self._now.version)
        schema = self._now.schema
        self._id = self._column(self._chosen.id or "id", "id")
        self._vector = self._column(self._chosen.vector or self._only_vector(), "vector")
        kind = schema.field(self._vector).type
        if not self._is_vector(kind):
            raise InputError(f"{self.name}: column {self._vector!r} is {kind}, not a list of numbers")
        numbers = np.dtype(kind.value_type.to_pandas_dtype())
        self.lossy = "float64 is kept as float32" if numbers == np.float64 else ""
        if self._chosen.document is not None:
            self._column(self._chosen.document, "document")
        self._metadata = self._metadata_columns()
        found = metric_names.of_numbers(numbers, self.name)
        self._named = found if found is not None else self._indexed()
        self._keys = self._numbered()
        self.dim = getattr(kind, "list_size", 0) or self._first_length()

    def _column(self, name: str, what: str) -> str:
        names = self._now.schema.names
        if name not in names:
            how = "" if what == "metadata" else f". Name it with --{what}-column"
            raise InputError(f"{self.name} has no column {name!r}; it has: {', '.join(names)}{how}")
        return name

    def _only_vector(self) -> str:
        found = [field.name for field in self._now.schema if self._is_vector(field.type, likely=True)]
        if len(found) == 1:
            return str(found[0])
        what = f"columns {', '.join(found)}: choose one" if found else "no column of vectors: name it"
        raise InputError(f"{self.name} has {what} with --vector-column")

    def _is_vector(self, kind: Any, *, likely: bool = False) -> bool:
        types = self._arrow.types
        if types.is_fixed_size_list(kind):
            return bool(types.is_floating(kind.value_type) or types.is_integer(kind.value_type))
        lists = types.is_list(kind) or types.is_large_list(kind)
        return not likely and lists and bool(types.is_floating(kind.value_type))

    def _metadata_columns(self) -> list[str]:
        """Return the columns that are read beside id and vector. Raises InputError for a type that cannot be kept."""
        schema, special = self._now.schema, {self._id, self._vector}
        wanted = self._chosen.metadata
        if wanted is not None:
            taken = [self._column(name, "metadata") for name in wanted]
        else:
            taken = [name for name in schema.names if name not in special]
        for name in self._chosen.flatten:
            if self._column(name, "metadata") not in taken:
                raise InputError(f"column {name!r} is to be flattened, but it is not among the metadata columns")
        for name in taken:
            if not self._held(schema.field(name).type):
                raise InputError(
                    f"{self.name}: column {name!r} is {schema.field(name).type}, which metadata cannot hold: "
                    "leave it out by naming the others with --metadata-columns"
                )
        text = [name for name in schema.names if name == self._document]
        return list(dict.fromkeys([*taken, *text]))

    def _held(self, kind: Any) -> bool:
        types = self._arrow.types
        if types.is_fixed_size_list(kind):  # another vector
            return False
        if types.is_list(kind) or types.is_large_list(kind) or types.is_dictionary(kind):
            return self._held(kind.value_type)
        if types.is_struct(kind):
            return all(self._held(kind.field(place).type) for place in range(kind.num_fields))
        plain = ("null", "boolean", "integer", "floating", "decimal", "date", "timestamp")
        texts = ("string", "large_string", "binary", "large_binary", "fixed_size_binary")
        return any(getattr(types, f"is_{name}")(kind) for name in (*plain, *texts))

    def _indexed(self) -> metric_names.Named:
        """Return the metric of the vector's indexes; None where it has none."""
        names: set[str] = set()
        for index in self._now.list_indices():
            if index.columns == [self._vector]:
                names.add(str(getattr(self._now.index_stats(index.name), "distance_type", None)))
        if len(names) > 1:
            return metric_names.unclear(self.name, f"has indexes of several metrics: {', '.join(sorted(names))}")
        return metric_names.of_name(names.pop(), f"{self.name}, by its index,") if names else None

    def _numbered(self) -> dict[str, Any]:
        """Return each id with the number of its row. Raises InputError."""
        kind = self._now.schema.field(self._id).type
        types = self._arrow.types
        if not (types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)):
            raise InputError(f"{self.name}: column {self._id!r} is {kind}: an id must be text or an integer")
        found = self._now.search().select([self._id]).to_arrow()[self._id].to_pylist()
        if len(found) != self._now.count_rows():
            raise InputError(f"{self.name}: {self._now.count_rows():,} rows, but {len(found):,} could be read")
        if nulls := found.count(None):
            raise InputError(f"{self.name}: {nulls:,} rows have no id: {self._id!r} is null")
        keys = {str(id): row for row, id in enumerate(found)}
        if len(keys) < len(found):
            twice = [(id, n) for id, n in Counter(found).most_common(_TOLD) if n > 1]
            listed = ", ".join(f"{id!r} ({n} rows)" for id, n in twice)
            raise InputError(f"{self.name}: ids repeat in column {self._id!r}: {listed}")
        return keys

    def _first_length(self) -> int:
        for row in self._rows(list(self._keys)[:1000], bare=True):
            if row.vector is not None:
                return len(row.vector)
        return 0

    def _rows(self, ids: Sequence[str], *, bare: bool) -> Iterator[FolderRow]:
        names = [self._id, self._vector] if bare else [self._id, self._vector, *self._metadata]
        places = [self._keys[id] for id in ids]
        found = self._now.take_offsets(places).select(list(dict.fromkeys(names))).to_arrow()
        column_of = {name: self._values(found[name], name) for name in names if name != self._vector}
        for row, vector in enumerate(self._unpacked(found[self._vector].combine_chunks())):
            held = {name: column_of[name][row] for name in names[2:]}
            fields = {name: value for name, value in held.items() if value is not None}
            yield FolderRow(str(column_of[self._id][row]), vector, fields)

    def _values(self, column: Any, name: str) -> list[Any]:
        if self._arrow.types.is_timestamp(column.type) and column.type.unit == "ns":
            try:
                column = column.cast(self._arrow.timestamp("us", column.type.tz))  # refuses to lose digits
            except self._arrow.ArrowInvalid:
                raise InputError(
                    f"{self.name}: column {name!r} has nanoseconds, and a datetime holds microseconds: "
                    "leave it out by naming the others with --metadata-columns"
                ) from None
        values: list[Any] = column.to_pylist()
        return values

    def _unpacked(self, column: Any) -> Iterator[Any]:
        """Yield each row's vector, or None; one that holds a null has NaN there, and is refused as such."""
        if getattr(column, "num_chunks", 1) == 0:
            return
        types = self._arrow.types
        if types.is_fixed_size_list(column.type) and not column.null_count:
            flat = column.flatten().to_numpy(zero_copy_only=False)
            yield from flat.reshape(len(column), column.type.list_size)
            return
        for value in column:
            yield None if not value.is_valid else value.values.to_numpy(zero_copy_only=False)
