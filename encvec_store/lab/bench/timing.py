"""Times searches in turns between variants: one at a time, from many threads, in batches.

A neighbour on the machine, a slower clock or a colder cache then meets every variant alike. The order changes
from turn to turn, so none always runs in the wake of the same other.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...data import Matrix

__all__ = ["Timed", "interleave", "interval", "throughput"]

Progress = Callable[[int], None]
WARM_UP = 50
_Z = 1.959963984540054


@dataclass
class Timed:
    """One variant's latencies and answers."""

    seconds: list[float] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    """Of the first pass, one a query."""
    cpu: float = 0.0
    """Processor seconds of this process, all threads."""

    def row(self) -> dict[str, float]:
        """Quantiles in milliseconds, the median's interval, queries per second, processor time a query."""
        p50, p95, p99 = np.quantile(self.seconds, [0.5, 0.95, 0.99])
        low, high = interval(self.seconds)
        return {
            "p50_ms": 1e3 * float(p50),
            "p95_ms": 1e3 * float(p95),
            "p99_ms": 1e3 * float(p99),
            "p50_low_ms": 1e3 * low,
            "p50_high_ms": 1e3 * high,
            "qps": len(self.seconds) / sum(self.seconds),
            "cpu_ms": 1e3 * self.cpu / len(self.seconds),
        }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return a 95% interval of the median, by order statistics: it assumes no distribution.

    The normal approximation of the binomial ranks (Conover, Practical Nonparametric Statistics, 3.2); with fewer than
    six values it is their whole range.
    """
    ordered, n = np.sort(np.asarray(values)), len(values)
    half = _Z * np.sqrt(n) / 2
    low = max(0, int(np.floor(n / 2 - half)) - 1)
    high = min(n - 1, int(np.ceil(n / 2 + half)))
    return float(ordered[low]), float(ordered[high])


def interleave(
    variants: Mapping[str, Callable[[Matrix], Any]],
    queries: Matrix,
    *,
    passes: int = 1,
    progress: Progress | None = None,
    prepare: Mapping[str, Callable[[], None]] | None = None,
) -> dict[str, Timed]:
    """Ask every variant every query, one at a time; after a warm-up of up to 50 untimed queries each.

    Args:
        variants: name -> search of one (d,) query; an answer with attributes `took` and `cpu` has timed itself.
        queries: (q, d).
        passes: times that all queries are asked.
        progress: called with the number of queries done since the last call.
        prepare: name -> what to call before each of its searches, untimed: variants may share an index.
    """
    ready = prepare or {}
    for query in queries[:WARM_UP]:
        for name, search in variants.items():
            if name in ready:
                ready[name]()
            search(query)
    timed = {name: Timed() for name in variants}
    names = list(variants)
    gc.collect()
    for turn in range(passes):
        for i, query in enumerate(queries):
            shift = (turn + i) % len(names)
            for name in names[shift:] + names[:shift]:
                search, into = variants[name], timed[name]
                if name in ready:
                    ready[name]()
                busy, start = time.process_time(), time.perf_counter()
                answer = search(query)
                took = time.perf_counter() - start
                # of a search in another process only that process's own clocks count
                into.cpu += getattr(answer, "cpu", time.process_time() - busy)
                into.seconds.append(getattr(answer, "took", took))
                if not turn:
                    into.answers.append(answer)
            if progress is not None:
                progress(1)
    return timed


def throughput(
    variants: Mapping[str, Callable[[Matrix], Any]],
    queries: Matrix,
    *,
    threads: int = 0,
    rounds: int = 3,
    prepare: Mapping[str, Callable[[], None]] | None = None,
    progress: Progress | None = None,
    initializer: Callable[[], None] | None = None,
) -> dict[str, list[float]]:
    """Return queries per second of every variant, once a round, by turns; a first round is not counted.

    Args:
        variants: name -> search of one (d,) query, safe from many threads; with `threads` 0, of (q, d) at once.
        queries: (q, d).
        threads: so many clients, each with one query at a time; 0: one call with all queries.
        rounds: repeats.
        prepare: as in `interleave`.
        progress: called with the number of queries done since the last call.
        initializer: called once in every thread.
    """
    ready, names = prepare or {}, list(variants)
    rates: dict[str, list[float]] = {name: [] for name in names}
    with ThreadPoolExecutor(max(1, threads), initializer=initializer) as pool:
        for turn in range(rounds + 1):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if name in ready:
                    ready[name]()
                start = time.perf_counter()
                if threads:
                    for _ in pool.map(variants[name], queries):
                        pass
                else:
                    variants[name](queries)
                if turn:
                    rates[name].append(len(queries) / (time.perf_counter() - start))
                if progress is not None:
                    progress(len(queries))
    return rates
