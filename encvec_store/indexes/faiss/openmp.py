"""How many OpenMP threads a call of FAISS uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss as _faiss

from ...runtime import forks

__all__ = ["omp_threads"]

faiss: Any = _faiss


@contextmanager
def omp_threads(most: int | None = None) -> Iterator[None]:
    """Call FAISS with at most `most` OpenMP threads; None means as many as it may use.

    A single query is searched faster on one thread, because waking other threads costs more than they help. A forked
    child always works on one: OpenMP's threads stayed in the parent, and it would wait for them forever. The number of
    threads is a setting of the calling thread, not of the process.
    """
    forked = forks.generation() > 0
    if most is None and not forked:
        yield
        return
    before = faiss.omp_get_max_threads()
    wanted = 1 if forked else min(most or before, before)
    if wanted == before:
        yield
        return
    faiss.omp_set_num_threads(wanted)
    try:
        yield
    finally:
        if not forked:
            faiss.omp_set_num_threads(before)
