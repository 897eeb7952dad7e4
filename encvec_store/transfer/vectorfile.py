"""A FAISS index or an array as a source, with ids and metadata from other files."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.ids import Id
from ..errors import DuplicateIdError, InputError
from . import metric_names
from .arrays import open_array
from .batch import Batch, Reader, sound

__all__ = ["NAMELESS", "VectorFile"]

NAMELESS = "\0"
"""Prefix of the ids that a reader of metadata makes up: its rows belong to the vectors by their place."""
_EXACT = ("IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexHNSWFlat", "IndexNSGFlat", "IndexIVFFlat", "IndexRefineFlat")
# FAISS crashes, without an error, where an index outside these is asked for its vectors (fast scan, for one)
_LOSSY = ("IndexScalarQuantizer", "IndexPQ", "IndexHNSWSQ", "IndexHNSWPQ", "IndexIVFScalarQuantizer", "IndexIVFPQ")
_READ_ROWS = 65_536


@dataclass(frozen=True)
class _Vectors:
    """Content of a file. `keys` address its vectors; `labels` are the ids that it keeps for them."""

    get: Any
    keys: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64] | None
    dim: int
    named: metric_names.Named
    lossy: str


class VectorFile:
    """The vectors of a file. Each one has an id, and metadata if there are any.

    Args:
        path: a FAISS index that can give its vectors back, or a `.npy` array.
        ids: one for each vector; by default those of an IndexIDMap or IVF index, else of `extra`, else `stem:row`.
        extra: reads metadata, documents and maybe ids. Rows with ids belong to the vectors of those ids, others to
            the vectors in turn.

    Raises:
        InputError: no index or array, one that cannot give its vectors back, or ids and rows that do not fit.
    """

    unit = "row"

    def __init__(self, path: str | Path, ids: Sequence[Id] | None = None, extra: Reader | None = None) -> None:
        self._path = Path(path)
        self.name = str(path)
        with self._path.open("rb"):  # for the system's own words on a file that is missing or may not be read
            self._stamp = self._stamped()
        self._vectors = _array(self._path) if self._path.suffix == ".npy" else _index(self._path)
        self.dim, self.lossy = self._vectors.dim, self._vectors.lossy
        n = len(self._vectors.keys)
        self.total: int | None = n
        names, metadata, documents = _joined(extra)
        labels = None if self._vectors.labels is None else list(map(str, self._vectors.labels.tolist()))
        named = [] if not names or str(names[0]).startswith(NAMELESS) else names
        made: Sequence[Id] = labels or named or [f"{self._path.stem}:{i}" for i in range(n)]
        self._ids: list[Id] = list(made if ids is None else ids)
        if len(self._ids) != n:
            raise InputError(f"{self.name} has {n:,} vectors, but there are {len(self._ids):,} ids")
        self._check_distinct()
        self._rows: npt.NDArray[np.int64] | None = None
        self._metadata, self._documents = metadata, documents
        if extra is not None:
            self._rows = self._places(extra, names, bool(named))

    @property
    def metric(self) -> str | None:
        """The metric of the index. Raises MetricError for one that is not supported, or where bits may be packed."""
        return metric_names.told(self._vectors.named)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield records in order."""
        for start in range(0, len(self._ids), size):
            yield self._batch(range(start, min(start + size, len(self._ids))))

    def scan(self, size: int) -> Generator[npt.NDArray[Any]]:
        """Yield the vectors."""
        for start in range(0, len(self._ids), size):
            yield self._at(np.arange(start, min(start + size, len(self._ids))))

    def sample(self, n: int, seed: int) -> npt.NDArray[np.float32]:
        """Return at most n vectors by chance."""
        places = np.random.default_rng(seed).permutation(len(self._ids))[:n]
        return self._at(np.sort(places))

    def again(self) -> None:
        """Check that the file has not changed since it was read. Raises InputError."""
        if self._stamped() != self._stamp:
            raise InputError(f"{self.name} was changed after it was read: run the import again")

    def as_read(self, ids: Sequence[Id]) -> Batch:
        """Return records by id: the file has not changed."""
        wanted = set(ids)
        return self._batch([place for place, id in enumerate(self._ids) if id in wanted])

    def close(self) -> None:
        """Do nothing: the file is mapped or read already."""

    def _batch(self, places: Sequence[int]) -> Batch:
        batch = Batch(places, [self._ids[place] for place in places], self._at(np.asarray(places, np.int64)))
        if self._rows is not None:
            rows = self._rows[np.asarray(places, np.int64)].tolist()
            batch.metadata = [self._metadata[row] if row >= 0 else {} for row in rows]
            batch.documents = [self._documents[row] if row >= 0 else None for row in rows]
        return batch

    def _at(self, places: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        vectors: npt.NDArray[np.float32] = self._vectors.get(self._vectors.keys[places])
        return vectors

    def _stamped(self) -> tuple[int, int, int]:
        found = os.stat(self._path)
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _check_distinct(self) -> None:
        seen: set[Id] = set()
        for row, id in enumerate(self._ids):
            if id in seen:
                raise DuplicateIdError(f"{self.name}, row {row}: the id repeats {id!r}")
            seen.add(id)

    def _places(self, extra: Reader, names: list[Id], named: bool) -> npt.NDArray[np.int64]:
        """Return the metadata row of each vector; -1 if it has none."""
        n = len(self._ids)
        if not named:
            if len(names) != n:
                raise InputError(f"{self.name} has {n:,} vectors, but {extra.name} has {len(names):,} rows without ids")
            return np.arange(n)
        row_of = {name: row for row, name in enumerate(names)}
        if len(row_of) != len(names):
            raise DuplicateIdError(f"{extra.name}: an id stands there twice")
        rows = np.array([row_of.pop(id, -1) for id in self._ids], np.int64)
        if row_of:
            raise InputError(f"{extra.name} has an id that {self.name} has no vector for: {next(iter(row_of))!r}")
        return rows


def _joined(extra: Reader | None) -> tuple[list[Id], list[dict[str, Any]], list[Any]]:
    names: list[Id] = []
    metadata: list[dict[str, Any]] = []
    documents: list[Any] = []
    if extra is None:
        return names, metadata, documents
    for batch in sound(extra, _READ_ROWS):
        names += batch.ids
        metadata += batch.metadata or [{} for _ in batch.ids]
        documents += batch.documents or [None for _ in batch.ids]
    if len({isinstance(name, str) and name.startswith(NAMELESS) for name in names}) > 1:
        raise InputError(f"{extra.name}: some rows have an id, some have none")
    return names, metadata, documents


def _array(path: Path) -> _Vectors:
    found = open_array(path, "npy")
    array = found.numbers
    wide = array.dtype.kind == "f" and array.dtype.itemsize > 4
    lossy = "float64 is kept as float32" if wide else ""

    def get(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return np.asarray(array[keys], np.float32)

    return _Vectors(get, np.arange(len(array)), None, array.shape[1], found.named, lossy)


def _index(path: Path) -> _Vectors:
    import faiss

    try:
        whole = faiss.read_index(str(path), faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        if "OnDiskInvertedLists" in str(error):
            raise InputError(_outside(path)) from None
        raise InputError(f"{path} is neither a FAISS index of float vectors nor a .npy array") from None
    labels = None
    inner = whole
    if isinstance(whole, faiss.IndexIDMap | faiss.IndexIDMap2):
        labels = faiss.vector_to_array(whole.id_map).astype(np.int64)
        inner = faiss.downcast_index(whole.index)
    kind, basic = type(inner).__name__, inner
    if isinstance(inner, faiss.IndexPreTransform):
        basic = faiss.downcast_index(inner.index)
    if type(basic).__name__ not in (*_EXACT, *_LOSSY):
        raise InputError(
            f"{path}: an index of the kind {type(basic).__name__} cannot give its vectors back: these can: "
            + ", ".join(name.removeprefix("Index") for name in (*_EXACT, *_LOSSY))
        )
    keys = np.arange(inner.ntotal)
    inverted: Any = faiss.try_extract_index_ivf(inner)
    if inverted is not None:
        if isinstance(faiss.downcast_InvertedLists(inverted.invlists), faiss.OnDiskInvertedLists):
            raise InputError(_outside(path))
        keys = _listed(inverted)
        if labels is None and not np.array_equal(keys, np.arange(len(keys))):
            labels = keys
    named = metric_names.of_faiss(inner.metric_type, str(path))
    lossy = "" if kind in _EXACT else f"{kind} keeps vectors approximately, and only those can be had back"

    def get(wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        _ = whole  # owns what `inner` points to
        vectors: npt.NDArray[np.float32] = inner.reconstruct_batch(np.ascontiguousarray(wanted))
        return vectors

    return _Vectors(get, keys, labels, inner.d, named, lossy)


def _outside(path: Path) -> str:
    return (
        f"{path} keeps its lists in another file, which is not read: "
        "make an index that holds them, by faiss.IndexIVF.replace_invlists"
    )


def _listed(index: Any) -> npt.NDArray[np.int64]:
    """Return the ids in an inverted file, ascending, and make its vectors readable by id."""
    import faiss

    index = faiss.downcast_index(index)
    lists = index.invlists
    sizes = [lists.list_size(number) for number in range(lists.nlist)]
    parts = [faiss.rev_swig_ptr(lists.get_ids(number), n).astype(np.int64) for number, n in enumerate(sizes) if n]
    index.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
