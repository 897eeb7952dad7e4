"""The contract, kept by the async API of every store."""

import asyncio
import itertools

import pytest

from encvec_store import Store, aio
from tests.stores import machine
from tests.stores.contract import StoreContract
from tests.stores.races import RacesContract
from tests.stores.synced import Loop
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

    def connect(self, keyset=None):
        async def over_the_same_backend():
            return aio.AsyncStore(Store(self._backend, keyset or self.keyset), asyncio.to_thread)

        return self.loop.run(over_the_same_backend())


class AsyncFaiss(OpenedFaiss):
    def __init__(self, keyset, loop, folder):
        super().__init__(keyset, folder)
        self.loop = loop

    def connect(self, keyset=None):
        return self.loop.connect(f"faiss:{self.folder}", keyset=keyset or self.keyset, **self.options)


class AsyncPostgres(OpenedPostgres):
    def __init__(self, keyset, loop, url, **options):
        super().__init__(keyset, url, **options)
        self.loop = loop

    def connect(self, keyset=None):
        self.opened.append(self.loop.connect(self.url, keyset=keyset or self.keyset, **self.options))
        return self.opened[-1]


class TestAsyncMemory(RacesContract, StoreContract):
    @pytest.fixture
    def place(self, keyset, loop):
        return AsyncMemory(keyset, loop)


class TestAsyncFaiss(RacesContract, StoreContract):
    @pytest.fixture
    def place(self, keyset, loop, tmp_path):
        return AsyncFaiss(keyset, loop, tmp_path / "data")


class TestAsyncPgvector(RacesContract, StoreContract):
    @pytest.fixture
    def place(self, keyset, loop, pg_dsn):
        place = AsyncPostgres(keyset, loop, pg_dsn)
        yield place
        place.close()

    def test_random_histories(self, loop, pg_dsn):
        schemas = (f"history_{n}" for n in itertools.count())
        places = []

        def place(keyset):
            for old in places:
                old.close()
            places[:] = [AsyncPostgres(keyset, loop, pg_dsn, schema=next(schemas))]
            return places[0]

        machine.run(place, examples=5)
        places[0].close()
