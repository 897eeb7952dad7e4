"""The cipher of one mapped column, of SQLAlchemy or Django: from vectors to index vectors and envelopes, and back.

Each column has its own root key, derived from the keyset's; from there its keys are made as those of a collection. A
sealed column has an incarnation, as a collection has; a pair has none. The record header is authenticated, and its name
kind says what the record token is: `BOUND` for the PMAC of the row's primary key, `FREE` for 16 random bytes.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..crypto.envelope import INCARNATION, NAME_KIND, TOKEN, envelope_size, key_versions
from ..crypto.labels import Purpose, derive
from ..data.arrays import Bytes, Matrix
from ..data.metrics import as_vectors
from ..errors import AuthenticationError, ShapeError
from ..keys.keyset import Keyset, KeyVersion
from ..runtime.forks import Mutex
from ..sealing.config import CollectionConfig
from ..sealing.keyring import Keyring
from ..sealing.roots import TenantRoots

__all__ = ["BOUND", "FREE", "ColumnCipher", "KeysetSource", "identity_text", "plain_array", "shown"]

KeysetSource = Keyset | Callable[[], Keyset]

BOUND, FREE = 1, 2
_SHOWN = 80
_LIVES = 64
"""Keyrings that are kept, one for each incarnation."""


class _ColumnRoots(TenantRoots):
    """The roots of one column: they derive from those of its tenant."""

    def __init__(self, keyset: Keyset, tenant: str, place: str) -> None:
        super().__init__(keyset, tenant)
        self._context = (tenant, place)
        self._derived: dict[int, bytes] = {}
        self.watch(self)

    def forget(self) -> None:
        """Drop the derived roots."""
        super().forget()
        self._derived.clear()

    def root(self, version: int, *, naming: bool = False) -> bytes:
        """Return a version's root. Raises KeyUnavailableError, TenantErasedError."""
        root = super().root(version, naming=naming)  # every time: a disabled version raises here
        found = self._derived.get(version)
        if found is None:
            found = self._derived[version] = derive(root, Purpose.ORM_COLUMN, *self._context)
        return found


