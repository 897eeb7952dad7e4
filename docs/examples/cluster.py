"""Clusters of an encrypted collection: spherical k-means over the vectors that `scroll` opens, a batch at a time.

    python -m docs.examples.cluster      in a clone of the repository, which has the embeddings

Each round passes over the collection once, so that no more than a batch and the middles are in memory. `search` then
finds the record that is nearest to the middle of each cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt

import encvec_store as ev
from benchmarks.datasets import load

Matrix = npt.NDArray[np.float32]


def batches(collection: ev.Collection, size: int = 1_000) -> Iterator[tuple[list[ev.Record], Matrix]]:
    """Yield the records of a collection, and their vectors (n, d) at length 1."""
    rest = collection.scroll()
    while records := list(islice(rest, size)):
        vectors = np.stack([record.vector for record in records])
        yield records, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clusters(collection: ev.Collection, count: int, rounds: int = 10, seed: int = 0) -> Matrix:
    """Return the middles (count, d) of clusters, each of length 1."""
    rng = np.random.default_rng(seed)
    first = next(vectors for _, vectors in batches(collection, 4_000))
    middles = first[[rng.integers(len(first))]]
    while len(middles) < count:  # far from those before: k-means++ (Arthur and Vassilvitskii, SODA 2007)
        far = np.maximum(0, 1 - (first @ middles.T).max(axis=1)) ** 2
        middles = np.vstack([middles, first[rng.choice(len(first), p=far / far.sum())]])
    for _ in range(rounds):
        sums = np.zeros_like(middles)
        for _, vectors in batches(collection):
            np.add.at(sums, (vectors @ middles.T).argmax(axis=1), vectors)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        middles = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), middles)
    return middles


def main(records: int | None = None) -> float:
    """Cluster questions of bank customers, and return the share that is of the main intent of its cluster."""
    bank = load("banking77", limit=records)
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        questions = store.collection("questions", dim=bank.dim)
        questions.upsert(list(range(len(bank.vectors))), bank.vectors, documents=bank.texts)
        middles = clusters(questions, len(bank.label_names))
        pure = np.zeros((len(middles), len(bank.label_names)), int)
        for found, vectors in batches(questions):
            np.add.at(pure, ((vectors @ middles.T).argmax(axis=1), bank.labels[[record.id for record in found]]), 1)
        largest = pure.sum(axis=1).argsort()[::-1][:3]
        for row, hits in zip(largest, questions.search(middles[largest], k=1), strict=True):
            print(f"{pure[row].sum()} questions around: {hits[0].document}")
    share = pure.max(axis=1).sum() / pure.sum()
    print(f"{pure.sum():,} questions in {len(middles)} clusters: {share:.1%} are of the main intent of their cluster")
    return float(share)


if __name__ == "__main__":
    main()
