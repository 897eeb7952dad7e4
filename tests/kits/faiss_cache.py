"""A faiss store with saved index files, and what FAISS parses of them."""

import pytest

from encvec_store.indexes.faiss import ann
from tests.kits.faiss_store import (
    CONFIG,
    batch,
    connect,
    oracle,
    tokens,
)


def saved(folder, n=200, **options):
    """A store that was filled, searched, saved and closed; and its oracle."""
    store = connect(folder, **options)
    expected = oracle()
    for collection in (store, expected):
        collection.put(batch(range(n)), under=CONFIG)
        collection.put(batch(range(n, n + 30), partition=2), under=CONFIG)
        collection.remove(collection.find(tokens(range(10))))
    store.flush()
    store.close()
    return expected


def files(folder):
    return sorted(path.name for path in (folder / "index" / "1").iterdir())


@pytest.fixture
def parsed(monkeypatch):
    """What FAISS was given to parse."""
    seen, read = [], ann.AnnIndex.read.__func__

    def spy(cls, data, *rest):
        seen.append(data)
        return read(cls, data, *rest)

    monkeypatch.setattr(ann.AnnIndex, "read", classmethod(spy))
    return seen
