"""What does not belong, in an encrypted collection and in new data: a vector is strange if its neighbours are far away.

    python -m docs.examples.anomalies    in a clone of the repository, which has the embeddings

The score is the mean cosine of the k nearest records. For a record that is stored, one neighbour is the record itself.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import numpy.typing as npt

import encvec_store as ev
from benchmarks.datasets import load


def belonging(collection: ev.Collection, vectors: npt.ArrayLike, k: int = 5) -> npt.NDArray[np.float64]:
    """Return how well each vector of (q, d) belongs, -1 to 1."""
    return np.array([np.mean([hit.score for hit in hits]) for hits in collection.search(vectors, k=k)])


def loneliest(collection: ev.Collection, count: int, k: int = 5) -> list[tuple[float, ev.Record]]:
    """Return the records that belong least, with their scores, least first."""
    found: list[tuple[float, ev.Record]] = []
    rest = collection.scroll()
    while records := list(islice(rest, 1_000)):
        whole = belonging(collection, np.stack([record.vector for record in records]), k + 1)
        others = (whole * (k + 1) - 1) / k  # without the record itself, whose cosine is 1
        found = sorted([*found, *zip(others, records, strict=True)], key=lambda pair: pair[0])[:count]
    return found


def main(records: int | None = None, asked: int = 500) -> tuple[float, list[str]]:
    """Store bank questions of half of the intents; return the AUC for strange ones, and the loneliest of the stored."""
    bank = load("banking77", limit=records)
    known = len(bank.label_names) // 2
    rows = np.flatnonzero(bank.labels < known)
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        questions = store.collection("questions", dim=bank.dim)
        questions.upsert(rows.tolist(), bank.vectors[rows], documents=[bank.texts[row] for row in rows])
        new = np.random.default_rng(0).permutation(len(bank.queries))[:asked]
        scores, strange = belonging(questions, bank.queries[new]), bank.query_labels[new] >= known
        odd = [record.document or "" for _, record in loneliest(questions, 3)]
    auc = float((scores[~strange][:, None] > scores[strange]).mean())
    print(
        f"{len(new)} new questions, {strange.sum()} of intents that are not stored: told apart with an AUC of {auc:.3f}"
    )
    print("stored, and loneliest:", *odd, sep="\n  ")
    return auc, odd


if __name__ == "__main__":
    main()
