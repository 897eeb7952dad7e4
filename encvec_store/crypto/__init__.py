"""Cryptographic primitives: subkeys, tags, envelopes, sealed blobs, padding."""

from __future__ import annotations

from .blobs import BlobCipher
from .envelope import HEADER, PREFIX, TOKEN, RecordCipher, Stamp, headers
from .labels import Purpose, derive, encode
from .prf import Keystream, Pmac

__all__ = [
    "HEADER",
    "PREFIX",
    "TOKEN",
    "BlobCipher",
    "Keystream",
    "Pmac",
    "Purpose",
    "RecordCipher",
    "Stamp",
    "derive",
    "encode",
    "headers",
]
