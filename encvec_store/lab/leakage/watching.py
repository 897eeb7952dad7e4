"""What a server that watches learns from which rows, or which blocks, each query reads.

    with watched(collection) as seen:
        ...  # searches; call seen.next() after each
    log = seen.rows(places)
    topics, luck = record_topics(log, labels, known), record_topics(log.shuffled(rng), labels, known)

Rows that are read together are near each other: the log is a noisy graph of neighbours. Each attack takes a log of any
origin, so that the true graph (`neighbour_log`) shows what could be learned at most, and a shuffled log what luck
gives. Reconstruction from what searches return: Kornaropoulos, Papamanthou and Tamassia, "Data recovery on encrypted
databases with k-nearest neighbor query leakage" (ePrint 2018/719); with what the adversary knows of queries: Oya and
Kerschbaum, "Hiding the access pattern is not enough" (USENIX Security 2021); of vector search: LAMa (arXiv 2508.11563).
Matching of the graph with the adversary's own texts is in `graphs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2
from scipy.sparse import csr_array, diags_array

from ... import low_level
from ...collection import Collection
from ...data import Matrix
from .algebra import Indices, blocks
from .graphs import embedded

__all__ = [
    "ReadLog",
    "ReadsSeen",
    "neighbour_log",
    "neighbour_pairs",
    "neighbours",
    "query_topics",
    "record_topics",
    "topics",
    "topics_by_queries",
    "watched",
]

Labels = npt.NDArray[np.integer]
_ROWS, _BLOCKS = ("current", "vectors", "payloads"), ("blob_parts",)
_STARTS, _SHUFFLES = 5, 20
_UNKNOWN = -1


@dataclass(frozen=True)
class ReadLog:
    """Which of `count` things each search read.

    Args:
        reads: an array of numbers from 0 for each search, without doubles; empty where it read nothing.
        count: how many things there are: records, or blocks.
    """

    reads: Sequence[Indices] = field(repr=False)
    count: int

    @cached_property
    def incidence(self) -> csr_array:
        """(searches, count), 1 where a search read a thing."""
        ends = np.cumsum([0, *map(len, self.reads)])
        whole = np.concatenate([*self.reads, np.zeros(0, np.intp)]).astype(np.int32)
        return csr_array((np.ones(len(whole), np.float32), whole, ends), (len(self.reads), self.count))

    @cached_property
    def graph(self) -> csr_array:
        """(count, count): how often two things were read together. A search counts less the more it read."""
        sizes = np.maximum(1, self.incidence.sum(axis=1) - 1)
        together = csr_array(self.incidence.T @ (diags_array(1 / sizes) @ self.incidence)).astype(np.float32)
        together.setdiag(0)
        together.eliminate_zeros()
        return together

    @property
    def each(self) -> float:
        """Things that a search read on average."""
        return float(np.mean([len(one) for one in self.reads])) if self.reads else 0.0

    def first(self, searches: int) -> ReadLog:
        """Return the log of the first searches."""
        return ReadLog(self.reads[:searches], self.count)

    def shuffled(self, rng: np.random.Generator) -> ReadLog:
        """Return as many reads of as many things, each as often as here, but no longer together with the same ones."""
        whole = rng.permutation(np.concatenate([*self.reads, np.zeros(0, np.intp)]))
        ends = np.cumsum([len(one) for one in self.reads])
        return ReadLog([np.unique(one) for one in np.split(whole, ends)[: len(self.reads)]], self.count)


class ReadsSeen:
    """What a server was asked for, search by search."""

    def __init__(self) -> None:
        self.quiet = 0
        """How many of the latest searches, in a row, read nothing."""
        self._rows: list[list[Any]] = [[]]
        self._blocks: list[list[tuple[str, int]]] = [[]]

    def next(self) -> None:
        """Begin the next search."""
        self.quiet = 0 if self._rows[-1] or self._blocks[-1] else self.quiet + 1
        self._rows.append([])
        self._blocks.append([])

    def rows(self, places: Mapping[int, int]) -> ReadLog:
        """Return the log of rows. `places` gives each row of the store a number from 0."""
        reads = [
            np.array(sorted({places[int(row)] for part in search for row in part}), np.intp)
            for search in self._rows[:-1]
        ]
        return ReadLog(reads, len(places))

    def blocks(self) -> ReadLog:
        """Return the log of blocks."""
        numbers = {block: place for place, block in enumerate(sorted(set().union(*self._blocks)))}
        reads = [np.array(sorted({numbers[block] for block in one}), np.intp) for one in self._blocks[:-1]]
        return ReadLog(reads, len(numbers))

    def note(self, name: str, given: Sequence[Any]) -> None:
        """Write down a call of a record store."""
        if name in _ROWS:
            self._rows[-1].append(np.asarray(given[0]))
        else:
            self._blocks[-1] += [(given[0], int(part)) for part in given[1]]


@contextmanager
def watched(things: Collection) -> Iterator[ReadsSeen]:
    """Have what an open collection asks of its record store written down, while the context lasts."""
    records: Any = low_level.records(things)
    seen = ReadsSeen()

    def noting(name: str) -> Any:
        read = getattr(records, name)

        def reading(*given: Any, **how: Any) -> Any:
            seen.note(name, given)
            return read(*given, **how)

        return reading

    for name in _ROWS + _BLOCKS:
        setattr(records, name, noting(name))
    try:
        yield seen
    finally:
        for name in _ROWS + _BLOCKS:
            delattr(records, name)


# ----------------------------------------------------------------------------------------- the true graph


def neighbours(vectors: Matrix, k: int = 10) -> Indices:
    """Return the k nearest others (n, k) of (n, d) unit vectors, nearest first."""
    found = np.empty((len(vectors), k), np.intp)
    for rows in blocks(len(vectors)):
        near = vectors[rows] @ vectors.T
        near[np.arange(len(near)), np.arange(rows.start, rows.stop)] = -np.inf
        some = np.argpartition(-near, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(near, some, axis=1), axis=1)
        found[rows] = np.take_along_axis(some, order, axis=1)
    return found


def neighbour_log(vectors: Matrix, k: int = 10) -> ReadLog:
    """Return the log that a search for each record itself would leave: what the best server could know."""
    near = neighbours(vectors, k)
    return ReadLog([np.unique([place, *some]) for place, some in enumerate(near.tolist())], len(near))


# ----------------------------------------------------------------------------------------- topics


def record_topics(log: ReadLog, labels: Labels, known: Indices, steps: int = 2) -> float:
    """Return the share of the other records whose label is guessed from those of `known` records.

    A record gets the label that most of the records have with which it was read, at one step or two (label
    propagation: Zhu and Ghahramani, CMU-CALD-02-107, 2002).
    """
    others = np.setdiff1d(np.arange(log.count), known)
    return float((_best(_votes(log, labels, known, steps))[others] == labels[others]).mean())


def query_topics(log: ReadLog, labels: Labels, known: Indices, asked: Labels, steps: int = 2) -> float:
    """Return the share of searches whose topic `asked` (s,) is guessed from the records that they read."""
    votes = _votes(log, labels, known, steps)
    total = np.maximum(votes.sum(axis=1, keepdims=True), 1e-12)
    return float((_best(log.incidence @ (votes / total)) == asked).mean())


def topics_by_queries(log: ReadLog, asked: Labels, known: Indices, near: int = 10) -> float:
    """Return the share of the other searches whose topic is guessed from `known` searches that read alike.

    Args:
        log: of records, or of blocks.
        asked: (s,) topics; only those of `known` are looked at.
        known: searches whose topics are known: who asks some himself knows them.
        near: searches that vote.

    Searches are compared by what they read, rare things counting more (the cosine of inverse document frequencies), and
    the nearest vote.
    """
    weights = np.log((1 + len(log.reads)) / (1 + log.incidence.sum(axis=0)))
    read = log.incidence @ diags_array(weights)
    lengths = np.sqrt(np.asarray(read.multiply(read).sum(axis=1)).ravel())
    read = diags_array(1 / np.maximum(lengths, 1e-12)) @ read
    others = np.setdiff1d(np.arange(len(log.reads)), known)
    theirs, right = csr_array(read[known].T), 0
    for rows in blocks(len(others)):
        alike = np.asarray((read[others[rows]] @ theirs).todense())
        top = np.argpartition(-alike, near - 1, axis=1)[:, :near]
        votes = np.zeros((len(alike), int(asked.max()) + 1))
        np.add.at(votes, (np.arange(len(alike))[:, None], asked[known][top]), np.take_along_axis(alike, top, axis=1))
        right += int((_best(votes) == asked[others[rows]]).sum())
    return right / len(others)


def topics(log: ReadLog, labels: Labels, rng: np.random.Generator) -> float:
    """Return how well groups of records found without any label agree with the true labels (adjusted information).

    Groups are those of k-means on the leading eigenvectors of the graph (Ng, Jordan and Weiss, NIPS 2001); as many as
    there are labels. Records that were never read are in no group, and are not counted.
    """
    read = np.flatnonzero(log.graph.sum(axis=1))
    count = len(np.unique(labels))
    if len(read) <= 2 * count:
        return 0.0
    points = embedded(log.graph[read][:, read], count)
    best, found = np.inf, np.zeros(len(read), np.intp)
    for _ in range(_STARTS):
        centres, own = kmeans2(points, count, minit="++", rng=rng, missing="warn")
        apart = float(np.square(points - centres[own]).sum())
        if apart < best:
            best, found = apart, own
    return adjusted_information(found, labels[read], rng)


def adjusted_information(groups: Labels, labels: Labels, rng: np.random.Generator) -> float:
    """Return the mutual information, 0 for what chance gives and 1 for equal groups.

    Vinh, Epps and Bailey, "Information theoretic measures for clusterings comparison", JMLR 11, 2010, with the mean of
    their entropies; what chance gives is the mean over 20 shuffles.
    """
    shared = _information(groups, labels)
    luck = float(np.mean([_information(rng.permutation(groups), labels) for _ in range(_SHUFFLES)]))
    most = (_information(groups, groups) + _information(labels, labels)) / 2
    return (shared - luck) / (most - luck) if most > luck else 0.0


# ----------------------------------------------------------------------------------------- neighbours


def neighbour_pairs(log: ReadLog, near: Indices) -> dict[Literal["precision", "recall"], float]:
    """Say how many pairs of neighbours (n, k) are among those pairs of records that were most often read together.

    As many pairs are taken as there are true ones, or all that were read together; frequent records count less.
    """
    true = _pairs(np.repeat(np.arange(len(near)), near.shape[1]), near.ravel(), log.count)
    graph = log.graph.tocoo()
    upper = graph.row < graph.col
    row, col = graph.row[upper], graph.col[upper]
    often = log.incidence.sum(axis=0)
    order = np.argsort(-graph.data[upper] / np.sqrt(often[row] * often[col]), kind="stable")[: len(true)]
    found = _pairs(row[order], col[order], log.count)
    both = len(np.intersect1d(true, found))
    return {"precision": both / max(1, len(found)), "recall": both / len(true)}


# --------------------------------------------------------------------------------------------- inside


def _votes(log: ReadLog, labels: Labels, known: Indices, steps: int) -> npt.NDArray[np.floating]:
    """Return weights of labels (count, classes) for each record; zeros where nothing is known."""
    votes = np.zeros((log.count, int(labels.max()) + 1), np.float32)
    votes[known, labels[known]] = 1
    sizes = diags_array(1 / np.maximum(1, log.incidence.sum(axis=1)))
    for _ in range(steps):
        spread = log.incidence.T @ (sizes @ (log.incidence @ votes))
        votes = spread / np.maximum(spread.sum(axis=1, keepdims=True), 1e-12)
        votes[known] = 0
        votes[known, labels[known]] = 1
    return votes


def _best(votes: npt.NDArray[np.floating]) -> Labels:
    return np.where(votes.any(axis=1), votes.argmax(axis=1), _UNKNOWN)


def _information(one: Labels, other: Labels) -> float:
    joint = np.zeros((int(one.max()) + 1, int(other.max()) + 1))
    np.add.at(joint, (one, other), 1 / len(one))
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / apart[there])).sum())


def _pairs(one: Indices, other: Indices, count: int) -> Indices:
    return np.unique(np.minimum(one, other).astype(np.intp) * count + np.maximum(one, other))
