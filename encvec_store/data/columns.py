"""Tensors, columns and data frames of other packages, turned into arrays and lists.

They are known by what they can do, so that none of these packages is needed: `__array__`, `__dlpack__`, Arrow's C data
interface, and the methods that pandas, polars and pyarrow have for rows and columns.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ..errors import InputError, ShapeError

__all__ = ["as_cells", "as_numbers", "as_rows", "needed"]


def needed(package: str, what: str) -> Any:
    """Import a package that is no dependency. Raises InputError."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"{what} needs {package} ({error}): pip install {package}") from None


def as_numbers(values: Any, name: str) -> Any:
    """Return tensors and columns of vectors as arrays, and all else as it is. Raises ShapeError, InputError."""
    if isinstance(values, np.ndarray | list | tuple):
        return values
    if _is_arrow(values):
        values = _of_arrow(values, name)
    size = getattr(getattr(values, "type", None), "list_size", None)
    if isinstance(size, int) and callable(getattr(values, "flatten", None)) and not values.null_count:
        whole = values.combine_chunks() if hasattr(values, "combine_chunks") else values
        return np.asarray(whole.flatten()).reshape(len(whole), size)
    if not hasattr(values, "__array__"):
        return _of_dlpack(values, name) if hasattr(values, "__dlpack__") else values
    try:
        return np.asarray(values)
    except (TypeError, RuntimeError):  # a tensor with a gradient, on a device, or of a type that numpy lacks
        for step in ("detach", "cpu", "float"):
            values = getattr(values, step, lambda values=values: values)()
    try:
        return np.asarray(values)
    except (TypeError, RuntimeError):  # their messages may show values
        raise ShapeError(f"{name}: {type(values).__name__} does not become an array: give one of numpy") from None


def _of_dlpack(values: Any, name: str) -> Any:
    try:
        return np.from_dlpack(values)
    except (BufferError, RuntimeError, TypeError, ValueError):
        raise ShapeError(
            f"{name}: numpy cannot read this {type(values).__name__}: copy it to the host's memory first"
        ) from None


def _is_arrow(values: Any) -> bool:
    """Say whether something has Arrow's C data interface, and no methods of rows or arrays that we know."""
    known = any(hasattr(values, method) for method in ("__array__", "to_pylist", "to_dicts", "iloc"))
    return not known and (hasattr(values, "__arrow_c_stream__") or hasattr(values, "__arrow_c_array__"))


def _of_arrow(values: Any, name: str, *, table: bool = False) -> Any:
    """Return what Arrow's C data interface gives, as an array or a table of pyarrow."""
    pa = needed("pyarrow", f"{name} by Arrow's C data interface")
    try:
        if table:
            return pa.table(values)
        return pa.chunked_array(values) if hasattr(values, "__arrow_c_stream__") else pa.array(values)
    except (pa.ArrowException, TypeError, ValueError):
        raise ShapeError(f"{name}: {type(values).__name__} has no Arrow data of this kind") from None


def as_cells(values: Any, name: str) -> Any:
    """Return a column as a list, with None where pandas or Arrow has no value; all else as it is."""
    if hasattr(values, "iloc") and callable(getattr(values, "isna", None)) and getattr(values, "ndim", 0) == 1:
        return [None if gone else item for item, gone in zip(values.tolist(), values.isna().tolist(), strict=True)]
    if _is_arrow(values):
        values = _of_arrow(values, name)
    return values.to_pylist() if callable(getattr(values, "to_pylist", None)) else values


def as_rows(values: Any, name: str) -> Any:
    """Return the rows of a data frame as dicts, without what is missing in them; all else as it is."""
    if _is_arrow(values):
        values = _of_arrow(values, name, table=True)
    if hasattr(values, "iloc") and getattr(values, "ndim", 0) == 2:
        columns = [_cells_of_pandas(values.iloc[:, place]) for place in range(values.shape[1])]
        names, gone = list(values.columns), values.isna().to_numpy().tolist()
        return [
            {key: cell for key, cell, missing in zip(names, row, lacks, strict=True) if not missing}
            for row, lacks in zip(zip(*columns, strict=True) if columns else [()] * len(values), gone, strict=True)
        ]
    rows = None
    if callable(getattr(values, "to_dicts", None)):
        rows = values.to_dicts()
    elif hasattr(values, "column_names") and callable(getattr(values, "to_pylist", None)):
        rows = values.to_pylist()
    if rows is None:
        return values
    return [{key: cell for key, cell in row.items() if cell is not None} for row in rows]


def _cells_of_pandas(column: Any) -> list[Any]:
    return [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in column.tolist()]
