"""Finds rows among others by bisection. `numpy.isin` sorts both first, which takes most of an opening."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data.arrays import Rows

__all__ = ["is_among", "places_of"]


def places_of(rows: Rows, wanted: Rows) -> npt.NDArray[np.intp]:
    """Return the places in ascending `rows` of those `wanted` that are there."""
    if not len(rows) or not len(wanted):
        return np.empty(0, np.intp)
    places = np.searchsorted(rows, wanted)
    places[places == len(rows)] = 0
    found: npt.NDArray[np.intp] = places[rows[places] == wanted]
    return found


def is_among(rows: Rows, others: Rows) -> npt.NDArray[np.bool_]:
    """Say for each of (n,) rows whether it is among others, which ascend."""
    if not len(others):
        return np.zeros(len(rows), np.bool_)
    places = np.searchsorted(others, rows)
    places[places == len(others)] = 0
    found: npt.NDArray[np.bool_] = others[places] == rows
    return found
