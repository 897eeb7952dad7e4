"""Build a peer's index and answer queries, by JSON lines. Runs in the peer's environment.

Usage: python serve.py PEER VECTORS.npy QUERIES.npy FOLDER

The first output line has build_s, bytes and index. Each input line {"query": row, "effort": number, "k": number} then
gives one output line {"seconds": of this query alone, "ids": nearest first}. It uses one thread if the peer allows it.

ironcore-alloy and hadamask only encrypt. Their vectors go into the FAISS index that the store would choose: HNSW with
M = 32 and efConstruction = 40, inner product, float32. Encrypting each query is timed too. cyborgdb-core is a store: a
trained IVF index on disk, with its caches on; the effort is its n_probes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BETA = 2.0
_BATCH = 1_000
Search = Callable[[Any, int, int], Any]
Built = tuple[Search, int, str]


def graph(dim: int) -> Any:
    """Return an empty FAISS graph."""
    import faiss

    faiss.omp_set_num_threads(1)
    index: Any = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 40
    return index


def searching(index: Any, encrypt: Callable[[Any], Any]) -> Built:
    """Search a graph with encrypted queries."""
    import faiss

    def search(query: Any, effort: int, k: int) -> Any:
        index.hnsw.efSearch = effort
        return index.search(encrypt(query), k)[1][0].tolist()

    return search, len(faiss.serialize_index(index)), "hnsw"


def ironcore(vectors: Any, folder: str) -> Built:
    """Shuffle and noise ball, by its Python API."""
    import ironcore_alloy as alloy  # type: ignore[import-not-found,unused-ignore]

    secret = alloy.StandaloneSecret(1, alloy.Secret(os.urandom(32)))
    keys = {"": alloy.VectorSecret(BETA, alloy.RotatableSecret(secret, None))}
    client = alloy.Standalone(alloy.StandaloneConfiguration(alloy.StandardSecrets(None, []), {}, keys)).vector()
    metadata = alloy.AlloyMetadata.new_simple("tenant")

    def plain(vector: Any) -> Any:
        return alloy.PlaintextVector(plaintext_vector=vector.tolist(), secret_path="", derivation_path="")

    index = graph(vectors.shape[1])
    loop = asyncio.new_event_loop()
    for start in range(0, len(vectors), _BATCH):
        some = vectors[start : start + _BATCH]
        made = loop.run_until_complete(
            client.encrypt_batch({str(i): plain(vector) for i, vector in enumerate(some)}, metadata)
        )
        index.add(np.array([made.successes[str(i)].encrypted_vector for i in range(len(some))], np.float32))

    def encrypt(query: Any) -> Any:
        found = loop.run_until_complete(client.generate_query_vectors({"q": plain(query)}, metadata))
        return np.array([found["q"][0].encrypted_vector], np.float32)

    return searching(index, encrypt)


def hadamask(vectors: Any, folder: str) -> Built:
    """Keep angles, hide the axes: a keyed orthogonal map, without noise."""
    import hadamask as peer  # type: ignore[import-not-found,unused-ignore]

    protector = peer.Protector(peer.MasterKey.generate())
    index = graph(protector.stored_dim(vectors.shape[1]))
    for start in range(0, len(vectors), _BATCH):
        index.add(np.ascontiguousarray(protector.encode(vectors[start : start + _BATCH]), np.float32))
    return searching(index, lambda query: np.ascontiguousarray(protector.encode(query[None]), np.float32))


def cyborgdb(vectors: Any, folder: str) -> Built:
    """Encrypt at rest; the process holds the key and decrypts what it compares."""
    import cyborgdb_core as peer  # type: ignore[import-not-found,unused-ignore]

    place = Path(folder) / "cyborg"
    place.mkdir()
    caches = dict.fromkeys(("cache_vectors", "cache_metadata", "cache_ids", "cache_metadata_index"), True)
    client = peer.Client(storage_config=peer.StorageConfig.disk(str(place), **caches), cpu_threads=1)
    key = os.urandom(32)
    index = client.create_index("bench", key, dimension=vectors.shape[1], metric="cosine")
    for start in range(0, len(vectors), _BATCH):
        some = vectors[start : start + _BATCH]
        index.upsert([str(start + i) for i in range(len(some))], some, index_key=key)
    index.train(index_key=key)
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())

    def search(query: Any, effort: int, k: int) -> Any:
        found = index.query(query_vectors=query, top_k=k, n_probes=effort, index_key=key)
        return [int(hit["id"]) for hit in found]

    return search, size, "ivf"


BUILD = {"ironcore-alloy": ironcore, "hadamask": hadamask, "cyborgdb-core": cyborgdb}


def main() -> None:
    """Build, then answer until the input ends."""
    name, vectors, queries, folder = sys.argv[1:5]
    answers = os.fdopen(os.dup(1), "w")  # what a library prints must not mix with our lines
    os.dup2(2, 1)
    stored, asked = np.load(vectors), np.load(queries)
    start = time.perf_counter()
    search, size, kind = BUILD[name](stored, folder)
    print(json.dumps({"build_s": time.perf_counter() - start, "bytes": size, "index": kind}), file=answers, flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        query = asked[told["query"]]
        busy, start = time.process_time(), time.perf_counter()
        ids = search(query, told["effort"], told["k"])
        took, cpu = time.perf_counter() - start, time.process_time() - busy
        print(json.dumps({"seconds": took, "cpu": cpu, "ids": ids}), file=answers, flush=True)


if __name__ == "__main__":
    main()
