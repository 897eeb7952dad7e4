"""Batches of records, and the sources they are read from."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..data.ids import Id
from ..errors import InputError

__all__ = ["Batch", "Fault", "ImportSource", "Reader", "RowError", "sound"]


class RowError(InputError):
    """A row of a file is wrong."""


class Fault(NamedTuple):
    """A row that cannot be stored, and why."""

    id: Id
    """The row's id in a table, else its place in the file, such as `line 7`."""
    reason: str


@dataclass
class Batch:
    """Some consecutive rows, ready to be upserted."""

    positions: Sequence[Any]
    """The name of each row: its number from 0; in text the line from 1; in tables the id."""
    ids: Sequence[Id]
    vectors: npt.NDArray[Any]
    """(n, dim)."""
    metadata: list[dict[str, Any]] | None = None
    documents: list[Any] | None = None
    faults: list[Fault] = field(default_factory=list)
    """Rows that cannot be records. The other fields do not hold them."""

    def take(self, keep: Sequence[int]) -> Batch:
        """Return the records at these places of the batch."""
        return Batch(
            [self.positions[i] for i in keep],
            [self.ids[i] for i in keep],
            self.vectors[np.asarray(keep, np.int64)],
            None if self.metadata is None else [self.metadata[i] for i in keep],
            None if self.documents is None else [self.documents[i] for i in keep],
        )

    def fields(self, place: int) -> tuple[dict[str, Any] | None, Any]:
        """Return metadata and document of the record at a place."""
        return (
            None if self.metadata is None else self.metadata[place],
            None if self.documents is None else self.documents[place],
        )


class Reader(Protocol):
    """Embeddings that can be read a batch at a time."""

    name: str
    unit: str
    """row, line or id: what `Batch.positions` holds."""
    total: int | None

    @property
    def metric(self) -> str | None:
        """The metric that the file names, if it does. Raises MetricError for one that is not known."""
        ...

    def batches(self, size: int) -> Generator[Batch] | Iterator[Batch]:
        """Yield the records in order, at most `size` at a time. Raises InputError."""
        ...

    def scan(self, size: int) -> Generator[npt.NDArray[Any]]:
        """Yield only the vectors, before or after `batches`; nothing if the file can be read only once."""
        ...


class ImportSource(Reader, Protocol):
    """A reader that can be read again, and compared with what was made of it."""

    dim: int
    """Coordinates of a vector."""
    lossy: str
    """Why its vectors are not the original ones; "" if they are."""

    def sample(self, n: int, seed: int) -> npt.NDArray[np.float32]:
        """Return at most n random vectors of it, (m, dim)."""
        ...

    def again(self) -> None:
        """Read the present content from now on. `as_read` still gives what was read before."""
        ...

    def as_read(self, ids: Sequence[Id]) -> Batch:
        """Return the records of these ids as they were before `again`; missing ones are left out."""
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...


def sound(reader: Reader, size: int) -> Iterator[Batch]:
    """Yield the batches of a reader. Raises RowError at the first row of which no record could be made."""
    for batch in reader.batches(size):
        for fault in batch.faults:
            raise RowError(f"{reader.name}, {fault.id}: {fault.reason}")
        yield batch
