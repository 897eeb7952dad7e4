"""The record codec: one key version's way from records to their stored bytes, and back.

    seal    ids, vectors, payloads -> tokens, index vectors, sealed vectors, sealed payloads, terms
    open    sealed vectors, sealed payloads -> vectors, payloads
    check   do these parts belong together, to this id, to this index vector?

Everything that writes or reads records goes through here, so each check exists once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..crypto.envelope import (
    TOKEN,
    RecordCipher,
    Stamp,
    bindings_of,
    headers,
    nonces_of,
)
from ..data.arrays import Bytes, Matrix, Rows
from ..data.fields import Policy, Term, canonical, plain_term
from ..data.filters import BLIND_COLUMN
from ..data.partitions import partition, partitions
from ..schemes import KeyedScheme
from ..storage.protocol import EncryptedBatch
from .config import CollectionConfig

__all__ = ["Decoded", "RecordCodec", "SealedVectors", "of_one_write"]

Mask = npt.NDArray[np.bool_]
Decoded = tuple[str, dict[str, Any], str | None]
"""Id, metadata and document of a record."""


@dataclass(frozen=True)
class SealedVectors:
    """n vectors as they are stored, without payloads."""

    tokens: Bytes
    """(n, 16)."""
    heads: Bytes
    """(n, HEADER) of the records' headers."""
    index_vectors: npt.NDArray[Any]
    """(n, index_dim) float32, or float16 in half precision."""
    envelopes: Bytes
    """(n, size) sealed exact vectors."""


def of_one_write(heads: Bytes, prefixes: Sequence[bytes]) -> bool:
    """Say whether the vector part and the payload part of each of n records were sealed by one write.

    Args:
        heads: (n, PREFIX) token and header of the vector parts; parts that were opened, so they are authentic.
        prefixes: n times PREFIX bytes of the payload parts, likewise.
    """
    return heads.tobytes() == b"".join(prefixes)


class RecordCodec:
    """Seals, opens and checks the records of one collection under one key version and one state of its settings."""

    def __init__(self, cipher: RecordCipher, scheme: KeyedScheme, config: CollectionConfig) -> None:
        self._cipher, self._scheme, self._config = cipher, scheme, config

    @property
    def key_version(self) -> int:
        """The number of the key version."""
        return self._cipher.key_version

    # seal

    def seal(
        self,
        ids: Sequence[str],
        vectors: Matrix,
        payloads: Sequence[bytes],
        metadata: Sequence[Mapping[str, Any]],
    ) -> EncryptedBatch:
        """Encrypt n checked records.

        Args:
            ids: n ids.
            vectors: (n, dim) exact vectors, within the collection's bounds.
            payloads: n encoded payloads.
            metadata: of each, for the terms that the store may filter by.
        """
        sealed = self.seal_vectors(self.tokens(ids), vectors)
        return EncryptedBatch(
            partitions=self.partitions(sealed.tokens),
            tokens=sealed.tokens,
            index_vectors=sealed.index_vectors,
            vectors=sealed.envelopes,
            payloads=self._cipher.seal_payloads(sealed.tokens, sealed.heads, payloads),
            terms=self.terms(metadata),
        )

    def seal_vectors(
        self, tokens: Bytes, vectors: Matrix, kinds: npt.NDArray[np.uint16] | None = None
    ) -> SealedVectors:
        """Encrypt n checked vectors of records with (n, 16) tokens; `kinds` are (n,) name kinds, 0 unless told."""
        config = self._config
        kept = config.precision.kept(vectors)
        # from what is kept, so that the same record again is the same ciphertext, also after opening it
        points = config.metric.lift(kept.astype(np.float32, copy=False), config.max_norm)
        encrypted, nonces = self._scheme.encrypt(points, tokens, kept)
        index_vectors = config.precision.kept(np.ascontiguousarray(encrypted))
        heads = headers(self.stamp, nonces, self._cipher.bindings(tokens, nonces, kept, index_vectors))
        if kinds is not None:
            heads[:, 2:4] = kinds.astype(">u2")[:, None].view(np.uint8)
        return SealedVectors(tokens, heads, index_vectors, self._cipher.seal_vectors(tokens, heads, kept))

    def tokens(self, ids: Sequence[str]) -> Bytes:
        """Return the record tokens of n ids: (n, 16)."""
        return self._cipher.tokens(ids)

    @property
    def stamp(self) -> Stamp:
        """What the headers of this codec's writes begin with."""
        config = self._config
        return Stamp(config.scheme.number, config.revision, self.key_version, config.precision)

    def partitions(self, tokens: Bytes) -> Rows:
        """Return the partitions that records of (n, 16) tokens belong to: (n,)."""
        return partitions(self.key_version, self._scheme.cells_of(tokens))

    def terms(self, metadata: Sequence[Mapping[str, Any]]) -> list[tuple[int, str, Term]]:
        """Return what a store may filter by: plain values, and tokens of blind ones."""
        blind: list[tuple[int, str, bytes]] = []
        plain: list[tuple[int, str, Term]] = []
        for name, policy in (self._config.policies or {}).items():
            if policy is Policy.SEALED:
                continue
            for position, item in enumerate(metadata):
                if name not in item:
                    continue
                if policy is Policy.BLIND:
                    blind.append((position, name, canonical(item[name])))
                else:
                    plain.append((position, name, plain_term(item[name])))
        distinct = list({(name, value) for _, name, value in blind})  # values repeat: each is tagged once
        tokens = self._cipher.blind_tokens(distinct) if distinct else []
        terms = {named: Term("token", token) for named, token in zip(distinct, tokens, strict=True)}
        return plain + [(position, BLIND_COLUMN, terms[name, value]) for position, name, value in blind]

    # open

    def open_vectors(self, envelopes: Bytes) -> Matrix:
        """Open (n, size) vector envelopes of this key version: (n, dim). Raises AuthenticationError."""
        return self._cipher.open_vectors(envelopes)

    # check

    def are_named(self, ids: Sequence[str], tokens: Bytes) -> Mask:
        """Say of each of (n, 16) record tokens whether it belongs to the id of n ids beside it: (n,)."""
        return _same(self.tokens(ids), tokens)

    def are_bound(self, envelopes: Bytes, vectors: Matrix, index_vectors: Matrix) -> Mask:
        """Say of each of n opened records whether its index vector is the one that it was written with: (n,).

        Args:
            envelopes: (n, at least PREFIX) of the vector parts.
            vectors: (n, dim) what was in them.
            index_vectors: (n, index_dim) as the store has them.
        """
        kept, tokens = self._config.precision.kept, np.ascontiguousarray(envelopes[:, :TOKEN])
        true = self._cipher.bindings(tokens, nonces_of(envelopes), kept(vectors), kept(index_vectors))
        return _same(true, bindings_of(envelopes))

    # search

    def encrypt_queries(self, points: Matrix) -> dict[int, Matrix]:
        """Encrypt (q, point_dim) query points for every partition of this key version: (q, index_dim) each."""
        encrypted = self._scheme.encrypt_queries(points)
        return {partition(self.key_version, cell): part for cell, part in enumerate(encrypted)}

    def aligned(self, index_vectors: Matrix, tokens: Bytes) -> Matrix:
        """Turn (n, index_dim) index vectors so that those of all cells compare: for statistics."""
        return self._scheme.aligned(index_vectors, tokens)


def _same(ours: Bytes, theirs: Bytes) -> Mask:
    """Say which rows of two (n, 16) arrays of tags are equal, in a time that does not depend on the bytes."""
    same: Mask = np.bitwise_or.reduce(ours ^ theirs, axis=1) == 0
    return same
