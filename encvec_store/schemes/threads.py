"""One thread for BLAS, where several would wait for each other more than they work."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]


def one_thread() -> AbstractContextManager[object]:
    """Return what holds numpy's BLAS to one thread meanwhile, in the whole process."""
    limited: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limited


@functools.cache
def _libraries() -> ThreadpoolController:
    """Look once for the libraries that are loaded: that takes milliseconds, and numpy's is there from the start."""
    return ThreadpoolController()
