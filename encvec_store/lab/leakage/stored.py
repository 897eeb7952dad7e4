"""A collection as a subject: the index vectors that its store holds, and what they were made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np

from ... import low_level
from ...collection import Collection
from ...data import Matrix, Rows, by_version
from ...engine import Session
from ...errors import InputError, StaleConfigError
from ...sealing import CollectionConfig
from .algebra import Cells, Indices
from .protocol import Subject

__all__ = ["StoredRecords", "read"]

_ATTEMPTS = 4


@dataclass(frozen=True)
class StoredRecords:
    """Records of a collection, attacked as they are stored. It is its own keyed form: the key is the collection's.

    The victim of an experiment on it must be `points`, in this order.
    """

    points: Matrix = field(repr=False)
    """(n, point_dim): the exact vectors, lifted."""
    index_vectors: Matrix = field(repr=False)
    """(n, k) as stored."""
    partitions: Indices = field(repr=False)
    """(n,): a cell under a key version."""
    session: Session = field(repr=False)
    config: CollectionConfig = field(repr=False)
    oversample: int
    public: None = None
    sorts: None = None

    @property
    def noise(self) -> float:
        """See Keyed."""
        return self.config.scheme.noise / 4

    @property
    def cells(self) -> Cells:
        """Partitions (n,) as numbers from 0: each has a rotation of its own."""
        return np.unique(self.partitions, return_inverse=True)[1].astype(np.int64)

    def only(self, rows: Indices) -> StoredRecords:
        """Return the same of (m,) rows only."""
        return replace(
            self, points=self.points[rows], index_vectors=self.index_vectors[rows], partitions=self.partitions[rows]
        )

    def grown(self, records: int, sample: Matrix) -> Subject:
        """Return the same: it stands as it is."""
        return self

    def parameters(self) -> Mapping[str, Any]:
        """The scheme's own, and how many partitions there are."""
        given = {name: value for name, value in self.config.scheme.parameters().items() if name != "profile"}
        count = len(np.unique(self.partitions))
        return {**given, "cells": count} if count > 1 else given

    def keyed(self, key: int, profile: Matrix) -> StoredRecords:
        """Return the same, under its own key."""
        return self

    def at_rest(self, rows: Indices) -> tuple[Matrix, Cells]:
        """Return the stored index vectors of (m,) rows of `points`, and their cells."""
        return self.index_vectors[rows], self.cells[rows]

    def ask(self, queries: Matrix) -> Matrix:
        """Encrypt (q, point_dim) points for each partition: (cells, q, k)."""
        asked: dict[int, Matrix] = {}
        for version in by_version(self.partitions.tolist()):
            found = self.session.keyring.codec(version, self.config).encrypt_queries(queries)
            # `sap` draws a scale for each key version: without it the products of all versions compare
            mine = self.index_vectors[np.isin(self.partitions, list(found))]
            scale = np.square(mine).sum(axis=1).mean()
            asked |= {partition: part / scale for partition, part in found.items()}
        return np.stack([asked[int(partition)] for partition in np.unique(self.partitions)])

    def store(self, vectors: Matrix) -> NoReturn:
        """Refuse: nothing is encrypted under a collection's key for the lab."""
        raise InputError("a stored collection is attacked as it is: it encrypts no other vectors")

    def spread(self, vectors: Matrix) -> NoReturn:
        """Refuse, as `store` does."""
        self.store(vectors)


def read(collection: Collection, limit: int, seed: int = 0) -> StoredRecords | None:
    """Open up to `limit` records drawn at random; None where the store holds no index vectors.

    Raises:
        StaleConfigError: the collection was rewritten at each attempt.
        AuthenticationError: a record was altered.
    """
    session = low_level.session(collection)
    for _ in range(_ATTEMPTS):
        config = session.refresh()
        if not config.index_dim:
            return None
        rows = session.without(session.records.rows(), session.keyring.dead)
        if len(rows) > limit:
            rows = np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
        before = _partitions(session, rows)
        found, vectors, _ = session.open_vectors(rows)
        having, index_vectors = session.records.index_vectors(found)
        still = _partitions(session, rows) == before and session.refresh() == config
        if still and len(having) == len(found) == len(before):
            partitions = np.array([before[row] for row in found.tolist()], np.int64)
            points = config.lift(vectors)
            oversample = int(collection.stats()["oversample"])
            return StoredRecords(points, index_vectors, partitions, session, config, oversample)
    raise StaleConfigError("the collection was written at each attempt to read it: try again when it is at rest")


def _partitions(session: Session, rows: Rows) -> dict[int, int]:
    return {row: partition for row, partition, _, _ in session.records.audit(rows)}
