"""Data for `encvec bench`: a file, mapped where its format allows it, or a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..lab.bench.files import MAPPED, open_data, open_vectors
from ..lab.bench.source import Data, VectorSource, held_out
from ..lab.bench.synthetic import named
from ..transfer.batch import Reader, sound
from .columns import Columns
from .common import Failure
from .readers import open_reader

__all__ = ["FINDERS", "load"]

FINDERS: list[Callable[[str, int | None], Data]] = []
"""What else knows data sets by name, within a limit; raises ValueError. `benchmarks` adds those of a checkout."""
_BATCH = 10_000


def load(name: str, queries_file: str | None, limit: int | None, metric: str | None) -> Data:
    """Return a data set. Raises InputError or Failure."""
    path = Path(name)
    if not path.exists() and (":" in name or not path.suffix):
        found = _by_name(name, limit)
    elif path.suffix.lower() in MAPPED:
        found = open_data(path, metric, queries=queries_file is None)
    else:
        vectors, reader = _read(name)
        kept, asked = held_out(vectors) if queries_file is None else (VectorSource(vectors), vectors[:0])
        found = Data(path.stem, kept, asked, metric or reader.metric or "cosine")
    if queries_file is not None:
        found = replace(found, queries=_queries(queries_file), judged=None)
    if limit is not None and limit < len(found.vectors):
        found = replace(found, vectors=found.vectors.take(limit), judged=None)
    return replace(found, metric=metric) if metric else found


def _queries(path: str) -> Any:
    place = Path(path)
    return VectorSource(open_vectors(place)).whole() if place.suffix.lower() in MAPPED else _read(path)[0]


def _read(path: str) -> tuple[Any, Reader]:
    """Read a file that can only be read in order: it is held in memory."""
    reader = open_reader(path, None, Columns())
    parts = [np.asarray(batch.vectors, np.float32) for batch in sound(reader, _BATCH)]
    if not parts:
        raise InputError(f"{path} holds no vectors")
    return np.concatenate(parts), reader


def _by_name(name: str, limit: int | None) -> Data:
    drawn = named(name)
    if drawn is not None:
        return drawn
    for find in FINDERS:
        try:
            return find(name, limit)
        except ValueError as error:
            raise InputError(str(error)) from None
    raise Failure(
        "InputError",
        f"{name!r} is no file; the named data sets come with a checkout of the repository, in which"
        f" `python -m benchmarks bench --data {name}` knows them",
    )
