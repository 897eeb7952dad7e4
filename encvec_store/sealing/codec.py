"""The record codec turns records into stored bytes and back, under one key version.

    seal    ids, vectors, payloads -> tokens, index vectors, sealed vectors, sealed payloads, terms
    open    sealed vectors -> vectors
    check   do these parts belong together, to this id, to this index vector?

All code that writes or reads records uses it, so each check exists once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..crypto.envelope import (
    PREFIX,
    TOKEN,
    RecordCipher,
    Stamp,
    bindings_of,
    headers,
    nonces_of,
)
from ..data.arrays import Bytes, Matrix, Rows
from ..data.fields import MISSING, Policy, Term, canonical, field_value, plain_term
from ..data.filters import BLIND_COLUMN
from ..data.ids import Id
from ..data.partitions import partition_of, partitions_of
from ..schemes import KeyedScheme
from ..storage.protocol import EncryptedBatch
from .config import CollectionConfig

__all__ = ["Decoded", "RecordCodec", "SealedVectors", "of_one_write"]

Mask = npt.NDArray[np.bool_]
Decoded = tuple[Id, dict[str, Any], str | None]
"""Id, metadata and document of a record."""


@dataclass(frozen=True)
class SealedVectors:
    """n sealed vectors, without payloads."""

    tokens: Bytes
    """(n, 16)."""
    heads: Bytes
    """(n, HEADER) headers of the records."""
    index_vectors: npt.NDArray[Any]
    """(n, index_dim) float32, or float16 in half precision."""
    envelopes: Bytes
    """(n, size) sealed exact vectors."""


def of_one_write(heads: Bytes, prefixes: Sequence[bytes]) -> bool:
    """Return True if the vector part and the payload part of each of n records were sealed by one write.

    Args:
        heads: (n, PREFIX) token and header of the vector parts. The parts were opened, so these are authentic.
        prefixes: the same of the n payload parts, PREFIX bytes each.
    """
    return heads.tobytes() == b"".join(prefixes)


class RecordCodec:
    """Seals, opens and checks the records of one collection under one key version and one revision of its settings."""

    def __init__(self, cipher: RecordCipher, scheme: KeyedScheme, config: CollectionConfig) -> None:
        self._cipher, self._scheme, self._config = cipher, scheme, config

    @property
    def key_version(self) -> int:
        """The number of the key version."""
        return self._cipher.key_version

    # seal

    def seal(
        self,
        ids: Sequence[Id],
        vectors: Matrix,
        payloads: Sequence[bytes],
        metadata: Sequence[Mapping[str, Any]],
    ) -> EncryptedBatch:
        """Encrypt n checked records.

        Args:
            ids: n ids.
            vectors: (n, dim) exact vectors, within the collection's bounds.
            payloads: n encoded payloads.
            metadata: n mappings, for the terms that the store may filter by.
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
        """Encrypt n checked vectors of records with (n, 16) tokens; `kinds` are (n,) name kinds, 0 by default."""
        config = self._config
        kept = config.precision.kept(vectors)
        # computed from the stored form, so that a record that is opened and sealed again gets the same index vector
        single = kept.astype(np.float32, copy=False)
        points = config.lift(single) if config.bounded or not config.metric.bounded else single
        encrypted, nonces = self._scheme.encrypt(points, tokens, kept)
        index_vectors = config.precision.kept(np.ascontiguousarray(encrypted))
        heads = headers(self.stamp, nonces, self._cipher.bindings(tokens, nonces, kept, index_vectors))
        if kinds is not None:
            heads[:, 2:4] = kinds.astype(">u2")[:, None].view(np.uint8)
        return SealedVectors(tokens, heads, index_vectors, self._cipher.seal_vectors(tokens, heads, kept))

    def seal_payloads(
        self, envelopes: Bytes, index_vectors: Matrix, payloads: Sequence[bytes], metadata: Sequence[Mapping[str, Any]]
    ) -> EncryptedBatch:
        """Seal new payloads for n records whose vectors stay as they are. Both parts keep the header of the vectors.

        Args:
            envelopes: (n, size) vector envelopes of this key version. They were opened, so they are authentic.
            index_vectors: (n, index_dim) stored beside them.
            payloads: n encoded payloads.
            metadata: n mappings, for the terms that the store may filter by.
        """
        tokens, heads = (np.ascontiguousarray(part) for part in (envelopes[:, :TOKEN], envelopes[:, TOKEN:PREFIX]))
        return EncryptedBatch(
            partitions=self.partitions(tokens),
            tokens=tokens,
            index_vectors=self._config.precision.kept(index_vectors),
            vectors=envelopes,
            payloads=self._cipher.seal_payloads(tokens, heads, payloads),
            terms=self.terms(metadata),
        )

    def tokens(self, ids: Sequence[Id]) -> Bytes:
        """Return the record tokens of n ids: (n, 16)."""
        return self._cipher.tokens(ids)

    @property
    def stamp(self) -> Stamp:
        """The first fields of the headers that this codec writes."""
        config = self._config
        return Stamp(config.scheme.number, config.revision, self.key_version, config.precision)

    def partitions(self, tokens: Bytes) -> Rows:
        """Return the partitions of records with (n, 16) tokens: (n,)."""
        return partitions_of(self.key_version, self._scheme.cells_of(tokens))

    def terms(self, metadata: Sequence[Mapping[str, Any]]) -> list[tuple[int, str, Term]]:
        """Return the terms that a store may filter by: plain values, and the tokens of blind values."""
        blind: list[tuple[int, str, bytes]] = []
        plain: list[tuple[int, str, Term]] = []
        for name, policy in (self._config.policies or {}).items():
            if policy is Policy.SEALED:
                continue
            for position, item in enumerate(metadata):
                value = field_value(item, name)
                if value is MISSING:
                    continue
                if policy is Policy.BLIND:
                    blind.append((position, name, canonical(value)))
                else:
                    plain.append((position, name, plain_term(value)))
        distinct = list({(name, value) for _, name, value in blind})  # values repeat, so each is tagged once
        tokens = self._cipher.blind_tokens(distinct) if distinct else []
        terms = {named: Term("token", token) for named, token in zip(distinct, tokens, strict=True)}
        return plain + [(position, BLIND_COLUMN, terms[name, value]) for position, name, value in blind]

    # open

    def open_vectors(self, envelopes: Bytes) -> Matrix:
        """Open (n, size) vector envelopes of this key version: (n, dim). Raises AuthenticationError."""
        return self._cipher.open_vectors(envelopes)

    # check

    def are_named(self, ids: Sequence[Id], tokens: Bytes) -> Mask:
        """Return for each of n ids whether the record token beside it, (n, 16), is its token: (n,)."""
        return _same(self.tokens(ids), tokens)

    def are_bound(self, envelopes: Bytes, vectors: Matrix, index_vectors: Matrix) -> Mask:
        """Return for each of n opened records whether its index vector is the one it was written with: (n,).

        Args:
            envelopes: (n, at least PREFIX) vector envelopes, or their first bytes.
            vectors: (n, dim) their content.
            index_vectors: (n, index_dim) from the store.
        """
        kept, tokens = self._config.precision.kept, np.ascontiguousarray(envelopes[:, :TOKEN])
        true = self._cipher.bindings(tokens, nonces_of(envelopes), kept(vectors), kept(index_vectors))
        return _same(true, bindings_of(envelopes))

    # search

    def encrypt_queries(self, points: Matrix) -> dict[int, Matrix]:
        """Encrypt (q, point_dim) query points for every partition of this key version: a (q, index_dim) for each."""
        encrypted = self._scheme.encrypt_queries(points)
        return {partition_of(self.key_version, cell): part for cell, part in enumerate(encrypted)}

    def aligned(self, index_vectors: Matrix, tokens: Bytes) -> Matrix:
        """Rotate (n, index_dim) index vectors so that those of all cells can be compared, for statistics."""
        return self._scheme.aligned(index_vectors, tokens)


def _same(ours: Bytes, theirs: Bytes) -> Mask:
    """Compare two (n, 16) arrays of tags row by row, in a time that does not depend on the bytes: (n,)."""
    same: Mask = np.bitwise_or.reduce(ours ^ theirs, axis=1) == 0
    return same
