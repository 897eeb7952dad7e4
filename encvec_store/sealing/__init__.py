"""Turns plaintext records into stored bytes and back: settings, keyring, record codec."""

from __future__ import annotations

from .codec import RecordCodec
from .config import DEFAULT_OVERSAMPLE, DEFAULT_SCHEME, RANKED_SCHEME, CollectionConfig
from .keyring import Keyring
from .roots import TenantRoots

__all__ = [
    "DEFAULT_OVERSAMPLE",
    "DEFAULT_SCHEME",
    "RANKED_SCHEME",
    "CollectionConfig",
    "Keyring",
    "RecordCodec",
    "TenantRoots",
]
