"""Rows and sealed parts as SQLite takes and gives them."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from ...data.arrays import Bytes, Rows
from ...errors import StoreUnreachableError

__all__ = ["as_json", "ascending", "matrix", "numbers"]


def numbers(text: str | None) -> Rows:
    """Return the numbers of a `group_concat`. For many rows this is three times as fast as fetching each.

    Raises StoreUnreachableError if they are no integers.
    """
    try:
        return np.fromstring(text or "", np.int64, sep=",")
    except (ValueError, DeprecationWarning):
        raise StoreUnreachableError("the store is damaged: a number must be an integer") from None


def ascending(text: str | None) -> Rows:
    """Return the numbers of a `group_concat`, sorted."""
    return np.sort(numbers(text), kind="stable")


def as_json(rows: npt.ArrayLike) -> str:
    """Return rows as a parameter for `json_each`."""
    return json.dumps(np.asarray(rows, np.int64).tolist())


def matrix(blobs: list[bytes], width: int) -> Bytes:
    """Stack blobs of one width. A blob of another length is damaged: it becomes zeros, which are never authentic."""
    if any(len(blob) != width for blob in blobs):
        blobs = [blob if len(blob) == width else bytes(width) for blob in blobs]
    return np.frombuffer(bytearray().join(blobs), np.uint8).reshape(len(blobs), width)
