"""Files of vectors that are read where they lie, not loaded: npy, fvecs, bvecs, ann-benchmarks hdf5."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from ...data.arrays import Matrix
from ...errors import InputError
from .source import Data, Vectors, VectorSource, held_out

__all__ = ["MAPPED", "open_data", "open_vectors"]

MAPPED = (".npy", ".fvecs", ".bvecs", ".hdf5", ".h5")
"""Suffixes that `open_data` knows."""


_METRICS = {"angular": "cosine", "euclidean": "l2", "dot": "ip", "ip": "ip"}
_MOST_QUERIES = 10_000


def open_data(path: Path, metric: str | None = None) -> Data:
    """Open a file as what a benchmark runs on.

    Queries are the file's own (hdf5: `test`; fvecs, bvecs: X_query beside X_base), else a tenth of the vectors, at
    most 1,000, held out at random. The metric is the file's own, else l2 for fvecs and bvecs, else cosine.

    Raises:
        InputError: not such a file, or too few vectors.
    """
    if path.suffix in (".hdf5", ".h5"):
        file = _hdf5(path)
        distance = str(file.attrs.get("distance", "angular"))
        if distance not in _METRICS or "train" not in file or "test" not in file:
            raise InputError(f"{path}: needs train, test, a distance in {sorted(_METRICS)}; has {distance!r}")
        queries = VectorSource(file["test"]).whole()
        return Data(path.stem, VectorSource(file["train"]), queries, metric or _METRICS[distance])
    vectors = open_vectors(path)
    texmex = path.suffix in (".fvecs", ".bvecs")
    beside = path.with_name(path.name.replace("_base", "_query"))
    own = metric or ("l2" if texmex else "cosine")
    if texmex and beside != path and beside.is_file():
        return Data(path.stem, VectorSource(vectors), VectorSource(open_vectors(beside)[:_MOST_QUERIES]).whole(), own)
    return Data(path.stem, *held_out(vectors), own)


def open_vectors(path: Path) -> Vectors:
    """Map the (n, d) vectors of a file; hdf5: `train`, or the only data set. Raises InputError."""
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    match path.suffix:
        case ".npy":
            try:
                array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise InputError(f"{path} is no array of numbers in NumPy's format: {error}") from None
        case ".fvecs":
            array = _texmex(path, np.dtype("<f4"))
        case ".bvecs":
            array = _texmex(path, np.dtype("u1"))
        case ".hdf5" | ".h5":
            file = _hdf5(path)
            name = "train" if "train" in file else next(iter(file), None)
            if name is None:
                raise InputError(f"{path} holds no data set")
            array = file[name]
        case _:
            raise InputError(f"{path}: its suffix is none of {', '.join(MAPPED)}")
    if len(array.shape) != 2 or array.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected numbers of shape (n, d), got {array.dtype} {tuple(array.shape)}")
    vectors: Vectors = array
    return vectors


def _texmex(path: Path, kind: np.dtype[Any]) -> Any:
    """Map a file of TEXMEX: each vector is its length as int32, then as many numbers, little-endian."""
    with path.open("rb") as file:
        head = np.frombuffer(file.read(4), "<i4")
    dim, size = int(head[0]) if len(head) else 0, path.stat().st_size
    line = 4 + max(0, dim) * kind.itemsize
    if dim < 1 or size % line:
        raise InputError(f"{path}: not an {path.suffix[1:]} file")
    lines = np.memmap(path, np.dtype([("dim", "<i4"), ("vector", kind, (dim,))]), mode="r")
    if (lines["dim"] != dim).any():
        raise InputError(f"{path}: not an {path.suffix[1:]} file")
    return lines["vector"]


def _hdf5(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError:
        raise InputError("HDF5 files need h5py: pip install h5py") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is no HDF5 file: {error}") from None


def read_fvecs(path: Path) -> Matrix:
    """Return the (n, d) vectors of a TEXMEX file. Raises InputError."""
    return VectorSource(_texmex(path, np.dtype("<f4"))).whole()
