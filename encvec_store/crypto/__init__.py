"""Cryptographic primitives: subkeys, tags, envelopes, sealed blobs, sealed index segments, padding."""

from __future__ import annotations

from .blobs import BlobCipher
from .envelope import HEADER, PREFIX, TOKEN, RecordCipher, Stamp, headers
from .labels import Purpose, derive, encode, tenant_root
from .prf import Keystream, Pmac
from .segments import SegmentCipher

__all__ = [
    "HEADER",
    "PREFIX",
    "TOKEN",
    "BlobCipher",
    "Keystream",
    "Pmac",
    "Purpose",
    "RecordCipher",
    "SegmentCipher",
    "Stamp",
    "derive",
    "encode",
    "headers",
    "tenant_root",
]
