"""Run the client as VectorDBBench does, on its real base classes, and print JSON. Runs in its environment.

Usage: python -m benchmarks.outsiders.vectordbbench.check FOLDER [SCHEME]
"""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path

import numpy as np
from vectordb_bench.backend.clients.api import MetricType, VectorDB  # type: ignore[import-not-found,unused-ignore]

import encvec_store as ev
from benchmarks.outsiders.vectordbbench.client import EncvecCase, EncvecConfig, EncvecStore


def main() -> None:
    """Insert in batches, index, search from a copy, and count the records found."""
    folder = Path(sys.argv[1])
    keys = "env:ENCVEC_VDBB_KEYS"
    ev.Keyset.create(keys)
    vectors = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
    config = EncvecConfig(url=f"faiss:{folder / 'store'}", keys=keys)
    scheme = {"scheme": "sap", "beta": 1.0, "ef_search": 100} if "sap" in sys.argv[2:] else {}
    case = EncvecCase(metric_type=MetricType.COSINE, **scheme)
    client = EncvecStore(16, config.to_dict(), case, "case", drop_old=True)
    with client.init():
        counts = []
        for first in (0, 100, 200):
            part = vectors[first : first + 100].tolist()
            counts.append(client.insert_embeddings(part, list(range(first, first + 100))))
        wrong = client.insert_embeddings([[0.0] * 16], [999])
    with client.init():
        client.optimize(data_size=300)
    other = pickle.loads(pickle.dumps(copy.deepcopy(client)))  # noqa: S301 - as it goes to other processes
    with other.init():
        nearest = [other.search_embedding(vector.tolist(), k=5)[0] for vector in vectors[:50]]
    again = EncvecStore(16, config.to_dict(), case, "case", drop_old=False)
    with again.init():
        kept = len(again.search_embedding(vectors[0].tolist(), k=100))
    print(
        json.dumps(
            {
                "is_vector_db": isinstance(client, VectorDB),
                "inserted": [count for count, _ in counts],
                "refused": [wrong[0], type(wrong[1]).__name__],
                "found": float(np.mean(np.array(nearest) == np.arange(50))),
                "kept": kept,
                "secret": str(folder) not in repr(config),
            }
        )
    )


if __name__ == "__main__":
    main()
