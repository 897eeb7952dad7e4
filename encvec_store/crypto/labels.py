"""The table of key purposes, the canonical encoding, and HKDF (RFC 5869).

Every subkey is HKDF-SHA256 of a root over `encode(FORMAT, purpose, *context)`. Parts are typed and length-prefixed,
so ("a", "b-c") and ("a-b", "c") differ, and no subkey has two purposes.
"""

from __future__ import annotations

from enum import StrEnum

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["FORMAT", "Purpose", "derive", "encode", "tenant_root"]

FORMAT = "encvec/1"


class Purpose(StrEnum):
    """What a subkey is for.

    The context is (tenant, collection, incarnation). For the scheme's keys, (scheme, parameters) follow.
    """

    CONFIG = "config"
    """AES-256-GCM of a collection's settings."""
    BLOB = "blob"
    """AES-256-GCM of blobs beside a collection's settings and records: a scheme's profile."""
    RECORD_TOKEN = "record-token"
    """PMAC of a record's id, which stands in for the id in the store."""
    BLIND_TOKEN = "blind-token"
    """PMAC of (field, value), which the store compares for a blind field."""
    VECTOR = "vector"
    """AES-256-GCM of the exact vector."""
    PAYLOAD = "payload"
    """AES-256-GCM of id, metadata and document."""
    BINDING = "binding"
    """PMAC of (record token, noise nonce, exact vector, index vector), in the record's header."""
    ROTATION = "rotation"
    """AES-CTR keystream from which the orthogonal transform is drawn."""
    SCALE = "scale"
    """AES-CTR keystream from which the scale is drawn."""
    NOISE_NONCE = "noise-nonce"
    """PMAC of (record token, point): the nonce of a record's noise."""
    NOISE = "noise"
    """AES-CTR keystream from which a record's noise is drawn."""
    QUERY_NOISE_NONCE = "query-noise-nonce"
    """PMAC of a query point: the nonce of a query's noise."""
    QUERY_NOISE = "query-noise"
    """AES-CTR keystream from which a query's noise is drawn."""
    CELL = "cell"
    """PMAC of a record token: the cell it belongs to."""
    INDEX_CACHE = "index-cache"
    """PMAC over the digests of index files, so that a forged file is never parsed."""
    INDEX = "index"
    """AES-256-GCM of the segments and manifests of a sealed index."""
    CHANGE = "change"
    """AES-256-GCM of a change of scheme that is under way: its plan, and pages of records."""
    READ_CACHE = "read-cache"
    """AES-256-GCM of sealed records that a client keeps in a local file, so that it reads each only once."""
    BUCKET = "bucket"
    """PMAC of a row number: its place in the order by which rows are put into buckets."""
    NAME_KEY = "name-key"
    """AES-256-GCM of a store's name key, which has no context: its key is that of a key version."""
    TENANT_TOKEN = "tenant-token"
    """HMAC-SHA256 of a tenant, under a name key: the token that stands for it."""
    NAME_TOKEN = "name-token"
    """HMAC-SHA256 of tenant and collection, under a name key: the token that stands for the collection's name."""
    NAME = "name"
    """AES-256-GCM of the names of tenant and collection, under a name key."""
    TENANT = "tenant"
    """The root of one tenant that has a key of its own: `tenant_root`. All keys of its collections derive from it."""
    ORM_COLUMN = "orm-column"
    """The root of one mapped column. All its subkeys derive from it, so it shares none with a collection."""


def encode(*parts: str | bytes | int) -> bytes:
    """Encode a tuple so that different tuples differ: per part a type byte, a 32-bit big-endian length, the bytes."""
    out = bytearray()
    for part in parts:
        if isinstance(part, str):
            tag, body = b"s", part.encode()
        elif isinstance(part, bytes):
            tag, body = b"b", part
        else:
            tag, body = b"i", str(part).encode()
        out += tag + len(body).to_bytes(4, "big") + body
    return bytes(out)


def derive(root: bytes, purpose: Purpose, *context: str | bytes | int) -> bytes:
    """Derive the 32-byte subkey of `root` for one purpose and context."""
    info = encode(FORMAT, purpose.value, *context)
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(root)


def tenant_root(root: bytes, secret: bytes, tenant: str) -> bytes:
    """Derive the 32-byte root of one tenant from a root of the keyset and the tenant's secret of 32 bytes.

    The secret is the salt of HKDF, that is the key of HMAC in its first step. So without it nobody can derive the root,
    even with the root of the keyset; and without that root, the secret alone derives nothing.
    """
    info = encode(FORMAT, Purpose.TENANT.value, tenant)
    return HKDF(algorithm=SHA256(), length=32, salt=secret, info=info).derive(root)
