"""Writes, reads and searches of one open collection."""
