"""One data set in one store, side by side: plaintext, and every scheme.

All sides are built from the same vectors with the same kind of index and parameters, and asked the same queries by
turns, one at a time, on one thread; then from many threads, and in one batch. (FAISS is set to one thread here. What
NumPy's linear algebra uses is decided when Python starts: set OPENBLAS_NUM_THREADS=1, OMP_NUM_THREADS=1.)
"""

from __future__ import annotations

import os
import secrets
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from ...data import metric
from ...indexes.faiss import FaissOptions, parse_url, uses_gpu
from ...keys import Keyset
from ...sealing import DEFAULT_SCHEME, RANKED_SCHEME
from .machine import load
from .memory import QUERIES, serve
from .sides import PlainFaiss, PlainPostgres, Side, Stored, Variant, effort_option
from .source import Data
from .timing import Timed, interleave, interval, throughput
from .truth import Truth, ndcg

__all__ = ["BenchJob", "Measured", "Row", "Stages", "measure", "one_faiss_thread", "run", "throwaway_keys"]

Row = dict[str, Any]
Stages = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""(label, total steps) -> a context that gives a function to call with the steps done since its last call."""
RECALLS = (1, 10, 100)


@dataclass(frozen=True)
class BenchJob:
    """What to measure."""

    data: Data
    store: str | None = None
    """URL of a store; collections are made in it and dropped afterwards. None or `faiss:`: in a temporary folder.
    `postgresql:`: a server that is started for it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the store: index, storage, m, ..."""
    schemes: Sequence[Mapping[str, Any]] = ({"name": DEFAULT_SCHEME}, {"name": RANKED_SCHEME})
    precision: str | None = None
    """Precision of the collections: single (default) or half."""
    efforts: Sequence[int] = ()
    """Values of efSearch or probes, for both sides; by default the store's own choice."""
    oversamples: Sequence[int] = ()
    """Candidates re-ranked per hit; by default as many as the collection itself chooses."""
    k: int = 10
    passes: int = 1
    """How often each query is asked, one at a time."""
    rounds: int = 3
    """Repeats of all queries from many threads, and in one batch; 0 leaves both out."""
    threads: int = 0
    """Number of these threads; 0: one per processor, at least two."""
    memory: bool = True
    """Measure memory in separate processes."""
    others: Mapping[str, Callable[[ExitStack], Side]] = field(default_factory=dict)
    """Further sides by name, such as other projects."""


@dataclass
class Measured:
    """A row with its times and answers, for files in the layout of ann-benchmarks."""

    row: Row
    seconds: npt.NDArray[np.float64]
    """(passes * q,)"""
    neighbours: list[npt.NDArray[np.int64]]
    distances: list[npt.NDArray[np.float64]]


@contextmanager
def _silent(text: str, steps: int) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


@contextmanager
def one_faiss_thread() -> Iterator[None]:
    """Keep FAISS on one thread."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


@contextmanager
def throwaway_keys() -> Iterator[Keyset]:
    """Make keys that child processes can open too, and delete them at the end."""
    name = f"ENCVEC_BENCH_{secrets.token_hex(8).upper()}"
    try:
        yield Keyset.create(f"env:{name}")
    finally:
        os.environ.pop(name, None)


def run(job: BenchJob, stages: Stages = _silent) -> list[Row]:
    """Measure: a row for plaintext at each effort; for each scheme one without re-rank, one for each oversampling."""
    return [measured.row for measured in measure(job, stages)]


def measure(job: BenchJob, stages: Stages = _silent) -> list[Measured]:
    """Measure as `run` does, and keep times and answers."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="encvec-bench-")))
        keys = stack.enter_context(throwaway_keys())
        stack.enter_context(one_faiss_thread())
        return _Run(job, stages, folder, keys, stack).measured()


