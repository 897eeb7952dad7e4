"""In which order a file's rows are read, and which ids were read before."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..data.ids import Id, id_bytes
from ..errors import InputError
from ..transfer.batch import Batch, Reader

__all__ = ["Seen", "batches_of", "shuffled"]


@runtime_checkable
class _Scattered(Protocol):
    """A reader that can give any rows."""

    def at(self, rows: Sequence[int]) -> Batch: ...


def batches_of(reader: Reader, size: int, limit: int | None) -> Iterator[Batch]:
    """Yield the first `limit` rows of a reader, in the file's order."""
    left = limit
    if left == 0:
        return
    for batch in reader.batches(size if left is None else min(size, left)):
        yield batch if left is None or len(batch.ids) <= left else batch.take(range(left))
        if left is not None:
            left -= len(batch.ids) + len(batch.faults)
            if left <= 0:
                return


def shuffled(reader: Reader, size: int, limit: int | None, seed: int | None) -> Iterator[Batch]:
    """Yield the first `limit` rows of a reader in random order: drawn by the system, or by a seed.

    Text files are held in memory for that, and so are Parquet and HDF5.
    """
    if isinstance(reader, _Scattered) and reader.total is not None:
        order = _permutation(reader.total if limit is None else min(limit, reader.total), seed)
        for start in range(0, len(order), size):
            yield reader.at(order[start : start + size].tolist())
        return
    if reader.name == "standard input":
        raise InputError("standard input cannot be shuffled, since it has no end that is known: write a file first")
    parts = list(batches_of(reader, size, limit))
    whole = _joined(parts)
    order = _permutation(len(whole.ids), seed)
    if not len(order):
        yield from parts  # rows that are all at fault, or none
    for start in range(0, len(order), size):
        batch = whole.take(order[start : start + size].tolist())
        batch.faults = whole.faults if not start else []
        yield batch


def _permutation(n: int, seed: int | None) -> npt.NDArray[np.int64]:
    if seed is not None:
        return np.random.default_rng(seed).permutation(n)
    return np.argsort(np.frombuffer(secrets.token_bytes(8 * n), np.uint64), kind="stable")


def _joined(parts: list[Batch]) -> Batch:
    return Batch(
        [position for part in parts for position in part.positions],
        [id for part in parts for id in part.ids],
        np.concatenate([part.vectors for part in parts if len(part.ids)] or [np.empty((0, 0))]),
        [item for part in parts for item in part.metadata or [{}] * len(part.ids)],
        [item for part in parts for item in part.documents or [None] * len(part.ids)],
        [fault for part in parts for fault in part.faults],
    )


class Seen:
    """The ids of a run, as 8 bytes each: told apart by Python's keyed hash of 64 bits."""

    def __init__(self) -> None:
        self._runs: list[npt.NDArray[np.int64]] = []

    def repeats(self, ids: Sequence[Id]) -> list[int]:
        """Return the places of ids that came before, here or in an earlier call, and keep the others in mind."""
        hashes = np.fromiter((hash(id_bytes(id)) for id in ids), np.int64, len(ids))
        again = np.ones(len(ids), bool)
        again[np.unique(hashes, return_index=True)[1]] = False  # the first of each stays
        for run in self._runs:
            again |= run[np.minimum(np.searchsorted(run, hashes), len(run) - 1)] == hashes
        self._add(np.sort(hashes[~again]))
        return np.flatnonzero(again).tolist()

    def _add(self, run: npt.NDArray[np.int64]) -> None:
        """Keep sorted runs whose lengths about double: few to search, and each id is merged a few times only."""
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        if len(run):
            self._runs.append(run)
