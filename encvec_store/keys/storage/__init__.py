"""Storages of keysets, one per file. They read and write bytes and do no cryptography."""
