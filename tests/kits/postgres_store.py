"""Batches, an oracle beside the store and its index, and statements past them, for the tests of PostgreSQL."""

import contextlib
import dataclasses

import numpy as np
import psycopg

from encvec_store.indexes.pgvector import PgvectorIndex
from encvec_store.storage import CollectionSpec, EncryptedBatch, MemoryStore
from encvec_store.storage.postgres import PostgresStore

DIM, SIZE = 8, 40


class Both:
    """The records of a collection and an index over them, as one."""

    def __init__(self, records, index):
        self.records, self.index = records, index
        self.candidates, self.explain = index.candidates, index.explain

    def __getattr__(self, name):
        return getattr(self.records, name)

    def nearest(self, *given):
        return self.index.nearest(*given)

    def check(self):
        return self.records.check() + self.index.check()

    def flush(self):
        self.index.flush()
        self.records.flush()

    def stats(self):
        records, index = self.records.stats(), self.index.stats()
        return {**records, **index, "bytes": {**records["bytes"], **index["bytes"]}}


class Exact:
    """An index that compares everything, and so cannot be wrong."""

    def __init__(self, records):
        self.records = records

    def candidates(self, probes, limit, predicate=None):
        rows = self.records.rows(predicate)
        partitions = np.array([partition for _, partition, _, _ in self.records.audit(rows)], np.int64)
        lists = []
        for n in range(len(next(iter(probes.values())))):
            parts = []
            for partition, queries in probes.items():
                some = rows[partitions == partition]
                vectors = self.records.index_vectors(some)[1]
                parts += zip(*(-vectors @ queries[n], some) if vectors.shape[1] else (), strict=True)
            lists.append(np.array([row for _, row in sorted(parts)[:limit]], np.int64))
        return lists

    explain = nearest = None

    def check(self):
        return []


def both(records):
    """Put a pgvector index beside records."""
    return Both(records, PgvectorIndex(records))


def batch(seed, n, *, partition=1, dim=DIM, size=SIZE, tokens=None, **more):
    """Return a batch of n records made from a seed."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) if dim else 1
    tokens = rng.integers(0, 256, (n, 16), np.uint8) if tokens is None else tokens
    payloads = [rng.bytes(int(length)) for length in rng.integers(0, 90, n)]
    partitions = np.broadcast_to(np.int64(partition), n)
    return EncryptedBatch(partitions, tokens, vectors, rng.integers(0, 256, (n, size), np.uint8), payloads, **more)


def again(some, first=1):
    """Return a batch as `replace` takes it: its records have rows already, from `first` on, or those of an array."""
    n = len(some.payloads)
    rows = np.arange(first, first + n) if isinstance(first, int) else np.asarray(first, np.int64)
    return dataclasses.replace(some, rows=rows)


def spec(name="things", dim=DIM, size=SIZE):
    return CollectionSpec("tenant", name, dim, size)


@contextlib.contextmanager
def opened(dsn, *, dim=DIM, size=SIZE, name="things", **options):
    """Yield (store, collection) over a database."""
    store = PostgresStore(dsn, **options)
    try:
        yield store, both(store.create(spec(name, dim, size), b"settings"))
    finally:
        store.close()


def oracle(dim=DIM, size=SIZE):
    records = MemoryStore().create(spec(dim=dim, size=size), b"settings")
    return Both(records, Exact(records))


def ask(dsn, statement, *values):
    """Run one statement on a connection of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


def sound(collection, expected):
    """Check every record of a collection against the oracle's."""
    rows = expected.rows()
    np.testing.assert_array_equal(collection.rows(), rows)
    assert collection.partitions() == expected.partitions()
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
