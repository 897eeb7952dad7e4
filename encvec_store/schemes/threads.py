"""Hold BLAS to one thread, for small work on which several threads mostly wait for each other."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]


def one_thread() -> AbstractContextManager[object]:
    """Return a context manager that holds numpy's BLAS to one thread, in the whole process."""
    limited: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limited


@functools.cache
def _libraries() -> ThreadpoolController:
    """Find the loaded BLAS libraries, once: it takes milliseconds, and numpy's library is loaded from the start."""
    return ThreadpoolController()
