"""Wrappers of keysets, one per file: each finds the key that encrypts a keyset."""