class _Run:
    def __init__(self, job: BenchJob, stages: Stages, folder: Path, keys: Keyset, stack: ExitStack) -> None:
        self.job, self.stages, self.folder, self.keys, self.stack = job, stages, folder, keys, stack
        self.url, self.versions = job.store or "faiss:", {}
        self.own_folders = self.url == "faiss:"
        if self.url == "postgresql:":
            from .postgres import database

            found = stack.enter_context(database())
            self.url, self.versions = found.url, found.versions
        self.options = {} if self.url == "memory:" else dict(job.options)

    def measured(self) -> list[Measured]:
        job, data = self.job, self.job.data
        n, k = len(data.vectors), self.job.k
        with self.stages("exact neighbours", n) as done:
            truth = Truth(metric(data.metric), data.vectors, data.queries, max(k, 10), done)
        sides = list(self._sides())
        variants = {
            str(i): v for i, v in enumerate(v for s in sides for v in s.variants(k, job.efforts, job.oversamples))
        }
        ready = {name: variant.prepare for name, variant in variants.items() if variant.prepare}
        asked = len(data.queries)
        with self.stages("queries", asked * job.passes) as done:
            searches = {name: variant.search for name, variant in variants.items()}
            timed = interleave(searches, data.queries, passes=job.passes, progress=done, prepare=ready)
        threads = job.threads or max(2, os.cpu_count() or 1)
        many: dict[str, list[float]] = {}
        batch: dict[str, list[float]] = {}
        if job.rounds:
            repeats: dict[str, Any] = {"rounds": job.rounds, "prepare": ready}
            steps = len(variants) * (job.rounds + 1) * asked
            with self.stages(f"queries, {threads} threads", steps) as done:
                many = throughput(searches, data.queries, threads=threads, progress=done, initializer=_alone, **repeats)
            with self.stages("queries, one batch", steps) as done:
                at_once = {name: variant.search_all for name, variant in variants.items()}
                batch = throughput(at_once, data.queries, progress=done, **repeats)
        out = []
        for name, variant in variants.items():
            rates = {"qps_threads": many.get(name), "qps_batch": batch.get(name)}
            out.append(self._one(truth, variant, timed[name], rates, threads))
        if job.memory:
            self._memory(list(variants.values()), [one.row for one in out])
        return out

    def _sides(self) -> Iterator[Side]:
        data, n = self.job.data, len(self.job.data.vectors)
        with self.stages("plaintext index", n) as done:
            if self.url.startswith("postgres"):
                yield PlainPostgres(data, self.url, self.options, done, self.stack)
            else:
                faiss_store = self.url.startswith("faiss:")
                own = "faiss:." if self.own_folders else self.url
                options = parse_url(own, self.options)[1] if faiss_store else FaissOptions(index="flat")
                yield PlainFaiss(data, options, self.folder, done)
        for number, scheme in enumerate(self.job.schemes):
            url = f"faiss:{self.folder / f'store-{number}'}" if self.own_folders else self.url
            with self.stages(f"{scheme['name']}: records and index", n) as done:
                made = (data, url, self.options, scheme, self.keys, done, self.stack, self.job.precision)
                yield Stored(*made, drop=not self.own_folders)
        for name, make in self.job.others.items():
            with self.stages(name, 1):
                yield make(self.stack)

    def _one(
        self, truth: Truth, variant: Variant, timed: Timed, rates: Mapping[str, list[float] | None], threads: int
    ) -> Measured:
        job, side, n = self.job, variant.side, len(self.job.data.vectors)
        places = variant.places(timed.answers)
        found = truth.found(places)
        row: Row = {
            "dataset": job.data.name,
            "store": side.store,
            "index": side.kind,
            "scheme": side.scheme["name"],
            "peer": side.peer,
            "reranked": variant.reranked,
            "n": n,
            "d": job.data.vectors.dim,
            "metric": job.data.metric,
            "k": job.k,
        }
        row |= {f"recall@{at}": found.recall(at) if at <= job.k or n <= job.k else None for at in RECALLS}
        row["distance_ratio"] = found.ratio(job.k)
        row["ndcg@10"] = ndcg(job.data.judged, places, 10) if job.data.judged and job.k >= 10 else None
        row |= timed.row()
        for name, values in rates.items():
            row[name] = statistics.median(values) if values else None
            row[f"{name}_low"], row[f"{name}_high"] = interval(values) if values else (None, None)
        effort = effort_option("faiss:" if isinstance(side, PlainFaiss) else side.store, side.kind)
        row |= {
            "threads": threads if rates["qps_threads"] else None,
            "build_s": side.build_s,
            "build_cpu_s": side.build_cpu_s,
            "ingest_per_s": n / side.write_s,
            "index_bytes": side.index_bytes,
            "bytes": side.bytes,
            "peak_rss_mb": None,
            "library_rss_mb": None,
            "private_mb": None,
            "device": "cuda" if uses_gpu(str(self.options.get("device", "cpu"))) else "cpu",
            "queries": len(job.data.queries),
            "passes": job.passes,
            "effort": variant.effort,
            "ef_search": variant.effort if effort == "ef_search" else None,
            "probes": variant.effort if effort in ("nprobe", "probes") else None,
            "oversample": variant.oversample,
            "candidates": None if variant.oversample is None else min(n, job.k * variant.oversample),
            "storage": side.storage,
            "precision": (job.precision or "single") if isinstance(side, Stored) else None,
            "beta": side.scheme.get("beta"),
            "scheme_parameters": {key: value for key, value in side.scheme.items() if key != "name"},
            "load": load(),
            **self.versions,
        }
        return Measured(row, np.array(timed.seconds), places, found.distances())

    def _memory(self, variants: Sequence[Variant], rows: Sequence[Row]) -> None:
        """Measure each side once without and once with re-rank: efforts don't change what is held."""
        queries = self.folder / "queries.npy"
        np.save(queries, self.job.data.queries[:QUERIES])
        reports: dict[tuple[int, bool], Mapping[str, float | None]] = {}
        with self.stages("memory", len(rows)) as done:
            for variant, row in zip(variants, rows, strict=True):
                which = id(variant.side), variant.reranked
                if variant.child is not None:
                    if which not in reports:
                        reports[which] = serve({"queries": str(queries), **variant.child})
                    row["peak_rss_mb"] = reports[which]["peak_mb"]
                    row["library_rss_mb"] = reports[which]["library_mb"]
                    private, before = (reports[which][f"{name}private_mb"] for name in ("", "library_"))
                    row["private_mb"] = None if private is None or before is None else private - before
                done(1)


def _alone() -> None:
    faiss.omp_set_num_threads(1)  # a setting of each thread
