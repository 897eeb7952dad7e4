"""The bytes of a sealed record: headers, envelopes, and the cipher of one collection and key version.

    header    format u8 | scheme u8 | name kind u16 | revision u32 | key version u32 | noise nonce 16 | binding 16
    envelope  record token 16 | header 44 | GCM nonce 12 | ciphertext | GCM tag 16

Integers are big-endian. A record has two envelopes, sealed under different subkeys: its exact vector (little-endian,
float32 in format 1, float16 in format 2) and its padded payload. The associated data of both is the tuple (format,
purpose, tenant, collection, incarnation), then token and header. The header's binding is a PMAC of token, noise nonce,
exact vector and index vector. So no part of a record can be moved to another record, collection or tenant, to an
earlier collection of the same name, or be joined with a part of another write. Under `sealed` the noise nonce is
random, and so is the binding: two snapshots do not tell whether a vector changed.

AES-256-GCM with random 96-bit nonces (NIST SP 800-38D, 8.2.2): at most 2^32 writes per collection and key version,
which `sealing.limits` counts.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.constant_time import bytes_eq

from ..data.arrays import Bytes, Kept, Matrix
from ..data.ids import Id, id_bytes
from ..data.precision import FORMATS, Precision
from ..errors import AuthenticationError
from .labels import FORMAT, Purpose, derive, encode
from .limits import MOST, check_seals
from .padding import padded, unpadded
from .prf import Pmac

__all__ = [
    "HEADER",
    "INCARNATION",
    "KEY_VERSION",
    "NAME_KIND",
    "PREFIX",
    "TOKEN",
    "Context",
    "RecordCipher",
    "Stamp",
    "bindings_of",
    "envelope_size",
    "headers",
    "is_of",
    "key_version",
    "key_versions",
    "nonces_of",
    "revisions",
]

TOKEN = 16
HEADER = 44
PREFIX = TOKEN + HEADER
INCARNATION = 16
# positions of the header's fields in an envelope
NAME_KIND = slice(TOKEN + 2, TOKEN + 4)
REVISION = slice(TOKEN + 4, TOKEN + 8)
KEY_VERSION = slice(TOKEN + 8, TOKEN + 12)
_NOISE_NONCE = slice(TOKEN + 12, TOKEN + 28)
_BINDING = slice(TOKEN + 28, PREFIX)
_STAMP = 12
"""Bytes at the start of a header that all records of one write share."""
NONCE = 12
TAG = 16

Context = tuple[str, str, bytes]
"""Tenant, collection and incarnation: the context of every subkey of a collection."""


def envelope_size(dim: int, precision: Precision = Precision.SINGLE) -> int:
    """Return the bytes of the envelope of a vector with `dim` coordinates."""
    return PREFIX + NONCE + precision.dtype.itemsize * dim + TAG


@dataclass(frozen=True)
class Stamp:
    """What the headers of one write share."""

    scheme: int
    revision: int
    """Revision of the settings that the write was made under."""
    key_version: int
    precision: Precision = Precision.SINGLE
    name_kind: int = 0
    """What the record token is made from. 0 is a record's id; a mapped column has kinds of its own."""

    def pack(self) -> bytes:
        """Return the first 12 bytes of a header."""
        return struct.pack(
            ">BBHII", self.precision.record_format, self.scheme, self.name_kind, self.revision, self.key_version
        )


def headers(stamp: Stamp, nonces: Bytes, bindings: Bytes) -> Bytes:
    """Build n headers from (n, 16) noise nonces and (n, 16) bindings: (n, HEADER) uint8."""
    out = np.empty((len(nonces), HEADER), np.uint8)
    out[:, :_STAMP] = np.frombuffer(stamp.pack(), np.uint8)
    out[:, _STAMP : _STAMP + 16] = nonces
    out[:, _STAMP + 16 :] = bindings
    return out


def is_of(envelopes: Bytes, scheme: int, precision: Precision) -> bool:
    """Return True if all (n, size) envelopes claim this scheme and precision."""
    common, wanted = _common(envelopes), bytes([precision.record_format, scheme])
    if common is not None:
        return common[:2] == wanted
    return bool((envelopes[:, TOKEN : TOKEN + 2] == np.frombuffer(wanted, np.uint8)).all())


