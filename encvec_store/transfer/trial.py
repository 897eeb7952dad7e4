"""Find the rows of a batch that cannot be stored, with the library's own reasons, without writing."""

from __future__ import annotations

import re
from typing import Any

from .. import low_level
from ..collection import Collection
from ..errors import InputError
from ..keys.keyset import Keyset
from ..store import connect
from .batch import Batch, Fault

__all__ = ["faults_of"]

_PARTS = {"ids": "the id", "vectors": "the vector", "documents": "the document", "metadata": "the metadata"}
_PLACE = re.compile(r"\b(ids|vectors|documents|metadata)\[0\]")
_UNBOUNDED = 9e29


def faults_of(collection: Collection, batch: Batch) -> list[Fault]:
    """Write rows to a similar collection in memory: all together, and one by one if that fails."""
    bound = collection.stats()["max_norm"] if collection.metric != "cosine" else None
    if collection.metric != "cosine" and bound is None:
        bound = _UNBOUNDED  # the first write will set it
    with connect("memory:", keyset=Keyset.create("memory:")) as store:
        like: dict[str, Any] = {"max_norm": bound, "precision": low_level.session(collection).config.precision}
        trial = store.collection("trial", collection.dim, collection.metric, "sealed", **like)
        try:
            _put(trial, batch)
        except InputError:
            found = []
            for place, id in enumerate(batch.ids):
                try:
                    _put(trial, batch.take([place]))
                except InputError as error:
                    found.append(Fault(id, _PLACE.sub(lambda part: _PARTS[part[1]], str(error))))
            return found
    return []


def _put(trial: Collection, batch: Batch) -> None:
    trial.upsert(batch.ids, batch.vectors, batch.metadata, batch.documents)
