"""The contract, kept by the async API of every store."""

import asyncio
import itertools
from contextlib import closing

import pytest

from encvec_store import Store, aio
from tests.kits.synced import Loop
from tests.stores.contract import SameSchemeContract, SealedFixtures, machine
from tests.stores.contract.races import RacesContract
from tests.stores.contract.records import RecordContract
from tests.stores.contract.search import SearchContract
from tests.stores.contract.updating import UpdateContract
from tests.stores.test_faiss import OpenedFaiss
from tests.stores.test_memory import OpenedMemory
from tests.stores.test_pgvector import OpenedPostgres


@pytest.fixture(scope="module")
def loop():
    loop = Loop()
    yield loop
    loop.close()


class AsyncMemory(OpenedMemory):
    def __init__(self, keyset, loop):
        super().__init__(keyset)
        self.loop = loop

    def open(self, keyset):
        async def over_the_same_backend():
            return aio.AsyncStore(Store(self._connection, keyset, maintenance="inline"), asyncio.to_thread)

        return self.loop.run(over_the_same_backend())


class AsyncFaiss(OpenedFaiss):
    def __init__(self, keyset, loop, folder):
        super().__init__(keyset, folder)
        self.loop = loop

    def open(self, keyset):
        return self.loop.connect(f"faiss:{self.folder}", keyset=keyset, maintenance="inline", **self.options)


class AsyncPostgres(OpenedPostgres):
    def __init__(self, keyset, loop, url, schema):
        super().__init__(keyset, url, schema)
        self.loop = loop

    def another(self):
        return type(self)(self.keyset, self.loop, self.url, f"{self.schema}_another")

    def open(self, keyset):
        return self.loop.connect(self.url, keyset=keyset, schema=self.schema, maintenance="inline")


class TestAsyncMemory(RacesContract, SameSchemeContract):
    @pytest.fixture
    def place(self, keyset, loop):
        return AsyncMemory(keyset, loop)


class TestAsyncFaiss(RacesContract, SameSchemeContract):
    @pytest.fixture
    def place(self, keyset, loop, tmp_path):
        with closing(AsyncFaiss(keyset, loop, tmp_path / "data")) as place:
            yield place


class InPostgres:
    @pytest.fixture
    def place(self, keyset, loop, pg_place):
        with closing(AsyncPostgres(keyset, loop, pg_place.dsn, pg_place.schema)) as place:
            yield place


class TestAsyncSealed(InPostgres, RecordContract, SearchContract, UpdateContract, SealedFixtures):
    """Loading and building beside the loop have tests of their own in `sealed_index/test_async.py`."""


class TestAsyncPgvector(InPostgres, RacesContract, SameSchemeContract):
    def test_random_histories(self, loop, pg_place):
        schemas = (f"{pg_place.schema}_{n}" for n in itertools.count())
        machine.run(lambda keyset: AsyncPostgres(keyset, loop, pg_place.dsn, next(schemas)), examples=5)
