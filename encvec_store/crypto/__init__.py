"""Cryptographic primitives: subkeys, tags, envelopes, sealed blobs, padding."""
