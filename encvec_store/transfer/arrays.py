"""Files of (n, d) numbers, mapped where they lie: npy, TEXMEX fvecs and bvecs, ann-benchmarks hdf5.

`encvec ingest`, `encvec import` and the benchmarks all open such files here.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, ShapeError
from . import metric_names

__all__ = ["MAPPED", "StoredArray", "hdf5_file", "hdf5_set", "open_array"]

MAPPED = {".npy": "npy", ".fvecs": "fvecs", ".bvecs": "bvecs", ".hdf5": "hdf5", ".h5": "hdf5"}
"""File suffix -> format."""
_TEXMEX: dict[str, np.dtype[Any]] = {"fvecs": np.dtype("<f4"), "bvecs": np.dtype("u1")}


@dataclass(frozen=True)
class StoredArray:
    """(n, d) numbers on disk: a memory map, or an HDF5 data set."""

    name: str
    numbers: Any
    named: metric_names.Named
    """The metric that the file names."""


def open_array(path: Path, kind: str | None = None, name: str | None = None) -> StoredArray:
    """Open the numbers of a file.

    Args:
        path: the file.
        kind: its format, by default what the suffix says.
        name: in HDF5 the data set, with the groups above it: `group/train`. By default `train`.

    Raises:
        InputError: not such a file, or an HDF5 file that refers to other files.
        ShapeError: no numbers of shape (n, d).
        OSError: missing, or may not be read.
    """
    readable(path)
    kind = kind or MAPPED.get(path.suffix.lower())
    if kind == "hdf5":
        return _hdf5(path, name or "train")
    if name is not None:
        raise InputError(f"--vector-column has no meaning for {kind}: it holds one array")
    if kind == "npy":
        return _checked(str(path), _npy(path))
    if kind in _TEXMEX:
        return _checked(str(path), _texmex(path, kind), "l2")
    raise InputError(f"{path}: its suffix is none of {', '.join(MAPPED)}")


def readable(path: Path) -> None:
    """Raise OSError, in the system's own words, for a file that is missing or may not be read."""
    with path.open("rb"):
        pass


def _checked(name: str, numbers: Any, named: metric_names.Named = None) -> StoredArray:
    shape, kind = tuple(numbers.shape), np.dtype(numbers.dtype)
    if len(shape) != 2 or not shape[1]:
        raise ShapeError(f"{name}: expected (n, dim) numbers, got shape {shape}")
    if kind.kind not in "fiu":
        raise ShapeError(f"{name}: expected numbers, got {numbers.dtype}")
    return StoredArray(name, numbers, metric_names.of_numbers(kind, name) if named is None else named)


def _npy(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is no array of numbers in NumPy's format: {error}") from None


def _texmex(path: Path, kind: str) -> Any:
    """Map a file of TEXMEX: each vector is its length as int32, then as many numbers, little-endian."""
    numbers = _TEXMEX[kind]
    with path.open("rb") as file:
        head = np.frombuffer(file.read(4), "<i4")
    dim, size = int(head[0]) if len(head) else 0, path.stat().st_size
    if dim < 1 or size % (4 + dim * numbers.itemsize):
        raise InputError(f"{path}: not an {kind} file")
    lines = np.memmap(path, np.dtype([("dim", "<i4"), ("vector", numbers, (dim,))]), mode="r")
    if (lines["dim"] != dim).any():
        raise InputError(f"{path}: not an {kind} file")
    return lines["vector"]


# --------------------------------------------------------------------------------------------- HDF5


def hdf5_file(path: Path) -> Any:
    """Open an HDF5 file. Raises InputError."""
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError:
        raise InputError("h5py is not installed: pip install 'encvec-store[cli]'") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is no HDF5 file: {error}") from None


def hdf5_set(file: Any, wanted: str) -> Any:
    """Return a data set by its name, or None if there is none.

    A file can make its reader open other files: by links, by data stored outside, by virtual data sets. None of these
    is followed, since a file from elsewhere must not read what lies beside it.

    Raises:
        InputError: the name is a link, or the data lie in another file.
    """
    h5py: Any = importlib.import_module("h5py")
    place = file
    for part in wanted.split("/"):
        link = place.get(part, getlink=True) if part and isinstance(place, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
            raise InputError(f"{file.filename}: {part!r} is {kind}, which is not followed: name the data set itself")
        place = place[part]
    if not isinstance(place, h5py.Dataset):
        return None
    if place.external or place.is_virtual:
        raise InputError(
            f"{file.filename}: data set {wanted!r} is kept in other files, which are not read: "
            "copy its numbers into the file"
        )
    return place


def hdf5_sets(file: Any) -> list[str]:
    """Return the names of the data sets at the top of a file. Links are not followed."""
    h5py: Any = importlib.import_module("h5py")
    hard = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
    return sorted(name for name in hard if isinstance(file[name], h5py.Dataset))


def _hdf5(path: Path, wanted: str) -> StoredArray:
    file = hdf5_file(path)
    found = hdf5_set(file, wanted)
    if found is None:
        listed = ", ".join(hdf5_sets(file)) or "none"
        raise InputError(f"{path} has no data set {wanted!r}; it has: {listed}. Name one with --vector-column")
    return _checked(f"{path}, {wanted}", found, hdf5_metric(file))


def hdf5_metric(file: Any) -> metric_names.Named:
    """Return the metric that the attribute `distance` names, as ann-benchmarks writes it."""
    try:
        value = file.attrs.get("distance")
    except (OSError, TypeError) as error:
        value = f"(unreadable: {error})"
    return metric_names.of_name(value, str(file.filename))