def revisions(envelopes: Bytes) -> tuple[int, int]:
    """Return the smallest and the largest revision that (n, size) envelopes claim; n must be at least 1."""
    common = _common(envelopes)
    if common is not None:
        revision = int.from_bytes(common[4:8], "big")
        return revision, revision
    claimed = np.ascontiguousarray(envelopes[:, REVISION]).view(">u4")
    return int(claimed.min()), int(claimed.max())


def key_version(envelopes: Bytes) -> int | None:
    """Return the key version that (n, size) envelopes claim; None if they differ in a header's first 12 bytes."""
    common = _common(envelopes)
    return None if common is None else int.from_bytes(common[8:], "big")


def key_versions(envelopes: Bytes) -> npt.NDArray[np.int64]:
    """Return the key version that each of (n, size) envelopes claims: (n,) int64."""
    return np.ascontiguousarray(envelopes[:, KEY_VERSION]).view(">u4").reshape(-1).astype(np.int64)


def nonces_of(envelopes: Bytes) -> Bytes:
    """Return the noise nonces of (n, size) envelopes: (n, 16) uint8."""
    return np.ascontiguousarray(envelopes[:, _NOISE_NONCE])


def bindings_of(envelopes: Bytes) -> Bytes:
    """Return the bindings of (n, size) envelopes: (n, 16) uint8."""
    return np.ascontiguousarray(envelopes[:, _BINDING])


def _common(envelopes: Bytes) -> bytes | None:
    """Return the first 12 bytes of the headers of (n, size) envelopes if they are all the same, else None."""
    if not len(envelopes) or envelopes.shape[1] < PREFIX:
        return None
    begun = envelopes[:, TOKEN : TOKEN + _STAMP].tobytes()
    return begun[:_STAMP] if begun == begun[:_STAMP] * len(envelopes) else None


def _precision(envelopes: Bytes) -> Precision:
    """Return the precision that all (n, size) envelopes claim; opening them proves it. Raises AuthenticationError."""
    if not len(envelopes):
        return Precision.SINGLE
    claimed = FORMATS.get(int(envelopes[0, TOKEN])) if envelopes.shape[1] > TOKEN else None
    if claimed is None or (_common(envelopes) is None and (envelopes[:, TOKEN] != envelopes[0, TOKEN]).any()):
        raise AuthenticationError("a record could not be authenticated")
    return claimed


