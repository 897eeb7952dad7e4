"""The cipher of one mapped column: vectors to index vectors and envelopes and back.

A column's keys are those of a collection whose root is a subkey of the keyset's, without an incarnation. The name kind
in a record's header, which is authenticated, says what the record token is: `BOUND`, the PMAC of the row's primary
key; `FREE`, 16 random bytes.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from ...crypto.envelope import NAME_KIND, TOKEN, envelope_size, key_versions
from ...crypto.labels import Purpose, derive
from ...data.arrays import Bytes, Matrix
from ...data.metrics import as_vectors
from ...errors import AuthenticationError
from ...keys.keyset import Keyset, KeyVersion
from ...sealing.codec import RecordCodec
from ...sealing.config import CollectionConfig
from ...sealing.keyring import Keyring

__all__ = ["BOUND", "FREE", "ColumnCipher", "KeysetSource"]

KeysetSource = Keyset | Callable[[], Keyset]

BOUND, FREE = 1, 2


class _Roots:
    """A keyset whose roots are subkeys of the column."""

    def __init__(self, keyset: Keyset, tenant: str, place: str) -> None:
        self._keyset = keyset
        self._context = (tenant, place)
        self._known: dict[int, bytes] = {}

    @property
    def primary(self) -> int:
        return self._keyset.primary

    @property
    def live(self) -> tuple[int, ...]:
        return self._keyset.live

    @property
    def held(self) -> tuple[int, ...]:
        return self._keyset.held

    @property
    def versions(self) -> tuple[KeyVersion, ...]:
        return self._keyset.versions

    def root(self, version: int, *, naming: bool = False) -> bytes:
        root = self._keyset.root(version, naming=naming)  # asked every time: it refuses what is disabled
        if version not in self._known:
            self._known[version] = derive(root, Purpose.ORM_COLUMN, *self._context)
        return self._known[version]


class ColumnCipher:
    """Encrypts and opens the vectors of one column. Never pickled, and its repr names no key."""

    def __init__(self, keyset: KeysetSource, tenant: str, place: str, config: CollectionConfig) -> None:
        self._source = keyset
        self._tenant = tenant
        self.place = place
        self.config = config
        self._opened: Keyring | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<ColumnCipher of {self.place}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a column's cipher holds keys and is not pickled")

    def __deepcopy__(self, memo: dict[int, Any]) -> ColumnCipher:
        return self

    @property
    def _keyring(self) -> Keyring:
        """The keys, asked for at first use: models are declared before a program has its passphrase."""
        with self._lock:
            if self._opened is None:
                keyset = self._source() if callable(self._source) else self._source
                roots = _Roots(keyset, self._tenant, self.place)
                self._opened = Keyring(roots, self._tenant, self.place, b"")
            return self._opened

    @property
    def live(self) -> tuple[int, ...]:
        """The key versions that read, the primary first."""
        return self._keyring.live

    @property
    def versions(self) -> tuple[KeyVersion, ...]:
        """All key versions, without their roots."""
        return self._keyring.versions

    def checked(self, vectors: Any, name: str = "vectors") -> Matrix:
        """Return (n, dim) float32 vectors that can be encrypted. Raises InputError."""
        array = as_vectors(vectors, self.config.dim, name=name)
        self.config.metric.check(array, self.config.max_norm, name)
        return array

    def seal(self, vectors: Matrix, identities: Sequence[str | None]) -> tuple[Matrix, Bytes]:
        """Encrypt n checked vectors of rows with these primary keys, None where not known.

        Returns:
            (n, index_dim) float32 index vectors and (n, size) uint8 envelopes.
        """
        codec = self._codec(self._keyring.primary)
        known = np.array([identity is not None for identity in identities], bool)
        tokens = np.frombuffer(os.urandom(TOKEN * len(vectors)), np.uint8).reshape(-1, TOKEN).copy()
        if known.any():
            tokens[known] = codec.tokens([identity for identity in identities if identity is not None])
        sealed = codec.seal_vectors(tokens, vectors, np.where(known, BOUND, FREE).astype(np.uint16))
        return sealed.index_vectors, sealed.envelopes

    def _codec(self, version: int) -> RecordCodec:
        return self._keyring.codec(version, self.config)

    def open(self, rows: Sequence[bytes], *, bound: bool = False) -> Matrix:
        """Open n rows -> (n, dim) float32.

        Args:
            rows: of each the envelope, the index vector as pgvector sends it, and the primary key, empty where it is of
                no kind that can be bound.
            bound: refuse rows whose primary key is not bound.

        Raises:
            AuthenticationError: wrong key, or the parts are not those of one row as it was written.
        """
        size, dim = envelope_size(self.config.dim), self.config.index_dim
        start, end = size + 4, size + 4 + 4 * dim
        head = struct.pack(">HH", dim, 0)
        if any(len(row) < end or row[size:start] != head for row in rows):
            _refuse()
        fixed = np.frombuffer(b"".join(row[:end] for row in rows), np.uint8).reshape(-1, end)
        envelopes = np.ascontiguousarray(fixed[:, :size])
        index = np.ascontiguousarray(fixed[:, start:]).view(">f4").astype(np.float32)
        vectors: Matrix = self._keyring.open_vectors(envelopes)
        # now the headers are authentic: what is left is that index vector and primary key are theirs
        versions = key_versions(envelopes)
        kinds = np.ascontiguousarray(envelopes[:, NAME_KIND]).view(">u2").ravel()
        if not ((kinds == BOUND) | ((kinds == FREE) & (not bound))).all():
            _refuse()
        for version in np.unique(versions):
            codec = self._codec(int(version))
            chosen = np.flatnonzero(versions == version)
            if not codec.are_bound(envelopes[chosen], vectors[chosen], index[chosen]).all():
                _refuse()
            known = chosen[kinds[chosen] == BOUND]
            if len(known):
                identities = [rows[i][end:].decode("utf-8", "replace") for i in known]
                if not codec.are_named(identities, envelopes[known, :TOKEN]).all():
                    _refuse()
        return vectors

    def query(self, query: Any, version: int | None = None) -> Matrix:
        """Encrypt a (dim,) query under a key version, the primary unless told: (index_dim,). Raises InputError."""
        config = self.config
        checked = as_vectors(np.asarray(query)[None], config.dim, name="query")
        codec = self._codec(self._keyring.primary if version is None else version)
        points = config.metric.lift_query(checked, config.max_norm)
        encrypted: Matrix = next(iter(codec.encrypt_queries(points).values()))[0]
        return encrypted


def _refuse() -> NoReturn:
    raise AuthenticationError("a record could not be authenticated")
