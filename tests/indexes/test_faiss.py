"""The contract, kept by FAISS over every store of this package that needs no server."""

from contextlib import closing
from pathlib import Path

import pytest

from encvec_store.indexes.faiss import FaissIndex, FaissOptions
from encvec_store.indexes.protocol import BringsEnvelopes, KeepsEnvelopes, KeepsFiles
from encvec_store.storage.sqlite import SqliteStore
from tests.indexes.contract import IndexContract
from tests.indexes.test_exact import Kept
from tests.kits.faiss_store import Authenticator
from tests.kits.indexes import Place
from tests.kits.records import CONFIG, batch


def made(folder=None, **options):
    """A function that makes an index over records."""

    def index(records):
        files = None if folder is None else folder / "index" / str(getattr(records, "collection", 1))
        index = FaissIndex(records, files, FaissOptions(**options))
        index.authenticate(Authenticator())
        return index

    return index


class TestFaissInMemory(IndexContract):
    @pytest.fixture
    def place(self):
        store = Kept()
        with closing(Place(lambda: store, made())) as place:
            yield place

    def test_it_has_these_capabilities(self, index):
        assert isinstance(index, BringsEnvelopes)
        assert isinstance(index, KeepsEnvelopes)
        assert isinstance(index, KeepsFiles)

    def test_no_folder_no_files(self, index, records, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        records.put(batch(range(50)), under=CONFIG)
        self.agrees(index, records)
        index.flush()
        assert list(Path(tmp_path).iterdir()) == []
        assert index.stats()["bytes"] == {"index": 0, "vectors": 0}


class TestFaissOverSqlite(IndexContract):
    @pytest.fixture
    def place(self, tmp_path):
        with closing(Place(lambda: SqliteStore(tmp_path), made(tmp_path))) as place:
            yield place


class TestGraphsOverSqlite(IndexContract):
    """With so small a limit nearly everything goes through HNSW."""

    exact = False

    @pytest.fixture
    def place(self, tmp_path):
        with closing(Place(lambda: SqliteStore(tmp_path), made(tmp_path, flat_limit=4, mapped=False))) as place:
            yield place
