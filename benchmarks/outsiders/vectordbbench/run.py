"""Measure a store by VectorDBBench's own runners, on real sentences. Runs in its environment.

Usage: python -m benchmarks.outsiders.vectordbbench.run [--n 10000] [--k 10] [--seconds 10]

Its runners insert in batches, search one query after the other, and search from one and two processes at once. The
client is that of this folder, on a `faiss:` store under the default scheme. Prints JSON; `queries_per_s` is the most
of one and two processes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from vectordb_bench.backend.clients.api import MetricType  # type: ignore[import-not-found,unused-ignore]
from vectordb_bench.backend.runner.mp_runner import (  # type: ignore[import-not-found,unused-ignore]
    MultiProcessingSearchRunner,
)
from vectordb_bench.backend.runner.serial_runner import (  # type: ignore[import-not-found,unused-ignore]
    SerialInsertRunner,
    SerialSearchRunner,
)

import encvec_store as ev
from benchmarks.datasets import load
from benchmarks.outsiders.vectordbbench.client import EncvecCase, EncvecConfig, EncvecStore


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="records, at most 10,003")
    parser.add_argument("--k", type=int, default=10, help="hits")
    parser.add_argument("--seconds", type=int, default=10, help="for each number of processes")
    args = parser.parse_args()
    data = load("banking77")
    vectors, queries = data.vectors[: args.n], data.queries[:1_000]
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, : args.k].tolist()  # both have length 1
    keys = "env:ENCVEC_VDBB_KEYS"
    ev.Keyset.create(keys)
    with tempfile.TemporaryDirectory() as folder:
        config = EncvecConfig(url=f"faiss:{Path(folder) / 'store'}", keys=keys)
        case = EncvecCase(metric_type=MetricType.COSINE)
        client = EncvecStore(vectors.shape[1], config.to_dict(), case, drop_old=True)
        begun = time.perf_counter()
        count = SerialInsertRunner(client, None, normalize=False).endless_insert_data(
            vectors.tolist(), list(range(len(vectors)))
        )
        inserted = time.perf_counter() - begun
        with client.init():
            client.optimize(data_size=count)
        optimized = time.perf_counter() - begun - inserted
        (recall, ndcg, p99, _, p50, _), _ = SerialSearchRunner(client, queries.tolist(), truth, k=args.k).run()
        several = MultiProcessingSearchRunner(
            client, queries.tolist(), k=args.k, concurrencies=(1, 2), duration=args.seconds
        )
        most, *_ = several.run()
    print(
        json.dumps(
            {
                "records": count,
                "dimensions": vectors.shape[1],
                "insert_s": round(inserted, 2),
                "optimize_s": round(optimized, 2),
                "recall": float(recall),
                "ndcg": float(ndcg),
                "p50_ms": round(1e3 * float(p50), 2),
                "p99_ms": round(1e3 * float(p99), 2),
                "queries_per_s": round(float(most)),
            }
        )
    )


if __name__ == "__main__":
    main()
