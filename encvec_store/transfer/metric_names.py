"""The metric that a file, an index or a table names, in the words of other tools.

A name that is not known never becomes a default: the reader holds the error, and raises it when somebody asks for the
metric. Who gives a metric does not ask.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import MetricError

__all__ = ["Named", "of_faiss", "of_name", "of_numbers", "told", "unclear"]

Named = str | None | MetricError
"""cosine, l2 or ip; None where nothing is named; the error where what is named is not understood."""

_NAMES = {
    "cosine": ("cosine", "cos", "angular", "cosinesimilarity", "cosinedistance"),
    "l2": ("l2", "euclidean", "euclid", "sqeuclidean", "squaredeuclidean", "squaredl2", "l2squared", "l2sq"),
    "ip": ("ip", "dot", "dotproduct", "innerproduct", "inner", "maxinnerproduct", "mips"),
}
"""What these names stand for ranks alike: squared and plain Euclidean distances have one order."""
_KNOWN = {name: metric for metric, names in _NAMES.items() for name in names}
_BYTES = (np.dtype(np.uint8), np.dtype(np.int8))


def told(named: Named) -> str | None:
    """Return a metric, or None. Raises MetricError where what was named is not understood."""
    if isinstance(named, MetricError):
        raise named
    return named


def unclear(place: str, what: str) -> MetricError:
    """Return the error for a metric that is not understood."""
    return MetricError(f"{place} {what}; choose how the collection ranks with --metric cosine, l2 or ip")


def of_name(value: Any, place: str) -> Named:
    """Return the metric of a name in any case: text, bytes, or an array of one of these. None names none."""
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    name = value.rstrip(b"\0").decode("utf-8", "replace") if isinstance(value, bytes) else value
    if isinstance(name, str):
        found = _KNOWN.get("".join(char for char in name.casefold() if char.isalnum()))
        if found is not None:
            return found
    return unclear(place, f"names the metric {str(name)[:60]!r}, which is not supported")


def of_faiss(number: int, place: str) -> Named:
    """Return the metric of a FAISS `MetricType`."""
    import faiss

    known = {faiss.METRIC_L2: "l2", faiss.METRIC_INNER_PRODUCT: "ip"}
    if number in known:
        return known[number]
    names = [name for name in vars(faiss) if name.startswith("METRIC_") and vars(faiss)[name] == number]
    return unclear(place, f"ranks by {names[0] if names else f'metric type {number}'}, which is not supported")


def of_numbers(kind: Any, place: str) -> Named:
    """Return None, or the error where numbers of one byte may be packed bits, which rank by the bits that differ."""
    if kind in _BYTES:
        return unclear(place, f"holds {kind} and names no metric: if its numbers are packed bits, unpack them first")
    return None
