"""Batches, an oracle beside the backend, and statements past it, for the tests of the PostgreSQL backend."""

import contextlib

import numpy as np
import psycopg

from encvec_store.storage import CollectionSpec, EncryptedBatch
from encvec_store.storage.memory import MemoryBackend
from encvec_store.storage.postgres import PgvectorBackend

DIM, SIZE = 8, 40


def batch(seed, n, *, space=1, dim=DIM, size=SIZE, tokens=None, **more):
    """Return a batch of n records made from a seed."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) if dim else 1
    tokens = rng.integers(0, 256, (n, 16), np.uint8) if tokens is None else tokens
    payloads = [rng.bytes(int(length)) for length in rng.integers(0, 90, n)]
    spaces = np.broadcast_to(np.int64(space), n)
    return EncryptedBatch(spaces, tokens, vectors, rng.integers(0, 256, (n, size), np.uint8), payloads, **more)


def spec(name="things", dim=DIM, size=SIZE):
    return CollectionSpec("tenant", name, dim, size)


@contextlib.contextmanager
def opened(dsn, *, dim=DIM, size=SIZE, name="things", **options):
    """Yield (backend, collection) over a database."""
    backend = PgvectorBackend(dsn, **options)
    try:
        yield backend, backend.create(spec(name, dim, size), b"settings")
    finally:
        backend.close()


def oracle(dim=DIM, size=SIZE):
    return MemoryBackend("memory:").create(spec(dim=dim, size=size), b"settings")


def ask(dsn, statement, *values):
    """Run one statement on a connection of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


def sound(collection, expected):
    """Check every record of a collection against the oracle's."""
    rows = expected.rows()
    np.testing.assert_array_equal(collection.rows(), rows)
    assert collection.spaces() == expected.spaces()
    assert collection.count() == len(rows)
    assert collection.config() == expected.config()
    asked = np.concatenate([rows[::-1], [10**12]])
    for part in ("vectors", "payloads", "index_vectors")[: 3 if collection.spec.index_dim else 2]:
        found, data = getattr(collection, part)(asked)
        wanted, truth = getattr(expected, part)(asked)
        np.testing.assert_array_equal(found, wanted)
        if part == "payloads":
            assert data == truth
        else:
            np.testing.assert_array_equal(data, truth)
            assert data.dtype == truth.dtype
    assert collection.audit(asked) == expected.audit(asked)
    assert collection.check() == []
