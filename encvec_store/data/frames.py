"""Records and hits as tables of pyarrow, pandas and polars."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from ..errors import InputError
from .columns import needed
from .records import Hit, Record

__all__ = ["ResultList", "Scroll"]

R = TypeVar("R", Record, Hit)
_WHOLE = 2**53
"""Integers up to this one are floats, too, without a loss."""


class ResultList(list[R]):
    """A list of records or hits, which becomes a table of pyarrow, pandas or polars.

    The table has the columns `id`, for hits `score`, and `document`, then one for each key of the metadata, and at last
    `vector`, if there are vectors. A key that has the name of another column is called `metadata.` and its name. Ids
    are text, or integers if all of them are. UUIDs become text, and datetimes with a zone those of UTC. What a record
    lacks is null.
    """

    def __init__(self, items: Iterable[Any] = (), *, scored: bool = False) -> None:
        super().__init__(items)
        self._scored = scored

    def to_arrow(self) -> Any:
        """Return a `pyarrow.Table`.

        Raises:
            InputError: pyarrow is not installed; two ids have the same text; the values of a key have no one type.
        """
        pa = needed("pyarrow", "to_arrow")
        columns: dict[str, Any] = {"id": _ids(self)}
        if self._scored:
            columns["score"] = pa.array([getattr(hit, "score", None) for hit in self], pa.float64())
        columns["document"] = pa.array([record.document for record in self], pa.string())
        vectors = [record.vector for record in self if record.vector is not None]
        taken = {*columns, "score", "vector"}
        for key in dict.fromkeys(key for record in self for key in record.metadata):
            name = key
            while name in taken:
                name = f"metadata.{name}"
            taken.add(name)
            columns[name] = _column(key, [record.metadata.get(key) for record in self])
        if vectors and len(vectors) == len(self):
            flat = pa.array(np.concatenate(vectors))
            columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, len(vectors[0]))
        return pa.table(columns)

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame`. It needs pyarrow, too. Raises what `to_arrow` does."""
        needed("pandas", "to_pandas")
        return self.to_arrow().to_pandas(integer_object_nulls=True)

    def to_polars(self) -> Any:
        """Return a `polars.DataFrame`. It needs pyarrow, too. Raises what `to_arrow` does."""
        return needed("polars", "to_polars").from_arrow(self.to_arrow())


class Scroll(Iterator[Record]):
    """An iterator over records, of which what is left becomes a table in memory: see `ResultList`."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records

    def __next__(self) -> Record:
        return next(self._records)

    def to_arrow(self) -> Any:
        """Return a `pyarrow.Table` of all records that are left. Raises what `ResultList.to_arrow` does."""
        return ResultList(self).to_arrow()

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` of all records that are left. Raises what `ResultList.to_arrow` does."""
        return ResultList(self).to_pandas()

    def to_polars(self) -> Any:
        """Return a `polars.DataFrame` of all records that are left. Raises what `ResultList.to_arrow` does."""
        return ResultList(self).to_polars()


def _ids(records: Sequence[Record] | Sequence[Hit]) -> Any:
    pa = needed("pyarrow", "to_arrow")
    ids = [record.id for record in records]
    if ids and all(type(id) is int for id in ids):
        return pa.array(ids, pa.int64())
    if len(set(map(str, ids))) < len(set(ids)):
        raise InputError("two ids have the same text, such as 1 and '1': a table has one column of text for them")
    return pa.array([str(id) for id in ids], pa.string())


def _column(name: str, values: list[Any]) -> Any:
    """Return an Arrow array of metadata. Raises InputError, which names the key and shows no value."""
    pa = needed("pyarrow", "to_arrow")
    _check_kinds(name, values)
    try:
        return pa.array([_as_cell(value) for value in values])
    except (pa.ArrowException, OverflowError):
        raise InputError(f"metadata {name!r} has a value that fits into no Arrow column: {_CURE}") from None


_CURE = "read the records without a table, or leave them out by a filter"


def _as_cell(value: Any) -> Any:
    match value:
        case uuid.UUID():
            return str(value)
        case dt.datetime() if value.utcoffset() is not None:
            return value.astimezone(dt.UTC)
        case list() | tuple():
            return [_as_cell(item) for item in value]
        case dict():
            return {key: _as_cell(item) for key, item in value.items()}
    return value


def _check_kinds(name: str, values: Iterable[Any]) -> None:
    """Refuse values of several types: Arrow would turn some into others, and a datetime into its date."""
    present = [value for value in values if value is not None]
    kinds = {list if type(value) is tuple else type(value) for value in present}
    if kinds == {int, float} and all(abs(value) <= _WHOLE for value in present if type(value) is int):
        return
    zones = {value.utcoffset() is None for value in present if isinstance(value, dt.datetime)}
    if len(kinds) > 1 or len(zones) > 1:
        found = ", ".join(sorted(kind.__name__ for kind in kinds)) if len(kinds) > 1 else "datetime with and without"
        raise InputError(f"metadata {name!r} has values of several types ({found}), and a column has one: {_CURE}")
    if kinds == {list}:
        _check_kinds(name, [item for value in present for item in value])
    if kinds == {dict}:
        for key in dict.fromkeys(key for value in present for key in value):
            _check_kinds(f"{name}.{key}", [value.get(key) for value in present])
