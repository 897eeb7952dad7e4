"""One data set, three ways: plaintext FAISS, the encrypted index alone, the encrypted search; imports the rooms beside.

All three are built from the same vectors with the same kind of index and parameters, and asked the same queries by
turns, one at a time, on one thread. (FAISS is set to one thread here. What NumPy's linear algebra uses is decided
when Python starts: set OPENBLAS_NUM_THREADS=1, OMP_NUM_THREADS=1.)
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from ..backends.faiss.options import Options, parse_url
from ..crypto.keyset import Keyset
from ..metrics import as_vectors, metric
from ..store import connect
from .encrypted import Encrypted, fill
from .memory import QUERIES, serve
from .plain import Plain
from .timing import Timed, Truth, interleave

__all__ = ["Job", "Row", "Stages", "one_faiss_thread", "run", "throwaway_keys"]

Matrix = npt.NDArray[np.float32]
Row = dict[str, Any]
Stages = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""(what is done now, steps) -> a context whose value is called with the steps done since the last call."""


@dataclass(frozen=True)
class Job:
    """What to measure."""

    dataset: str
    """A name for the table."""
    vectors: Matrix
    queries: Matrix
    metric: str = "cosine"
    k: int = 10
    store: str | None = None
    """URL of a store; a collection is made in it and dropped afterwards. None: `faiss:` in a temporary folder."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of a `faiss:` store: index, storage, ef_search, ..."""
    scheme: Mapping[str, Any] = field(default_factory=lambda: {"name": "sketch"})
    oversample: int = 10
    passes: int = 1
    """Times that every query is asked."""
    memory: bool = True
    """Measure memory, in processes of their own."""


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
    """Make keys that child processes can open too, and forget them in the end."""
    name = f"ENCVEC_BENCH_{secrets.token_hex(8).upper()}"
    try:
        yield Keyset.create(f"env:{name}")
    finally:
        os.environ.pop(name, None)


def run(job: Job, stages: Stages = _silent) -> list[Row]:
    """Measure the three variants (two for a scheme without index vectors): a row each."""
    with tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder, throwaway_keys() as keys, one_faiss_thread():
        return _Run(job, stages, Path(folder), keys).rows()


class _Run:
    def __init__(self, job: Job, stages: Stages, folder: Path, keys: Keyset) -> None:
        self.job, self.stages, self.folder, self.keys = job, stages, folder, keys
        self.metric = metric(job.metric)
        self.vectors = as_vectors(job.vectors, np.shape(job.vectors)[1])
        self.queries = as_vectors(job.queries, self.vectors.shape[1], name="queries")
        self.url = job.store or f"faiss:{folder / 'store'}"
        self.given = dict(job.options) if self.url.startswith("faiss:") else {}
        exact = Options(index="flat")
        self.options = parse_url(self.url, self.given)[1] if self.url.startswith("faiss:") else exact
        self.name = f"encvec-bench-{secrets.token_hex(4)}"

    def rows(self) -> list[Row]:
        job, n = self.job, len(self.vectors)
        with self.stages("exact neighbours", 1) as done:
            truth = Truth(self.metric, self.vectors, self.queries, max(job.k, 10))
            done(1)
        with self.stages("plaintext index", n) as done:
            # float32 whatever the store keeps: the baseline loses nothing
            plain = Plain(self.metric, self.vectors, Options(**{**vars(self.options), "storage": "float32"}))
            done(n)
        with connect(self.url, keyset=self.keys, **self.given) as store:
            collection = store.collection(
                self.name,
                self.vectors.shape[1],
                self.metric.name,
                job.scheme,
                oversample=job.oversample,
            )
            try:
                with self.stages("encrypted records", n) as done:
                    written = fill(collection, self.vectors, done)
                encrypted = Encrypted(store, collection)
                with self.stages("encrypted index", n) as done:
                    indexed = encrypted.build()
                    done(n)
                timed = self._timed(plain, encrypted)
                rows = self._rows(truth, plain, encrypted, timed, written, indexed)
                if job.memory:
                    self._memory(rows, plain)
            finally:
                store.drop(self.name)
        return rows

    def _timed(self, plain: Plain, encrypted: Encrypted) -> dict[str, Timed]:
        k, job = self.job.k, self.job
        variants: dict[str, Callable[[Matrix], Any]] = {"plain": lambda query: plain.search(query, k)}
        if encrypted.has_stage_one:
            variants["stage one"] = lambda query: encrypted.candidates(query, k)
        variants["reranked"] = lambda query: encrypted.search(query, k)
        with self.stages("queries", len(self.queries) * job.passes) as done:
            return interleave(variants, self.queries, passes=job.passes, progress=done)

    def _rows(
        self, truth: Truth, plain: Plain, encrypted: Encrypted, timed: dict[str, Timed], written: float, indexed: float
    ) -> list[Row]:
        job, n = self.job, len(self.vectors)
        scheme = encrypted.stats()["scheme"]
        held = encrypted.stats()["store"]
        rows = []
        for name, measured in timed.items():
            ours = name != "plain"
            places = encrypted.places(measured.answers) if ours else measured.answers
            kind = str(held["index"]) if ours else plain.kind
            build = written + indexed if ours else plain.build_s
            rows.append(
                {
                    "dataset": job.dataset,
                    "store": self.url.partition(":")[0] + ":" if ours else "plain FAISS",
                    "index": kind,
                    "scheme": scheme["name"] if ours else "plaintext",
                    "reranked": name == "reranked",
                    "n": n,
                    "d": self.vectors.shape[1],
                    "recall@1": truth.recall(places, 1),
                    "recall@10": truth.recall(places, 10) if job.k >= min(10, n) else None,
                    **measured.row(),
                    "build_s": build,
                    "ingest_per_s": n / (written if ours else build),
                    "bytes": sum(held["bytes"].values()) if ours else plain.size(),
                    "peak_rss_mb": None,
                    "k": job.k,
                    "queries": len(self.queries),
                    "ef_search": self.options.ef_search if kind == "hnsw" else None,
                    "storage": held.get("storage", "float32") if ours else plain.storage,
                    "beta": scheme.get("beta") if ours else None,
                    "oversample": encrypted.stats()["oversample"] if name == "reranked" else None,
                }
            )
        return rows

    def _memory(self, rows: list[Row], plain: Plain) -> None:
        queries = self.folder / "queries.npy"
        np.save(queries, self.queries[:QUERIES])
        index = self.folder / "plain.faiss"
        plain.save(index)
        common = {"queries": str(queries), "k": self.job.k}
        with self.stages("memory", len(rows)) as done:
            for row in rows:
                if row["scheme"] == "plaintext":
                    job = {"kind": "plain", "index": str(index), "ef_search": row["ef_search"]}
                elif row["store"] == "faiss:":
                    job = {
                        "kind": "store",
                        "url": self.url,
                        "options": self.given,
                        "keys": self.keys.uri,
                        "name": self.name,
                        "oversample": self.job.oversample,
                        "reranked": row["reranked"],
                    }
                else:
                    done(1)
                    continue  # nothing that another process could open
                report = serve({**common, **job})
                row["peak_rss_mb"] = report["peak_mb"]
                row["library_rss_mb"] = report["library_mb"]
                done(1)
