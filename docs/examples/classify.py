"""Classification over an encrypted collection: an unknown question gets the intent that its neighbours vote for.

    python -m docs.examples.classify     in a clone of the repository, which has the embeddings

Only `search` is needed. Its scores are exact, so the votes are those of the same vectors in plaintext.
"""

from __future__ import annotations

from collections import defaultdict

import numpy.typing as npt

import encvec_store as ev
from benchmarks.datasets import load


def classify(collection: ev.Collection, vectors: npt.ArrayLike, label: str, k: int = 10) -> list[str]:
    """Return a label for each vector of (q, d): the one with the largest sum of scores among its k neighbours."""
    answers = []
    for hits in collection.search(vectors, k=k):
        votes: defaultdict[str, float] = defaultdict(float)
        for hit in hits:
            votes[hit.metadata[label]] += hit.score
        answers.append(max(votes, key=votes.__getitem__))
    return answers


def main(records: int | None = None, asked: int = 500) -> float:
    """Store labelled questions of bank customers, classify others, and return the share that is right."""
    bank = load("banking77", limit=records)
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        questions = store.collection("questions", dim=bank.dim, fields={"intent": "sealed"})
        labels = [{"intent": bank.label_names[label]} for label in bank.labels]
        questions.upsert(list(range(len(labels))), bank.vectors, metadata=labels)
        given = classify(questions, bank.queries[:asked], "intent")
    right = [bank.label_names[label] == answer for label, answer in zip(bank.query_labels, given, strict=False)]
    print(f"{len(right)} questions, {len(bank.label_names)} intents: {sum(right) / len(right):.1%} are right")
    return sum(right) / len(right)


if __name__ == "__main__":
    main()
