"""What the tests of the faiss store share: a fake authenticator, random batches, and comparison with the oracle."""

import hashlib
import hmac
from pathlib import Path

import numpy as np

from encvec_store.indexes.faiss import FaissBackend
from encvec_store.storage.memory import MemoryBackend
from encvec_store.storage.protocol import BackendCollection, CollectionSpec, EncryptedBatch

DIM, WIDTH = 8, 40
SPEC = CollectionSpec("acme", "faces", DIM, WIDTH)
CONFIG = b"settings"


class Authenticator:
    """As the keyed one of the store, with a key that is no secret."""

    def __init__(self, key=b"key"):
        self.key = key

    def tag(self, message):
        return hmac.digest(self.key, message, "sha256")

    def check(self, message, tag):
        return hmac.compare_digest(self.tag(message), tag)

    def outlived(self, tag):
        return False


def token(name):
    return hashlib.sha256(str(name).encode()).digest()[:16]


def tokens(names):
    joined = b"".join(token(name) for name in names)
    return np.frombuffer(joined, np.uint8).reshape(len(names), 16)


def batch(names, *, space=1, seed=0, terms=(), retired=(), spec=SPEC):
    """Records with these names and contents that depend on name and seed."""
    rng = np.random.default_rng([seed, *(hash_of(name) for name in names)])
    n = len(names)
    return EncryptedBatch(
        np.broadcast_to(np.int64(space), n),
        tokens(names),
        rng.standard_normal((n, spec.index_dim)).astype(np.float32),
        rng.integers(0, 256, (n, spec.envelope_size), np.uint8),
        [rng.bytes(int(rng.integers(0, 50))) for _ in range(n)],
        list(terms),
        [token(name) for name in retired],
    )


def hash_of(name):
    return int.from_bytes(token(name)[:4], "big")


def connect(folder: Path, *, authenticator=None, **options) -> tuple[FaissBackend, BackendCollection]:
    """Open a store, and the collection in it, made if need be."""
    backend = FaissBackend(f"faiss://{folder}", **options)
    collection = backend.create(SPEC, CONFIG)
    collection.authenticate_cache(authenticator or Authenticator())
    return backend, collection


def oracle() -> BackendCollection:
    return MemoryBackend("memory:").create(SPEC, CONFIG)


def named(collection, rows):
    """Tokens of rows: row numbers differ from store to store."""
    return [found[2] for found in collection.audit(rows)]


def content(collection):
    """Everything there is, by token."""
    rows = collection.rows()
    audit = collection.audit(rows)
    assert [found[0] for found in audit] == rows.tolist()
    parts = []
    for read in (collection.vectors, collection.payloads, collection.index_vectors):
        found, values = read(rows)
        assert found.tolist() == rows.tolist()
        parts.append([bytes(value) for value in values])
    return {name: (space, terms, *values) for (_, space, name, terms), *values in zip(audit, *parts, strict=True)}


def agree(collection, expected, *, queries=3, limits=(1, 5, 1000), spaces=(1, 2), predicates=(None,), exact=True):
    """Assert that a collection answers everything as the oracle does."""
    assert content(collection) == content(expected)
    assert collection.count() == expected.count()
    assert collection.spaces() == expected.spaces()
    asked = np.random.default_rng(expected.count()).standard_normal((queries, DIM)).astype(np.float32)
    for predicate in predicates:
        have = collection.rows(predicate)
        assert have.tolist() == sorted(have.tolist())
        assert set(named(collection, have)) == set(named(expected, expected.rows(predicate))), predicate
        for space in spaces:
            for limit in limits:
                got = [named(collection, rows) for rows in collection.candidates({space: asked}, limit, predicate)]
                want = [named(expected, rows) for rows in expected.candidates({space: asked}, limit, predicate)]
                assert [len(line) for line in got] == [len(line) for line in want]
                assert all(len(set(line)) == len(line) for line in got)
                if exact:
                    assert got == want
