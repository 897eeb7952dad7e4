"""What the tests of adapters share: stores of three kinds, a fresh collection for each test, and texts made vectors.

The stores are opened once for the tests of a module; a fresh collection costs some milliseconds.
"""

import itertools
import zlib

import numpy as np
import pytest
import pytest_asyncio

import encvec_store as ev

KINDS = ("memory", "faiss", "postgresql")
_numbers = itertools.count()


@pytest.fixture(scope="module")
def place(request, tmp_path_factory):
    """Return the options of `connect` for a kind of store: always the same place."""
    folder, keyset = tmp_path_factory.mktemp("adapters"), ev.Keyset.create("memory:")
    schema = f"test_adapters_{folder.name}_{next(_numbers)}"

    def of(kind):
        if kind == "postgresql":
            return {"url": request.getfixturevalue("pg_shared"), "keyset": keyset, "schema": schema}
        return {"url": f"faiss:{folder}" if kind == "faiss" else "memory:", "keyset": keyset}

    return of


@pytest.fixture(scope="module")
def stores(place):
    """Return the store of a kind."""
    opened = {}

    def of(kind):
        if kind not in opened:
            opened[kind] = ev.connect(**place(kind))
        return opened[kind]

    yield of
    for store in opened.values():
        store.close()


@pytest.fixture
def fresh(stores):
    """Make an empty collection: `fresh(kind, dim)`."""
    made = []

    def of(kind, dim, **options):
        made.append((kind, f"fresh-{next(_numbers)}"))
        return stores(kind).collection(made[-1][1], dim=dim, **options)

    yield of
    for kind, name in made:
        stores(kind).drop(name)


@pytest_asyncio.fixture
async def async_fresh(place):
    """Make an empty collection of an async store, in the event loop of the test: await it with kind and dim."""
    made = {}

    async def of(kind, dim, **options):
        store = await ev.aio.connect(**place(kind))
        collection = await store.collection(f"fresh-{next(_numbers)}", dim=dim, **options)
        made[collection] = store
        return collection

    of.store_of = made.get
    yield of
    for collection, store in made.items():
        await store.drop(collection.name, tenant=collection.tenant)
        await store.close()


def embedded(texts, dim=64):
    """Embed texts by their words: (n, dim), of length 1. Texts that share words are near; no two are equally near."""
    vectors = np.zeros((len(texts), dim))
    for row, text in zip(vectors, texts, strict=True):
        for word in text.lower().split():
            row += np.random.default_rng(zlib.crc32(word.encode())).standard_normal(dim)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
