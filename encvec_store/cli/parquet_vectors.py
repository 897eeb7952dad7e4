"""The vector column of a Parquet file: lists, tensors, bytes or base64, at the top or inside a struct."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, ShapeError
from .columns import no_column, taken_out
from .common import need
from .values import from_bytes, vector_of

__all__ = ["VectorColumn"]


class VectorColumn:
    """Where the vectors are, and how they are read.

    Args:
        schema: of the file.
        name: of the column; `a.b` is the field b of the struct a.
        file: its name, for errors.

    Raises:
        InputError: no such column, or one that holds no vectors.
    """

    def __init__(self, schema: Any, name: str, file: str) -> None:
        self._name = name
        self._types = need("pyarrow.types")
        self._dim: int | None = None
        self.column, self._path = name, list[str]()
        if name not in schema.names:
            self.column, *self._path = name.split(".")
        if self.column not in schema.names:
            raise no_column(file, name, schema.names, "vector")
        kind = schema.field(self.column).type
        for part in self._path:
            if not self._types.is_struct(kind) or kind.get_field_index(part) < 0:
                raise InputError(f"{file}: column {self.column!r} is {kind}, which has no field {part!r}")
            kind = kind.field(part).type
        self._kind = kind = self._storage(kind, file)
        self.numbers: Any = None
        """NumPy's type of the numbers, where the column says it."""
        types = self._types
        if self._is_list() and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)):
            self.numbers = np.dtype(kind.value_type.to_pandas_dtype())
        elif not (self._is_text() or self._is_bytes()):
            raise InputError(f"{file}: column {name!r} is {kind}, not a list of numbers")

    @property
    def nested(self) -> bool:
        """Whether the column is a struct, which holds other fields too."""
        return bool(self._path)

    def drop(self, fields: dict[str, Any]) -> None:
        """Remove the vector from a row's fields, so that it is no metadata."""
        if self.nested and self.column in fields:
            taken_out(fields, self._name)

    def read(self, column: Any) -> tuple[npt.NDArray[Any], dict[int, str]]:
        """Return the (m, d) vectors of the rows that have one, and for each other row what is wrong with it."""
        compute = need("pyarrow.compute")
        for part in self._path:
            column = compute.struct_field(column, part)
        column = getattr(column, "storage", column)
        bad = {int(place): f"{self._name!r} is null" for place in np.flatnonzero(np.asarray(column.is_null()))}
        if not self._is_list():
            return self._decoded(column, bad)
        if self._types.is_fixed_size_list(column.type):
            lengths = np.full(len(column), column.type.list_size)
        else:
            lengths = np.asarray(compute.fill_null(compute.list_value_length(column), -1))
        self._misfits(lengths, bad)
        dim = self._dim or 0
        good = np.array([place for place in range(len(column)) if place not in bad], np.int64)
        flat = (column.take(good) if bad else column).flatten()
        if flat.null_count:
            holes = np.unique(np.flatnonzero(np.asarray(flat.is_null())) // max(dim, 1))
            bad |= {int(good[hole]): f"{self._name!r} holds a null" for hole in holes}
            flat = column.take([place for place in good.tolist() if place not in bad]).flatten()
        vectors: npt.NDArray[Any] = flat.to_numpy(zero_copy_only=False).reshape(-1, dim) if dim else np.empty((0, 0))
        return vectors, bad

    def _decoded(self, column: Any, bad: dict[int, str]) -> tuple[npt.NDArray[Any], dict[int, str]]:
        decode = from_bytes if self._is_bytes() else vector_of
        found: dict[int, npt.NDArray[Any]] = {}
        for place, value in enumerate(column.to_pylist()):
            if place not in bad:
                try:
                    found[place] = decode(value, repr(self._name))
                except ShapeError as error:
                    bad[place] = str(error)
        self._misfits(np.array([len(found.get(place, ())) for place in range(len(column))], np.int64), bad)
        kept = [vector for place, vector in found.items() if place not in bad]
        return np.stack(kept) if kept else np.empty((0, self._dim or 0), np.float32), bad

    def _misfits(self, lengths: npt.NDArray[Any], bad: dict[int, str]) -> None:
        """Note the rows whose vector is not as long as the file's first one."""
        sound = [place for place in range(len(lengths)) if place not in bad]
        if not sound:
            return
        self._dim = self._dim or int(lengths[sound[0]])
        for place in np.flatnonzero(lengths != self._dim).tolist():
            bad.setdefault(place, f"a vector of {lengths[place]} numbers, where the first row has {self._dim}")

    def _storage(self, kind: Any, file: str) -> Any:
        """Return what a tensor is stored as; only one of one dimension is a vector."""
        shape = getattr(kind, "shape", None)
        if shape is not None and len([side for side in shape if side != 1]) > 1:
            raise ShapeError(f"{file}: column {self._name!r} holds tensors of shape {list(shape)}, not vectors")
        return getattr(kind, "storage_type", kind)

    def _is_list(self) -> bool:
        kind, types = self._kind, self._types
        return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))

    def _is_text(self) -> bool:
        return bool(self._types.is_string(self._kind) or self._types.is_large_string(self._kind))

    def _is_bytes(self) -> bool:
        kind, types = self._kind, self._types
        return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))
