"""A PostgreSQL store of 6,000 records, made once and copied for each test, and its exact answers."""

import numpy as np
import pytest

from encvec_store.data import Range, Term
from tests.kits.postgres_store import batch, opened

DIM, N = 32, 6_000
BROAD = Range("n", "number", 0.0, 3000.0)
NARROW = Range("n", "number", 100.0, 119.0)
QUERIES = batch(2, 20, dim=DIM).index_vectors


def numbered(seed, n, **more):
    return batch(seed, n, dim=DIM, terms=[(i, "n", Term("number", float(i))) for i in range(n)], **more)


def exact(vectors, queries, limit, chosen=None):
    """Rows nearest by inner product, where row i + 1 has vector i."""
    similar = queries @ vectors.T
    if chosen is not None:
        similar[:, ~chosen] = -np.inf
    return np.argsort(-similar, kind="stable")[:, :limit] + 1


def recall(found, truth):
    return np.mean([len(set(a.tolist()) & set(b.tolist())) / len(b) for a, b in zip(found, truth, strict=True)])


@pytest.fixture(scope="session")
def big(pg_server, pg_template):
    """A database with 6,000 records, and their vectors."""
    name = f"{pg_template}_index"
    pg_server.execute("CREATE DATABASE {} TEMPLATE {}", name, pg_template)
    written = numbered(1, N)
    with opened(pg_server.dsn(name), dim=DIM, index="none") as (_, collection):
        collection.put(written, under=b"settings")
    yield name, written.index_vectors
    pg_server.drop(name)


@pytest.fixture
def filled(big, pg_server, pg_template):
    """A copy of it."""
    name, vectors = big
    copy = f"{name}_copy"
    pg_server.execute("CREATE DATABASE {} TEMPLATE {}", copy, name)
    yield pg_server.dsn(copy), vectors
    pg_server.drop(copy)
