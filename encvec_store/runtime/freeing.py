"""Give freed memory back to the operating system, so that what was in it cannot be found in this process."""

from __future__ import annotations

import ctypes
import gc

__all__ = ["give_back"]


def give_back() -> None:
    """Free what only cycles hold, and give whole free pages back, where the C library can (glibc).

    Small objects of Python share pages with others: what was in them stays until something else is put there.
    """
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)
