"""The contract, kept by comparing everything."""

import itertools
from contextlib import closing

import pytest

from encvec_store.errors import UriError
from encvec_store.indexes.exact import ExactIndex, connect
from encvec_store.storage import MemoryStore
from encvec_store.storage.sqlite import SqliteStore
from tests.indexes.contract import IndexContract
from tests.kits.indexes import Place


class Kept:
    """A memory store that stays when one of those who opened it closes it."""

    def __init__(self):
        store = MemoryStore()
        self.create, self.open, self.drop, self.collections = store.create, store.open, store.drop, store.collections

    def close(self):
        pass


class TestExactInMemory(IndexContract):
    @pytest.fixture
    def place(self):
        store = Kept()
        with closing(Place(lambda: store, ExactIndex)) as place:
            yield place


class TestExactOverSqlite(IndexContract):
    @pytest.fixture
    def place(self, tmp_path):
        with closing(Place(lambda: SqliteStore(tmp_path), ExactIndex)) as place:
            yield place


@pytest.mark.parametrize("url", ["memory:", "memory://"])
def test_url(url):
    connection = connect(url)
    assert connection.store.url == "memory:"
    assert connection.device == "cpu"
    assert connection.store.collections() == []


@pytest.mark.parametrize(("url", "options"), [("memory:here", {}), ("memory:?a=1", {}), ("memory:", {"index": "hnsw"})])
def test_it_takes_no_path_or_options(url, options):
    with pytest.raises(UriError, match="takes no path or options"):
        connect(url, **options)


def test_every_connection_is_a_store_of_its_own():
    stores = [connect("memory:").store for _ in range(2)]
    assert all(a is not b for a, b in itertools.pairwise(stores))
