"""Small data for tests of the bench."""

import numpy as np

from encvec_store.lab.bench import Data, VectorSource

KEYS = {
    "dataset", "store", "index", "scheme", "reranked", "n", "d", "recall@1", "recall@10", "p50_ms", "p95_ms", "qps",
    "build_s", "ingest_per_s", "bytes", "peak_rss_mb",
}  # fmt: skip


def vectors(n, dim=16, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def data(n, queries, metric="cosine", judged=None, dim=16):
    return Data("random", VectorSource(vectors(n, dim)), vectors(queries, dim, seed=1), metric, judged)


def row(**more):
    """A row as `run` returns it, made up."""
    return {
        "dataset": "some", "store": "faiss:", "index": "hnsw", "storage": "sq8", "scheme": "sap", "beta": 2.0,
        "reranked": True, "n": 1000, "d": 8, "metric": "cosine", "k": 10, "effort": 100, "oversample": 10,
        "recall@1": 1.0, "recall@10": 0.995, "recall@100": None, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0,
        "qps": 900.0, "cpu_ms": 1.0, "build_s": 2.0, "build_cpu_s": 2.0, "ingest_per_s": 500.0, "index_bytes": 10_000,
        "bytes": 1_000_000, "peak_rss_mb": 150.0, "library_rss_mb": 50.0, "private_mb": 9.0, "load": 0.5, "job": "j",
        **more,
    }  # fmt: skip


def plain(**more):
    base = {"store": "plain FAISS", "scheme": "plaintext", "reranked": False, "beta": None, "oversample": None}
    return row(**{**base, "p50_ms": 0.5, "qps": 1900.0, **more})
