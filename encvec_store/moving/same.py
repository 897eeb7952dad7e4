"""Whether a stored record is, bit for bit and type for type, what the source has; imports typed, records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..records import Record
from .typed import to_json

__all__ = ["difference"]


def difference(
    record: Record, vector: npt.NDArray[Any], metadata: Mapping[str, Any] | None, document: str | None
) -> str:
    """Return which part differs: vector, metadata or document; "" where none does.

    Vectors are compared as float32, by their bits: 0.0 is not -0.0. In metadata 1, 1.0 and True are three values;
    the order of keys is none of them.
    """
    if record.vector is None or record.vector.tobytes() != np.ascontiguousarray(vector, np.float32).tobytes():
        return "vector"
    if record.document != document:
        return "document"
    return "" if _text(record.metadata) == _text(metadata or {}) else "metadata"


def _text(metadata: Mapping[str, Any]) -> str:
    return json.dumps(to_json(metadata), sort_keys=True) if metadata else ""
