"""Files of vectors as data sets to measure on: npy, fvecs, bvecs, ann-benchmarks hdf5. They are mapped, not loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import InputError
from ...transfer import MAPPED, StoredArray, hdf5_file, hdf5_set, hdf5_sets, open_array, told
from .source import Data, Vectors, VectorSource, held_out

__all__ = ["MAPPED", "open_data", "open_vectors"]

_MOST_QUERIES = 10_000


def open_data(path: Path, metric: str | None = None, *, queries: bool = True) -> Data:
    """Open a file as what a benchmark runs on.

    Queries are the file's own (hdf5: `test`; fvecs, bvecs: X_query beside X_base), else a tenth of the vectors, at
    most 1,000, held out at random; none where `queries` is false. The metric is the one given, else the file's own
    (l2 for fvecs and bvecs), else cosine.

    Raises:
        InputError: not such a file, too few vectors, or a metric that is not known.
    """
    found = _opened(path)
    own = metric or told(found.named) or "cosine"
    whole = VectorSource(found.numbers)
    if not queries:
        return Data(path.stem, whole, np.empty((0, whole.dim), np.float32), own)
    if MAPPED[path.suffix.lower()] == "hdf5":
        test = hdf5_set(hdf5_file(path), "test")
        if test is None:
            raise InputError(f"{path}: needs the data sets train and test, has no test")
        return Data(path.stem, whole, VectorSource(test).whole(), own)
    beside = path.with_name(path.name.replace("_base", "_query"))
    if path.suffix in (".fvecs", ".bvecs") and beside != path and beside.is_file():
        asked = VectorSource(open_vectors(beside)[:_MOST_QUERIES]).whole()
        return Data(path.stem, whole, asked, own)
    return Data(path.stem, *held_out(found.numbers), own)


def open_vectors(path: Path) -> Vectors:
    """Map the (n, d) vectors of a file; hdf5: `train`, or the only data set. Raises InputError."""
    vectors: Vectors = _opened(path).numbers
    return vectors


def _opened(path: Path) -> StoredArray:
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    name = None
    if MAPPED.get(path.suffix.lower()) == "hdf5" and "train" not in list(file := hdf5_file(path)):
        name = names[0] if len(names := hdf5_sets(file)) == 1 else None
    return open_array(path, name=name)
