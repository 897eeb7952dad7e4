"""Run the usual tasks with face embeddings, on plaintext and through an encrypted store, side by side.

The tasks are identification (1:N), verification (1:1), clustering, classification by nearest neighbours, and anomalies
(a stranger at the door, a photograph under the wrong name). Every task takes a `Finder`: one compares plaintext vectors
by brute force, the other is a collection of the public API. The same code scores both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from encvec_store.collection import Collection
from encvec_store.lab.leakage.metrics import auc, equal_error_rate, true_accept_rate
from encvec_store.store import Store

from .grouping import mutual_information, rand_index, whispers
from .measures import threshold
from .models import Matrix, unit
from .photographs import Pair, Photographs

__all__ = ["Finder", "Plain", "Stored", "Tables", "tables"]

Rows = npt.NDArray[np.intp]
Scores = npt.NDArray[np.float64]
OFTEN = 10
"""Fewest photographs of a person for clustering and classification; fewer if nobody has as many."""
NEIGHBOURS = 40
_VOTES = 5
_NEAREST = 5
_WRONG = 0.05
_STRANGERS = 700
_BLOCK = 256


class Finder(Protocol):
    """Enrolled photographs that can be searched."""

    def search(self, queries: Matrix, k: int) -> tuple[Rows, Scores]:
        """Return rows (q, k) of the k nearest, nearest first, and cosines (q, k); -1 if there are fewer."""
        ...

    def claims(self, queries: Matrix, rows: Rows) -> Scores:
        """Return the cosine (q,) of each query to the row that it claims to be."""
        ...


class Plain:
    """Plaintext (n, d) vectors, each compared with every query: the baseline."""

    def __init__(self, vectors: Matrix, rows: Rows) -> None:
        self._vectors, self._rows = unit(vectors[rows]), rows
        self._place = {int(row): place for place, row in enumerate(rows)}

    def search(self, queries: Matrix, k: int) -> tuple[Rows, Scores]:
        """By brute force."""
        k = min(k, len(self._rows))
        found, scores = np.empty((len(queries), k), np.intp), np.empty((len(queries), k))
        for start in range(0, len(queries), _BLOCK):
            alike = unit(queries[start : start + _BLOCK]) @ self._vectors.T
            order = np.argsort(-alike, axis=1, kind="stable")[:, :k]
            found[start : start + _BLOCK] = self._rows[order]
            scores[start : start + _BLOCK] = np.take_along_axis(alike, order, axis=1)
        return found, scores

    def claims(self, queries: Matrix, rows: Rows) -> Scores:
        """Row by row."""
        places = np.array([self._place[int(row)] for row in rows], np.intp)
        result: Scores = np.einsum("ij,ij->i", unit(queries), self._vectors[places]).astype(np.float64)
        return result


class Stored:
    """An encrypted collection: ids are rows, and the blind field `photo` selects one of them."""

    def __init__(self, collection: Collection, vectors: Matrix, rows: Rows) -> None:
        self._collection = collection
        ids = [str(int(row)) for row in rows]
        collection.upsert(ids, vectors[rows], metadata=[{"photo": id} for id in ids])

    def search(self, queries: Matrix, k: int) -> tuple[Rows, Scores]:
        """By `Collection.search`: candidates from the encrypted index, re-ranked exactly."""
        found, scores = np.full((len(queries), k), -1, np.intp), np.full((len(queries), k), -1.0)
        for start in range(0, len(queries), _BLOCK):
            answers: Any = self._collection.search(queries[start : start + _BLOCK], k=k)
            for place, hits in enumerate(answers, start):
                found[place, : len(hits)] = [int(hit.id) for hit in hits]
                scores[place, : len(hits)] = [hit.score for hit in hits]
        return found, scores

    def claims(self, queries: Matrix, rows: Rows) -> Scores:
        """By a filter: only the claimed record is opened and compared."""
        out = np.empty(len(rows))
        for place, (query, row) in enumerate(zip(queries, rows.tolist(), strict=True)):
            (hit,) = self._collection.search(query, k=1, where={"photo": str(row)})
            out[place] = hit.score
        return out


@dataclass(frozen=True, eq=False)
class Tables:
    """The data of all tasks: photographs, their embeddings (n, d), and the same random choices for all finders."""

    photographs: Photographs
    vectors: Matrix
    gallery: Rows
    """One photograph of each enrolled person."""
    probes: Rows
    """All other photographs of those people."""
    strangers: Rows
    """Photographs of people who are not enrolled."""
    often: Rows
    """Photographs of people who have many, for clustering, classification and wrong names."""
    pairs: Sequence[Pair]
    limit: float
    """Cosine above which two photographs are joined, set on people who are not clustered."""
    seed: int

    def run(self, enrol: Callable[[str, Rows], Finder], done: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Run all tasks. `enrol` makes a finder of some rows under a name; `done` is called after each task."""
        gallery = enrol("gallery", self.gallery)
        out = {"identification": self._identify(gallery)}
        done()
        out["anomaly"] = self._strangers(gallery)
        done()
        everything = enrol("photographs", np.arange(len(self.photographs)))
        out["verification"] = self._verify(everything)
        done()
        found, scores = everything.search(self.vectors[self.often], NEIGHBOURS + 1)
        out["clustering"] = self._cluster(found, scores)
        out["classification"] = self._classify(found)
        out["anomaly"] |= self._misnamed(found, scores)
        done()
        return out

    def _identify(self, gallery: Finder) -> dict[str, float]:
        labels = self.photographs.labels
        asked = self.vectors[self.probes]
        found, _ = gallery.search(asked, _NEAREST)
        exact, _ = Plain(self.vectors, self.gallery).search(asked, _NEAREST)
        right = labels[found] == labels[self.probes][:, None]
        return {
            "same_lists": float((found == exact).all(axis=1).mean()),
            "rank_1": float(right[:, 0].mean()),
            "rank_5": float(right.any(axis=1).mean()),
        }

    def _strangers(self, gallery: Finder) -> dict[str, float]:
        """Measure how well the nearest enrolled face tells whether a person is enrolled."""
        known, unknown = (gallery.search(self.vectors[rows], 1)[1][:, 0] for rows in (self.probes, self.strangers))
        return {"stranger_auc": auc(known, unknown)}

    def _verify(self, everything: Finder) -> dict[str, float]:
        if self.pairs:
            left, right = (np.array([pair[side] for pair in self.pairs]) for side in (0, 1))
            same = np.array([pair[2] for pair in self.pairs])
            scores = everything.claims(self.vectors[left], right)
        else:  # everybody against everybody
            n = len(self.photographs)
            found, alike = everything.search(self.vectors, n)
            full = np.empty((n, n))
            np.put_along_axis(full, found, alike, axis=1)
            left, right = np.triu_indices(n, 1)
            same = self.photographs.labels[left] == self.photographs.labels[right]
            scores = full[left, right]
        mated, others = scores[same], scores[~same]
        out = {
            "tar_at_far_1e-2": true_accept_rate(mated, others, 1e-2),
            "tar_at_far_1e-3": true_accept_rate(mated, others, 1e-3),
            "eer": equal_error_rate(mated, others),
        }
        return out | ({"accuracy_10_fold": _folds(scores, same)} if self.pairs else {})

    def _cluster(self, found: Rows, scores: Scores) -> dict[str, float]:
        place = np.full(len(self.photographs), -1, np.intp)
        place[self.often] = np.arange(len(self.often))
        near = np.where((found >= 0) & (scores > self.limit), place[found], -1)
        groups = whispers(near, scores, self.seed)
        truth = self.photographs.labels[self.often]
        return {"ari": rand_index(groups, truth), "nmi": mutual_information(groups, truth)}

    def _classify(self, found: Rows) -> dict[str, float]:
        """Classify the last third of each person's photographs by the majority of their nearest other photographs."""
        labels = self.photographs.labels
        asked = np.zeros(len(labels), bool)
        for person in np.unique(labels[self.often]):
            rows = self.photographs.of(int(person))
            asked[rows[-max(1, len(rows) // 3) :]] = True
        usable = np.zeros(len(labels), bool)
        usable[self.often] = True
        usable &= ~asked
        right = total = 0
        for row, near in zip(self.often.tolist(), found, strict=True):
            if asked[row]:
                votes = labels[[other for other in near.tolist() if other >= 0 and usable[other]][:_VOTES]]
                names, counts = np.unique(votes, return_counts=True)
                # if counts are equal, the name of the nearest wins
                best = next((v for v in votes.tolist() if counts[names == v][0] == counts.max()), None)
                right += best == labels[row]
                total += 1
        return {"knn_accuracy": float(right) / max(total, 1)}

    def _misnamed(self, found: Rows, scores: Scores) -> dict[str, float]:
        """Give one photograph in twenty a wrong name, and measure how well disagreeing neighbours find it."""
        rng = np.random.default_rng(self.seed)
        given = self.photographs.labels.copy()
        wrong = rng.choice(len(self.often), max(1, int(_WRONG * len(self.often))), replace=False)
        names = np.unique(given[self.often])
        for at in wrong.tolist():
            row = self.often[at]
            given[row] = rng.choice(names[names != given[row]])
        suspicion = np.empty(len(self.often))
        for at, row in enumerate(self.often.tolist()):
            others = [place for place, other in enumerate(found[at].tolist()) if other not in (row, -1)][: 2 * _VOTES]
            weights = np.maximum(scores[at, others], 0)
            agree = given[found[at, others]] == given[row]
            suspicion[at] = 1 - float((weights * agree).sum() / max(weights.sum(), 1e-9))
        is_wrong = np.isin(np.arange(len(self.often)), wrong)
        return {"misnamed_auc": auc(suspicion[is_wrong], suspicion[~is_wrong])}


def tables(photographs: Photographs, vectors: Matrix, seed: int) -> Tables:
    """Draw who is enrolled, who is a stranger, and who is clustered."""
    rng = np.random.default_rng(seed)
    labels = photographs.labels
    people, counts = np.unique(labels, return_counts=True)
    several = people[counts >= 2]
    strangers = rng.choice(several, min(_STRANGERS, max(1, len(several) // 4)), replace=False)
    enrolled = np.setdiff1d(people, strangers)
    gallery = np.array([photographs.of(int(person))[0] for person in enrolled])
    probes = np.setdiff1d(np.flatnonzero(np.isin(labels, enrolled)), gallery)
    unknown = np.array([photographs.of(int(person))[0] for person in strangers])
    often = np.flatnonzero(np.isin(labels, people[counts >= min(OFTEN, int(counts.max()))]))
    rest = np.setdiff1d(np.arange(len(labels)), often)
    # if everybody has many photographs, nobody is left, and it is set on strangers' photographs
    rest = rest if len(rest) >= 200 else np.flatnonzero(np.isin(labels, strangers))
    limit = threshold(vectors[rest], labels[rest])
    return Tables(photographs, vectors, gallery, probes, unknown, often, photographs.pairs, limit, seed)


def encrypted(store: Store, tables: Tables, scheme: Mapping[str, Any]) -> Callable[[str, Rows], Stored]:
    """Return a function that enrols rows in collections of a store, under a scheme."""

    def enrol(name: str, rows: Rows) -> Stored:
        name, dim = f"{name}-{scheme['name']}", tables.vectors.shape[1]
        made = store.collection(name, dim=dim, metric="cosine", scheme=scheme, fields={"photo": "blind"})
        return Stored(made, tables.vectors, rows)

    return enrol


def _folds(scores: Scores, same: npt.NDArray[np.bool_], folds: int = 10) -> float:
    """Return the accuracy over ten folds of the protocol: the best threshold of nine folds is tried on the tenth."""
    size = len(scores) // folds
    right = []
    for fold in range(folds):
        held = np.zeros(len(scores), bool)
        held[fold * size : (fold + 1) * size] = True
        values = np.sort(scores[~held])
        taken = len(values) - np.arange(len(values))
        mated = np.sort(scores[~held & same])
        true = len(mated) - np.searchsorted(mated, values)
        correct = true + ((~same & ~held).sum() - (taken - true))
        limit = values[int(correct.argmax())]
        right.append(float(((scores[held] >= limit) == same[held]).mean()))
    return float(np.mean(right))