class ColumnCipher:
    """Encrypts and opens the vectors of one column. It refuses to be pickled, and its repr shows no key."""

    def __init__(self, keyset: KeysetSource, tenant: str, place: str, config: CollectionConfig) -> None:
        self._source = keyset
        self._tenant = tenant
        self.place = place
        self.config = config
        self._roots: _ColumnRoots | None = None
        self._keyrings: dict[bytes, Keyring] = {}
        self._lock = Mutex()

    def __repr__(self) -> str:
        return f"<ColumnCipher of {self.place}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("the cipher of a column holds keys, so it cannot be pickled")

    def __deepcopy__(self, memo: dict[int, Any]) -> ColumnCipher:
        return self

    def keyring(self, incarnation: bytes = b"") -> Keyring:
        """Return the keys of the column in one life of its table.

        They are fetched at first use: a program declares its models before it asks for a passphrase.
        """
        with self._lock:
            if self._roots is None:
                keyset = self._source() if callable(self._source) else self._source
                self._roots = _ColumnRoots(keyset, self._tenant, self.place)
            found = self._keyrings.pop(incarnation, None)
            if found is None:
                found = Keyring(self._roots, self._tenant, self.place, incarnation)
                if len(self._keyrings) >= _LIVES:
                    del self._keyrings[next(iter(self._keyrings))]
            self._keyrings[incarnation] = found
            return found

    @property
    def live(self) -> tuple[int, ...]:
        """The key versions that can open rows, the primary one first."""
        return self.keyring().live

    @property
    def dead(self) -> tuple[int, ...]:
        """The key versions that open nothing any more. Rows of others are opened: a false version is noticed then."""
        return tuple(sorted(self.keyring().dead))

    @property
    def versions(self) -> tuple[KeyVersion, ...]:
        """All key versions, without their root keys."""
        return self.keyring().versions

    def checked(self, vectors: Any, name: str = "vectors") -> Matrix:
        """Return vectors as (n, dim) float32, checked for the column. Raises InputError."""
        array = as_vectors(vectors, self.config.dim, name=name)
        self.config.metric.check(array, self.config.max_norm, name)
        return array

    def seal(self, vectors: Matrix, identities: Sequence[str | None], incarnation: bytes = b"") -> tuple[Matrix, Bytes]:
        """Encrypt n checked vectors.

        Args:
            vectors: (n, dim), from `checked`.
            identities: of the n rows; None where the primary key is not known.
            incarnation: of the table; empty for a pair.

        Returns:
            (n, index_dim) float32 index vectors and (n, size) uint8 envelopes.
        """
        keyring = self.keyring(incarnation)
        codec = keyring.codec(keyring.primary, self.config)
        known = np.array([identity is not None for identity in identities], bool)
        tokens = np.frombuffer(os.urandom(TOKEN * len(vectors)), np.uint8).reshape(-1, TOKEN).copy()
        if known.any():
            tokens[known] = codec.tokens([identity for identity in identities if identity is not None])
        sealed = codec.seal_vectors(tokens, vectors, np.where(known, BOUND, FREE).astype(np.uint16))
        return sealed.index_vectors, sealed.envelopes

    def open(self, rows: Sequence[bytes], *, bound: bool = False) -> Matrix:
        """Open n rows -> (n, dim) float32.

        Args:
            rows: of each row the length of its identity (4 bytes) and the identity. Then, in a sealed column, the
                table's incarnation and the envelope; in a pair, the envelope and the index vector as pgvector sends it.
            bound: refuse rows that are not bound to their primary key.

        Raises:
            AuthenticationError: the key is wrong, or the parts are not those of one row as it was written. Names the
                primary key of the row.
        """
        lengths = [4 + int.from_bytes(row[:4], "big") for row in rows]
        identities = [row[4:end].decode("utf-8", "replace") for row, end in zip(rows, lengths, strict=True)]
        parts = [row[end:] for row, end in zip(rows, lengths, strict=True)]
        try:
            return self._opened_parts(parts, identities, bound)
        except AuthenticationError:
            bad = next((i for i in range(len(rows)) if not self._opens(parts[i], identities[i], bound)), 0)
        key = f" of the row with primary key {shown(identities[bad])}" if identities[bad] else ""
        raise AuthenticationError(f"{self.place}: the vector{key} could not be authenticated")

    def _opens(self, part: bytes, identity: str, bound: bool) -> bool:
        try:
            self._opened_parts([part], [identity], bound)
        except AuthenticationError:
            return False
        return True

    def _opened_parts(self, parts: Sequence[bytes], identities: Sequence[str], bound: bool) -> Matrix:
        split = self._split_pairs if self.config.index_dim else self._split_cells
        incarnation, envelopes, index = split(parts)
        keyring = self.keyring(incarnation)
        vectors: Matrix = keyring.open_vectors(envelopes)
        # The headers are authentic now. Next: do index vector and primary key belong to them?
        versions = key_versions(envelopes)
        kinds = np.ascontiguousarray(envelopes[:, NAME_KIND]).view(">u2").ravel()
        if not ((kinds == BOUND) | ((kinds == FREE) & (not bound))).all():
            _refuse()
        for version in np.unique(versions):
            codec = keyring.codec(int(version), self.config)
            chosen = np.flatnonzero(versions == version)
            if not codec.are_bound(envelopes[chosen], vectors[chosen], index[chosen]).all():
                _refuse()
            known = chosen[kinds[chosen] == BOUND]
            if len(known) and not codec.are_named([identities[i] for i in known], envelopes[known, :TOKEN]).all():
                _refuse()
        return vectors

    def _split_pairs(self, parts: Sequence[bytes]) -> tuple[bytes, Bytes, Matrix]:
        size, dim = envelope_size(self.config.dim), self.config.index_dim
        start, end = size + 4, size + 4 + 4 * dim
        head = struct.pack(">HH", dim, 0)
        if any(len(part) != end or part[size:start] != head for part in parts):
            _refuse()
        joined = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, end)
        index = np.ascontiguousarray(joined[:, start:]).view(">f4").astype(np.float32)
        return b"", np.ascontiguousarray(joined[:, :size]), index

    def _split_cells(self, parts: Sequence[bytes]) -> tuple[bytes, Bytes, Matrix]:
        end = INCARNATION + envelope_size(self.config.dim)
        lives = {part[:INCARNATION] for part in parts}
        if len(lives) > 1 or any(len(part) != end for part in parts):
            _refuse()
        joined = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, end)
        nothing = np.empty((len(parts), 0), np.float32)
        return next(iter(lives), b""), np.ascontiguousarray(joined[:, INCARNATION:]), nothing

    def query(self, query: Any, version: int | None = None) -> Matrix:
        """Encrypt a query (dim,) -> (index_dim,). Raises InputError.

        Args:
            query: (dim,).
            version: of the key; the primary one unless given.
        """
        config = self.config
        checked = as_vectors(plain_array(query, "query")[None], config.dim, name="query")
        keyring = self.keyring()
        codec = keyring.codec(keyring.primary if version is None else version, config)
        points = config.metric.lift_query(checked, config.max_norm)
        encrypted: Matrix = next(iter(codec.encrypt_queries(points).values()))[0]
        return encrypted


def plain_array(value: Any, name: str) -> npt.NDArray[Any]:
    """Return what a caller gave for one vector as an array. Raises ShapeError, which shows no part of the value."""
    # numpy and objects with `__array__` raise anything, and may quote the vector: nothing of it may come along
    with contextlib.suppress(Exception):
        return np.asarray(value)
    raise ShapeError(f"{name} must be numbers in a list or array, got a {type(value).__name__} that numpy cannot read")


def _refuse() -> NoReturn:
    raise AuthenticationError("a record could not be authenticated")


def identity_text(parts: Sequence[str]) -> str:
    """Return the identity of a row: the texts of its key columns, each after its length."""
    return ",".join(f"{len(text)}:{text}" for text in parts)


def shown(identity: str) -> str:
    """Return an identity as an error message shows it: the values of the key, cut where they are long."""
    parts, rest = [], identity
    while rest:
        length, _, rest = rest.partition(":")
        if not length.isdecimal():
            break
        parts.append(rest[: int(length)])
        rest = rest[int(length) + 1 :]
    text = ", ".join(parts)
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
