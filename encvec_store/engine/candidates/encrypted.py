"""Candidates from a vector index over ciphertext: FAISS in this process, or pgvector in the server."""

from __future__ import annotations

import numpy as np

from ...data.arrays import Matrix, Rows
from ...data.filters import Filter, Predicate, is_covered
from ...data.partitions import by_version
from ...indexes.protocol import Probes, share
from ...runtime.concurrency import offload
from ...sealing.config import CollectionConfig
from ..parts import Parts
from ..session import Session
from .base import Asked, Found
from .fusion import fused

__all__ = ["EncryptedIndex"]


class EncryptedIndex:
    """Encrypts queries as records are encrypted. The index ranks ciphertexts by inner product."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def ask(self, config: CollectionConfig, queries: Matrix, node: Filter | None, predicate: Predicate | None) -> Asked:
        """Encrypt the queries under every key version that has records."""
        keyring = self._session.keyring
        points = config.lift_query(queries)
        versions = keyring.live
        if len(versions) > 1:
            present = by_version(self._session.records.partitions())
            # The primary comes last: a record that is sealed anew meanwhile is found under one of the two.
            versions = (*sorted(version for version in versions[1:] if version in present), versions[0])
        covers = is_covered(node, config.policies)
        return fused([self._under(version, config, points, predicate, covers) for version in versions])

    def _under(
        self, version: int, config: CollectionConfig, points: Matrix, predicate: Predicate | None, covers: bool
    ) -> _UnderOneKey:
        codec = self._session.keyring.codec(version, config)
        probes = offload(len(points), codec.encrypt_queries, points)
        return _UnderOneKey(self._session, config, version, probes, predicate, covers)


class _UnderOneKey:
    """Queries under one key version. Inner products compare only within one."""

    def __init__(
        self,
        session: Session,
        config: CollectionConfig,
        version: int,
        probes: Probes,
        predicate: Predicate | None,
        covers: bool,
    ) -> None:
        self.covers = covers
        self.parts: Parts | None = None
        self._session, self._config, self._version = session, config, version
        self._probes, self._predicate = probes, predicate

    def wanted(self, k: int, oversample: int) -> int:
        return k * oversample

    def candidates(self, limit: int, positions: list[int] | None = None) -> list[Rows]:
        probes = self._probes
        if positions is not None:
            probes = {partition: part[positions] for partition, part in probes.items()}
        return self._session.index.candidates(probes, limit, self._predicate)

    def opened(self, limit: int) -> Found | None:
        found, vectors, heads = self._session.nearest(self._probes, limit, self._predicate, self._config)
        return Found(found.lists, found.rows, vectors, heads, found.payloads)

    def explain(self, k: int, oversample: int) -> list[str]:
        each = share(self.wanted(k, oversample), len(self._probes))
        partition, encrypted = next(iter(self._probes.items()))
        told = self._session.index.explain(partition, np.ascontiguousarray(encrypted[0]), each, self._predicate)
        cells = (
            f", {len(self._probes):,} cells, of each {each:,} candidates; the first" if len(self._probes) > 1 else ""
        )
        return [f"key version {self._version}{cells}: {told}"]
