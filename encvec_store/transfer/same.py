"""Compare a stored record with the source: bit for bit and type for type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import low_level
from ..collection import Collection
from ..data.precision import Precision
from ..data.records import Record
from .batch import Batch
from .typed import to_json

__all__ = ["as_kept", "difference"]


def as_kept(collection: Collection, batch: Batch) -> Batch:
    """Return a batch with its vectors as the collection keeps them: float32, in half precision rounded."""
    precision = low_level.session(collection).config.precision
    if precision is Precision.SINGLE:
        return batch
    with np.errstate(over="ignore"):  # the write refuses numbers that are too large
        kept = precision.kept(np.asarray(batch.vectors, np.float32))
    return replace(batch, vectors=kept.astype(np.float32))


def difference(
    record: Record, vector: npt.NDArray[Any], metadata: Mapping[str, Any] | None, document: str | None
) -> str:
    """Return the part that differs: vector, metadata or document; "" if none does.

    Vectors are compared as float32, by their bits: 0.0 is not -0.0. In metadata 1, 1.0 and True are three values.
    The order of keys does not matter.
    """
    if record.vector is None or record.vector.tobytes() != np.ascontiguousarray(vector, np.float32).tobytes():
        return "vector"
    if record.document != document:
        return "document"
    return "" if _text(record.metadata) == _text(metadata or {}) else "metadata"


def _text(metadata: Mapping[str, Any]) -> str:
    return json.dumps(to_json(metadata), sort_keys=True) if metadata else ""
