"""What tests of record stores and of vector indexes share: random batches, and one who follows a collection."""

import hashlib

import numpy as np

from encvec_store.storage import CollectionSpec, EncryptedBatch

DIM, WIDTH = 8, 40
SPEC = CollectionSpec("acme", "faces", DIM, WIDTH)
CONFIG = b"settings"


def token(name):
    return hashlib.sha256(str(name).encode()).digest()[:16]


def tokens(names):
    joined = b"".join(token(name) for name in names)
    return np.frombuffer(joined, np.uint8).reshape(len(names), 16)


def batch(names, *, partition=1, seed=0, terms=(), retired=(), spec=SPEC, rows=None):
    """Records with these names and contents that depend on name and seed."""
    rng = np.random.default_rng([seed, *(hash_of(name) for name in names)])
    n = len(names)
    return EncryptedBatch(
        np.broadcast_to(np.int64(partition), n),
        tokens(names),
        rng.standard_normal((n, spec.index_dim)).astype(np.float16 if spec.half else np.float32),
        rng.integers(0, 256, (n, spec.envelope_size), np.uint8),
        [rng.bytes(int(rng.integers(0, 50))) for _ in range(n)],
        list(terms),
        [token(name) for name in retired],
        rows,
    )


def kept(records, names, **given):
    """A batch for `replace`: records that are there, under the rows they have."""
    rows = records.find(tokens(names))
    assert rows.all()
    return batch(names, rows=rows, **given)


def hash_of(name):
    return int.from_bytes(token(name)[:4], "big")


def content(records):
    """Everything there is, by token."""
    rows = records.rows()
    audit = records.audit(rows)
    assert [found[0] for found in audit] == rows.tolist()
    parts = []
    for read in (records.vectors, records.payloads, records.index_vectors):
        found, values = read(rows)
        assert found.tolist() == rows.tolist()
        parts.append([bytes(value) for value in values])
    return {
        name: (partition, terms, *values) for (_, partition, name, terms), *values in zip(audit, *parts, strict=True)
    }


def of_batch(made):
    """The same of a batch: what `content` says once it was written."""
    terms = [set() for _ in made.payloads]
    for position, field, term in made.terms:
        terms[position].add((field, term))
    index_vectors = made.index_vectors.astype(np.float32)
    return {
        made.tokens[i].tobytes(): (
            int(made.partitions[i]),
            terms[i],
            bytes(made.vectors[i]),
            payload,
            bytes(index_vectors[i]),
        )
        for i, payload in enumerate(made.payloads)
    }


def by_partition(records):
    """The rows there are, read by `audit`."""
    partitions = {}
    for row, partition, _, _ in records.audit(records.rows()):
        partitions.setdefault(partition, set()).add(row)
    return partitions


class Follower:
    """Knows the rows of a collection by what `changes` says."""

    def __init__(self):
        self.generation, self.content, self.stamp = -1, 0, None
        self.partitions = {}
        self.index_dim = None

    def follow(self, records, *, stamp=None):
        """Learn what happened. Returns the changes."""
        changes = records.changes(self.generation, self.content, stamp=stamp)
        if changes is None:
            return None
        added = {partition: set(rows.tolist()) for partition, rows in changes.added.items()}
        removed = set(changes.removed.tolist())
        for rows in (*changes.added.values(), changes.removed):
            assert rows.dtype == np.int64
            assert rows.tolist() == sorted(set(rows.tolist())), "ascending"
        assert all(rows < changes.next_row for rows in set().union(*added.values()))
        if changes.whole:
            assert not removed
            self.partitions = added
        else:
            known = set().union(*self.partitions.values())
            assert removed <= known
            assert not known & set().union(*added.values())
            for partition in {*added, *self.partitions}:
                self.partitions[partition] = self.partitions.get(partition, set()) - removed | added.get(
                    partition, set()
                )
        self.partitions = {partition: rows for partition, rows in self.partitions.items() if rows}
        self.generation, self.content, self.stamp = changes.generation, changes.content, changes.stamp
        self.index_dim = changes.index_dim
        return changes

    def copy(self):
        made = Follower()
        made.__dict__.update(self.__dict__)
        made.partitions = {partition: set(rows) for partition, rows in self.partitions.items()}
        return made
