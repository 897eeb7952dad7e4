"""The async API itself: its surface, its loop, its threads. What the methods do, the contract tests."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import mypy.api
import numpy as np
import pytest

import encvec_store as ev
from encvec_store import aio, errors, low_level
from encvec_store.aio import AsyncCollection, AsyncStore
from tests.kits.async_store import belongs_to_its_loop

ROOT = Path(__file__).resolve().parents[1]
PAIRS = [(ev.Store, AsyncStore), (ev.Collection, AsyncCollection)]
INSTANT = {"name", "tenant", "dim", "metric", "url", "keyset"}


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


def public(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("plain", "twin"), PAIRS)
def test_the_two_surfaces_are_the_same(plain, twin):
    assert public(plain) == public(twin)
    for name in public(plain):
        mine, theirs = inspect.getattr_static(twin, name), inspect.getattr_static(plain, name)
        assert mine.__doc__ == theirs.__doc__, name
        assert isinstance(mine, property) is isinstance(theirs, property) is (name in INSTANT), name
        if name in INSTANT:
            continue
        assert inspect.signature(mine).parameters == inspect.signature(theirs).parameters, name
        assert inspect.iscoroutinefunction(mine) is (name != "scroll"), name
        assert mine.__qualname__ == f"{twin.__name__}.{name}"
        assert mine.__module__ == "encvec_store.aio"
    assert issubclass(aio.AsyncScroll, AsyncIterator)
    for kind, enter, leave in ((plain, "__enter__", "__exit__"), (twin, "__aenter__", "__aexit__")):
        assert hasattr(kind, enter) is hasattr(kind, leave) is (plain is ev.Store)
    assert inspect.signature(aio.connect).parameters == inspect.signature(ev.connect).parameters


def test_types(tmp_path):
    """What a type checker makes of it: parameters, overloads and results as in the plain API."""
    program = tmp_path / "program.py"
    program.write_text(
        """
from typing import Any, assert_type
import numpy as np
import encvec_store as ev

async def right(keyset: ev.Keyset) -> None:
    opened = await ev.aio.connect("memory:", keyset=keyset)
    assert_type(opened, ev.aio.AsyncStore)
    async with ev.aio.connect("memory:", keyset=keyset) as store:
        assert_type(store, ev.aio.AsyncStore)
        assert_type(await store.collections("acme"), list[tuple[str, str]])
        things = await store.collection("things", dim=3, fields={"a": "blind"})
        assert_type(things, ev.aio.AsyncCollection)
        assert_type(await things.search([1.0, 2.0], k=3), ev.ResultList[ev.Hit])
        assert_type(await things.count({"a": 1}), int)
        async for record in things.scroll(include_vectors=False):
            assert_type(record.metadata, dict[str, Any])

async def wrong(things: ev.aio.AsyncCollection, store: ev.aio.AsyncStore) -> None:
    await things.upsert(["a"], texts=[1])
    await things.count(wher={})
    await store.drop(5)
    things.scroll().id
""",
        encoding="utf-8",
    )
    told, _, _ = mypy.api.run(["--config-file", str(ROOT / "pyproject.toml"), "--follow-imports=silent", str(program)])
    assert told.count("error:") == 4, told
    lines = program.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines[-4:], len(lines) - 3):
        assert f"program.py:{number}: error:" in told, line


def test_both_ways_to_open(keyset):
    async def main():
        async with ev.aio.connect("memory:", keyset=keyset) as store:
            assert store.url == "memory:"
            assert store.keyset is keyset
            things = await store.collection("things", dim=2)
            await things.upsert(["a", "b"], np.eye(2))
            assert [hit.id for hit in await things.search([1.0, 0.1], k=1)] == ["a"]
            assert {record.id async for record in things.scroll()} == {"a", "b"}
            assert "things" in repr(things)
        assert repr(store) == "AsyncStore('memory:')"
        with pytest.raises(errors.StoreClosedError):
            await store.collections()
        store = await ev.aio.connect("memory:", keyset=keyset)
        await store.close()
        await store.close()

    asyncio.run(main())


def test_a_path_is_a_place_and_upsert_counts(keyset, tmp_path):
    async def main():
        async with ev.aio.connect(tmp_path / "data", keyset=keyset) as store:
            things = await store.collection("things", dim=2)
            assert await things.upsert(["a", "b"], np.eye(2)) == 2

    asyncio.run(main())
    assert (tmp_path / "data").is_dir()


def test_errors_are_the_same(keyset):
    async def main():
        with pytest.raises(errors.InputError, match="keyset must be a Keyset, got str"):
            await ev.aio.connect("memory:", keyset="memory:")
        for url in ("nowhere:", "postgresqlx://", 5):
            with pytest.raises(errors.UriError, match="a store URL must begin with one of memory:, faiss:"):
                await ev.aio.connect(url, keyset=keyset)
        async with ev.aio.connect("memory:", keyset=keyset) as store:
            things = await store.collection("things", dim=2, fields={"a": "plain"})
            with pytest.raises(errors.ShapeError):
                await things.upsert(["a"], np.ones(3))
            scroll = things.scroll({"b": 1})
            with pytest.raises(errors.UnknownFieldError):
                await anext(scroll)

    asyncio.run(main())


def test_a_store_belongs_to_its_loop(keyset):
    belongs_to_its_loop(lambda: ev.aio.connect("memory:", keyset=keyset))


def test_other_stores_work_in_threads(keyset, tmp_path):
    """Their calls compute and read files, so that the loop must not run them."""

    async def main(url):
        async with ev.aio.connect(url, keyset=keyset) as store:
            things = await store.collection("things", dim=4)
            await things.upsert([f"id-{i}" for i in range(200)], np.random.default_rng(0).normal(size=(200, 4)))
            threads = set()
            await things.verify(progress=lambda n, total: threads.add(threading.get_ident()))
            assert threads
            assert threading.get_ident() not in threads

    for url in ("memory:", f"faiss:{tmp_path}"):
        asyncio.run(main(url))


@pytest.mark.parametrize("kind", ["memory", "faiss"])
def test_a_cancelled_write_in_a_thread_is_all_or_nothing(keyset, tmp_path, kind):
    """The task ends at once; the thread goes on, and its batch is there as a whole."""

    async def main():
        async with ev.aio.connect("memory:" if kind == "memory" else f"faiss:{tmp_path}", keyset=keyset) as store:
            things = await store.collection("things", dim=2)
            backend = low_level.session(things._of).records  # noqa: SLF001
            begun, proceed, put = threading.Event(), threading.Event(), backend.put

            def slow(*args, **given):
                begun.set()
                assert proceed.wait(30)
                put(*args, **given)

            backend.put = slow
            task = asyncio.create_task(things.upsert(["a", "b"], np.eye(2)))
            assert await asyncio.to_thread(begun.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await things.count() == 0
            proceed.set()
            while await things.count() == 0:
                await asyncio.sleep(0.01)
            assert {record.id async for record in things.scroll()} == {"a", "b"}
            assert (await things.verify()).ok

    asyncio.run(asyncio.wait_for(main(), 60))
