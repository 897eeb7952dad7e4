"""Keyset files for tests."""

from encvec_store.keys import Keyset

PASSPHRASE = "correct horse"


def create(path):
    return Keyset.create(f"file:{path}", passphrase=PASSPHRASE)


def reopen(path, passphrase=PASSPHRASE):
    return Keyset.open(f"file:{path}", passphrase=passphrase)