class RecordCipher:
    """Seals and opens the records of one collection under one key version.

    Args:
        root: the root key of the version.
        key_version: its number.
        context: whose keys these are.
    """

    def __init__(self, root: bytes, key_version: int, context: Context) -> None:
        self.key_version = key_version
        self._names = Pmac(derive(root, Purpose.RECORD_TOKEN, *context))
        self._blind = Pmac(derive(root, Purpose.BLIND_TOKEN, *context))
        self._binding = Pmac(derive(root, Purpose.BINDING, *context))
        self._cache = Pmac(derive(root, Purpose.INDEX_CACHE, *context))
        self._vector = AESGCM(derive(root, Purpose.VECTOR, *context))
        self._payload = AESGCM(derive(root, Purpose.PAYLOAD, *context))
        self._vector_prefix = encode(FORMAT, Purpose.VECTOR.value, *context)
        self._payload_prefix = encode(FORMAT, Purpose.PAYLOAD.value, *context)
        self._name, self._sealed = context[1], 0

    def tokens(self, ids: Sequence[Id]) -> Bytes:
        """Record tokens of n ids: (n, 16) uint8."""
        return self._names.tags_of(list(map(id_bytes, ids)))

    def blind_tokens(self, values: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """Blind tokens of n (field, canonical value) pairs."""
        return _rows(self._blind.tags_of([encode(name, value) for name, value in values]))

    def bindings(self, tokens: Bytes, nonces: Bytes, vectors: Kept, index_vectors: Kept) -> Bytes:
        """Tags that bind headers to what was written: (n, 16), (n, 16), (n, dim), (n, index_dim) -> (n, 16) uint8.

        Vectors come as they are stored: float32, or float16 in half precision.
        The exact vector is included, so that two writes of one id have different headers. Otherwise an older vector
        could be put beside a newer payload.
        """
        parts = (np.ascontiguousarray(part).view(np.uint8) for part in (vectors, index_vectors) if part.shape[1])
        return self._binding.tags(tokens, nonces, *parts)

    def cache_tag(self, message: bytes) -> bytes:
        """Return the tag of a description of index files. It keeps forged index files from being parsed."""
        return self._cache.tags_of([message]).tobytes()

    def is_cache_tag(self, message: bytes, tag: bytes) -> bool:
        """Return True if a tag is ours, in constant time."""
        return bytes_eq(self.cache_tag(message), tag)

    def seal_vectors(self, tokens: Bytes, heads: Bytes, vectors: Kept) -> Bytes:
        """Seal n exact vectors: (n, dim) float32, or float16 under headers of half precision -> (n, size) uint8.

        Raises ValueError if headers and vectors have different precisions.
        """
        n, dim = vectors.shape
        precision = Precision.HALF if vectors.dtype == np.float16 else Precision.SINGLE
        if (heads[:, 0] != precision.record_format).any():
            raise ValueError("headers of another precision")
        if self._sealed + n > MOST:  # those of this process; collections count those of all processes in their settings
            check_seals(self._sealed, n, self.key_version, repr(self._name))
        self._sealed += n
        body, prefix, encrypt = PREFIX + NONCE, self._vector_prefix, self._vector.encrypt_into
        out = np.empty((n, envelope_size(dim, precision)), np.uint8)
        out[:, :TOKEN], out[:, TOKEN:PREFIX] = tokens, heads
        out[:, PREFIX:body] = np.frombuffer(os.urandom(NONCE * n), np.uint8).reshape(n, NONCE)
        starts, nonces = _rows(out[:, :PREFIX]), _rows(out[:, PREFIX:body])
        plain = np.ascontiguousarray(vectors).view(np.uint8)
        for place, start, nonce, vector in zip(out[:, body:], starts, nonces, plain, strict=True):
            encrypt(nonce, vector, prefix + start, place)
        return out

    def open_vectors(self, envelopes: Bytes) -> Matrix:
        """Open n vector envelopes: (n, size) uint8 -> (n, dim) float32. Raises AuthenticationError."""
        n, size = envelopes.shape
        body = PREFIX + NONCE
        precision = _precision(envelopes)
        dim, rest = divmod(size - body - TAG, precision.dtype.itemsize)
        if rest or dim <= 0:
            raise AuthenticationError("a record could not be authenticated")
        envelopes = np.ascontiguousarray(envelopes)
        starts, nonces = _rows(envelopes[:, :PREFIX]), _rows(envelopes[:, PREFIX:body])
        decrypt, prefix = self._vector.decrypt_into, self._vector_prefix
        out = np.empty((n, dim), precision.dtype)
        try:
            for place, start, nonce, sealed in zip(
                out.view(np.uint8), starts, nonces, envelopes[:, body:], strict=True
            ):
                decrypt(nonce, sealed, prefix + start, place)
        except InvalidTag:
            raise AuthenticationError("a record could not be authenticated") from None
        return out.astype(np.float32, copy=False)

    def seal_payloads(self, tokens: Bytes, heads: Bytes, payloads: Sequence[bytes]) -> list[bytes]:
        """Pad and seal n payloads into envelopes."""
        starts = _rows(np.concatenate([tokens, heads], axis=1))
        nonces = os.urandom(NONCE * len(payloads))
        encrypt, prefix = self._payload.encrypt, self._payload_prefix
        sealed = []
        for i, (start, payload) in enumerate(zip(starts, payloads, strict=True)):
            nonce = nonces[i * NONCE : (i + 1) * NONCE]
            sealed.append(start + nonce + encrypt(nonce, padded(payload), prefix + start))
        return sealed

    def open_payloads(self, envelopes: Sequence[bytes]) -> list[bytes]:
        """Open n payload envelopes, in order. Raises AuthenticationError."""
        body, decrypt, prefix = PREFIX + NONCE, self._payload.decrypt, self._payload_prefix
        try:
            return [
                unpadded(decrypt(envelope[PREFIX:body], envelope[body:], prefix + envelope[:PREFIX]))
                for envelope in envelopes
            ]
        except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
            raise AuthenticationError("a record could not be authenticated") from None


def _rows(array: Bytes) -> list[bytes]:
    """Split (n, width) uint8 into n byte strings."""
    found: list[bytes] = np.ascontiguousarray(array).view(f"V{array.shape[1]}").reshape(-1).tolist()
    return found
