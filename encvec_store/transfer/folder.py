"""What the folders of Chroma, Qdrant and LanceDB have in common as sources.

Each one is read by its own package. A subclass says which records there are, and gives some of them by their names.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..data.ids import Id
from ..errors import EncvecError, InputError
from . import metric_names
from .batch import Batch, Fault
from .flatten import flattened

__all__ = ["Chosen", "FolderRow", "FolderSource", "package", "picked", "reading"]


@dataclass(frozen=True)
class Chosen:
    """What the fields of a folder's records are to become; None for the usual."""

    id: str | None = None
    vector: str | None = None
    document: str | None = None
    metadata: Sequence[str] | None = None
    flatten: Sequence[str] = ()
    """Fields of objects whose keys become metadata of their own; an object `metadata` always gives them."""

    def refuse(self, kind: str, *names: str) -> None:
        """Raise InputError where one of these was chosen, and that kind of folder leaves no choice."""
        for name in names:
            if getattr(self, name) is not None:
                raise InputError(f"--{name}-column is not for {kind}: its records have one {name}, and that is taken")


class FolderRow(NamedTuple):
    """A record as the folder has it."""

    id: str
    vector: Any
    """(dim,), or None where it has none."""
    fields: dict[str, Any]
    document: str | None = None
    """Where documents are apart from the fields."""


class FolderSource(ABC):
    """Records of a folder. Ids become text.

    Args:
        path: the folder.
        table: the collection or table in it; None for the only one.
        columns: id, vector, document, metadata, flatten: see `Chosen`.

    Raises:
        InputError: the package is missing, or there is no such folder, table or field.
    """

    kind: str
    unit = "id"
    lossy = ""
    _document: str | None = "document"
    """The field with the document; None where documents are apart."""

    def __init__(self, path: str | Path, table: str | None = None, **columns: Any) -> None:
        self._chosen = Chosen(**columns)
        if self._document is not None:
            self._document = self._chosen.document or self._document
        self._path = Path(path)
        if not self._path.is_dir():
            raise InputError(f"{path} is no folder: {self.kind}:FOLDER names one")
        self._named: metric_names.Named = None
        self._keys: dict[str, Any] = {}
        """Id -> what the package knows the record by, in the order of the folder."""
        self.name = str(path)
        self.dim = 0
        self.total: int | None = None
        try:
            with reading(self.name):
                self._open(table)
        except BaseException:
            self.close()
            raise
        if not self._keys:
            self.close()
            raise InputError(f"{self.name} holds no records")
        self.total = len(self._keys)

    @property
    def metric(self) -> str | None:
        """The metric by which it ranks. Raises MetricError for one that is not supported."""
        return metric_names.told(self._named)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield records in the order of the folder."""
        for ids in self._pages(size):
            yield self._batch(ids)

    def scan(self, size: int) -> Generator[npt.NDArray[Any]]:
        """Yield the vectors."""
        for ids in self._pages(size):
            yield self._vectors(ids)

    def sample(self, n: int, seed: int) -> npt.NDArray[np.float32]:
        """Return at most n vectors by chance."""
        ids = list(self._keys)
        chosen = np.sort(np.random.default_rng(seed).permutation(len(ids))[:n])
        return self._vectors([ids[place] for place in chosen.tolist()])

    def as_read(self, ids: Sequence[Id]) -> Batch:
        """Return records by id, as they were before `again`."""
        return self._batch([str(id) for id in ids if id in self._keys])

    @abstractmethod
    def again(self) -> None:
        """Read the present content from now on, or raise InputError where the folder was changed meanwhile."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the folder."""

    @abstractmethod
    def _open(self, table: str | None) -> None:
        """Open the folder, and set `name`, `dim`, `_keys` and `_named`."""

    @abstractmethod
    def _rows(self, ids: Sequence[str], *, bare: bool) -> Iterator[FolderRow]:
        """Yield the records of these ids in any order; bare, only with their vectors."""

    def _pages(self, size: int) -> Iterator[list[str]]:
        ids = list(self._keys)
        for start in range(0, len(ids), size):
            yield ids[start : start + size]

    def _vectors(self, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        with reading(self.name):
            found = [row.vector for row in self._rows(ids, bare=True) if not self._misfit(row.vector)]
        return np.array(found, np.float32).reshape(len(found), self.dim)

    def _batch(self, ids: Sequence[str]) -> Batch:
        with reading(self.name):
            row_of = {row.id: row for row in self._rows(ids, bare=False)}
        good: list[FolderRow] = []
        metadata, documents, faults = [], [], []
        for row in (row_of[id] for id in ids if id in row_of):
            try:
                if wrong := self._misfit(row.vector):
                    raise InputError(wrong)
                document, fields = self._shaped(row)
            except InputError as error:
                faults.append(Fault(row.id, str(error)))
                continue
            good.append(row)
            metadata.append(fields)
            documents.append(document)
        names = [row.id for row in good]
        vectors = np.array([row.vector for row in good], np.float32).reshape(len(good), self.dim)
        return Batch(names, names, vectors, metadata, documents, faults)

    def _misfit(self, vector: Any) -> str:
        if vector is None:
            return "it has no vector"
        return "" if len(vector) == self.dim else f"a vector of {len(vector)} numbers, not {self.dim}"

    def _shaped(self, row: FolderRow) -> tuple[str | None, dict[str, Any]]:
        """Return document and metadata of a record. Raises InputError."""
        fields, document, name = dict(row.fields), row.document, self._document
        if name is not None and isinstance(fields.get(name), str | None):
            document = fields.pop(name, None)
        elif name is not None and self._chosen.document is not None:
            raise InputError(f"{name!r} is {type(fields[name]).__name__}: a document is text")
        wanted = self._chosen.metadata
        taken = {key: value for key, value in fields.items() if wanted is None or key in wanted}
        own = ["metadata"] if isinstance(taken.get("metadata"), dict) else []
        return document, flattened(taken, dict.fromkeys([*self._chosen.flatten, *own]))


def package(name: str, extra: str) -> Any:
    """Import the package that reads a folder. Raises InputError, which names what to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"this folder is read by {name}, which cannot be imported ({error}): pip install 'encvec-store[{extra}]'"
        ) from None


def picked(names: Sequence[str], wanted: str | None, place: str, what: str) -> str:
    """Return the table that is wanted, or the only one. Raises InputError, which lists them all."""
    listed = ", ".join(sorted(names))
    if not names:
        raise InputError(f"{place} has no {what}s")
    if wanted is not None and wanted not in names:
        raise InputError(f"{place} has no {what} {wanted!r}; it has: {listed}")
    if wanted is None and len(names) > 1:
        raise InputError(f"{place} has {len(names)} {what}s: choose one with --table: {listed}")
    return wanted or names[0]


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise what a package raises as InputError: each has classes of its own."""
    try:
        yield
    except (EncvecError, MemoryError):
        raise
    except Exception as error:
        said = next(iter(str(error).splitlines()), "")[:300]
        raise InputError(f"{name} cannot be read: {type(error).__name__}: {said}") from error
