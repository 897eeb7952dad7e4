"""What the tests of FAISS share: a fake authenticator, records with their index, and comparison with the oracle."""

import hmac
from pathlib import Path

import numpy as np

from encvec_store.indexes import exact, faiss
from tests.kits.records import CONFIG, DIM, SPEC, WIDTH, batch, content, kept, token, tokens

__all__ = [
    "CONFIG",
    "DIM",
    "SPEC",
    "WIDTH",
    "Authenticator",
    "Both",
    "agree",
    "batch",
    "connect",
    "content",
    "kept",
    "named",
    "oracle",
    "token",
    "tokens",
]


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


class Both:
    """Records and the index over them, as a session has them."""

    def __init__(self, connection, spec=SPEC, authenticator=None):
        self.store = connection.store
        self.records = connection.store.create(spec, CONFIG)
        self.index = connection.index(self.records)
        if hasattr(self.index, "authenticate"):
            self.index.authenticate(authenticator or Authenticator())

    def __getattr__(self, name):
        return getattr(self.records, name)

    def candidates(self, *given):
        return self.index.candidates(*given)

    def flush(self):
        self.index.flush()
        self.records.flush()

    def check(self):
        return self.records.check() + self.index.check()

    def close(self):
        self.index.close()
        self.store.close()


def connect(folder: Path, *, authenticator=None, **options) -> Both:
    """Open a store, and the collection in it, made if need be."""
    return Both(faiss.connect(f"faiss://{folder}", **options), authenticator=authenticator)


def oracle() -> Both:
    return Both(exact.connect("memory:"))


def named(both, rows):
    """Tokens of rows: row numbers differ from store to store."""
    return [found[2] for found in both.records.audit(rows)]


def agree(both, expected, *, queries=3, limits=(1, 5, 1000), partitions=(1, 2), predicates=(None,), exact=True):
    """Assert that a collection answers everything as the oracle does."""
    assert content(both.records) == content(expected.records)
    assert both.count() == expected.count()
    assert both.partitions() == expected.partitions()
    asked = np.random.default_rng(expected.count()).standard_normal((queries, DIM)).astype(np.float32)
    for predicate in predicates:
        have = both.rows(predicate)
        assert have.tolist() == sorted(have.tolist())
        assert set(named(both, have)) == set(named(expected, expected.rows(predicate))), predicate
        for partition in partitions:
            for limit in limits:
                got = [named(both, rows) for rows in both.candidates({partition: asked}, limit, predicate)]
                want = [named(expected, rows) for rows in expected.candidates({partition: asked}, limit, predicate)]
                assert [len(line) for line in got] == [len(line) for line in want]
                assert all(len(set(line)) == len(line) for line in got)
                if exact:
                    assert got == want
