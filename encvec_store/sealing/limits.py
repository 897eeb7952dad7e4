"""Counts how many records were encrypted under each key version of a collection.

The count stands in the settings, and is coarse: of n encryptions, each adds `STEP` with a probability of 1 / `STEP`.
(R. Morris, "Counting large numbers of events in small registers", CACM 1978, has the idea.) So a count needs no write
of its own, loses nothing in a crash, and is right for processes that write a single record each. After 2^32
encryptions its standard deviation is 2^26, which is 1.6%.
"""

from __future__ import annotations

import secrets

from ..crypto.limits import MOST, check_seals
from .config import CollectionConfig

__all__ = ["STEP", "counted"]

STEP = 1 << 20


def counted(config: CollectionConfig, version: int, n: int, what: str) -> CollectionConfig:
    """Return the settings to store with n more encryptions: mostly the same object, sometimes with a larger count.

    Args:
        config: the settings so far.
        version: the key version that encrypts.
        n: number of encryptions.
        what: the collection, for messages.

    Raises:
        KeyExhaustedError: the key version may not encrypt so many more.
    """
    before = config.encrypted.get(str(version), 0)
    steps = n // STEP + (secrets.randbelow(STEP) < n % STEP)
    if steps or before + n > MOST:  # otherwise every write past the middle would warn
        check_seals(before, max(n, steps * STEP), version, what)
    return config.changed(encrypted={**config.encrypted, str(version): before + steps * STEP}) if steps else config
