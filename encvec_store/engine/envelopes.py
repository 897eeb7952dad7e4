"""Compares sealed vectors with settings, and with copies of themselves, without opening them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..crypto.envelope import is_of, revisions
from ..data.arrays import Rows
from ..sealing.config import CollectionConfig

__all__ = ["are_covered", "differ", "refusal"]


def differ(rows: Rows, envelopes: npt.NDArray[np.uint8], others: Rows, fresh: npt.NDArray[np.uint8]) -> bool:
    """Say whether a row had other bytes when it was read again. A row that vanished in between does not count."""
    _, first, second = np.intersect1d(rows, others, return_indices=True)
    return not np.array_equal(envelopes[first], fresh[second])


def refusal(config: CollectionConfig, envelopes: npt.NDArray[np.uint8]) -> str:
    """Say why (n, size) envelopes cannot have been written under these settings."""
    newest = revisions(envelopes)[1]
    if newest <= config.revision or not is_of(envelopes, config.scheme.number, config.precision):
        return "a record could not be authenticated"
    return (
        f"a record names revision {newest} of the settings, and the store has revision {config.revision}: older"
        " settings were put back, or the record was altered"
    )


def are_covered(config: CollectionConfig, envelopes: npt.NDArray[np.uint8]) -> bool:
    """Say whether (n, size) envelopes can all have been written under these settings, or earlier ones they cover."""
    return is_of(envelopes, config.scheme.number, config.precision) and config.covers(*revisions(envelopes))
