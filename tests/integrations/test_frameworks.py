"""What adapters of frameworks share, and what they say where these are not installed. `frameworks/` tests the rest."""

import asyncio
import importlib
import sys
import threading

import pytest

import encvec_store as ev
from encvec_store.integrations.calls import Calls


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("langchain", "langchain_core"),
        ("llamaindex", "llama_index"),
        ("haystack", "haystack"),
        ("mcp", "mcp"),
        ("vicinity", "vicinity"),
        ("django", "django"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch, module, package):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"encvec_store.integrations.{module}", raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'encvec-store\[{module}\]'"):
        importlib.import_module(f"encvec_store.integrations.{module}")


def steps():
    """Two verbs, the first of which fails: an error reaches the steps, which may go on."""
    try:
        yield "get", {"ids": 7}
    except ev.errors.IdError:
        records = yield "records", {"include_vectors": False}
        count = yield "count", {}
        return [record.id for record in records], count


def test_the_event_loop_goes_on_while_a_collection_works(monkeypatch):
    """An awaited call of a `Collection` runs in a thread, without an event loop there."""
    gate, seen = threading.Event(), []

    def slow(self, where=None):
        seen.append((threading.current_thread(), asyncio._get_running_loop()))
        return gate.wait(20)

    async def main(calls):
        call = asyncio.create_task(calls.wait("count"))
        while not seen:
            await asyncio.sleep(0.001)
        gate.set()
        return await call

    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        collection = store.collection("texts", dim=2)
        collection.upsert(["a", "b"], [[1, 0], [0, 1]])
        calls = Calls(collection)
        assert sorted(calls.take(steps())[0]) == ["a", "b"]
        assert asyncio.run(calls.take_later(steps()))[1] == 2
        monkeypatch.setattr(type(collection), "count", slow)
        assert asyncio.run(main(calls)), "the loop stood still, and never opened the gate"
    ((thread, loop),) = seen
    assert thread is not threading.main_thread()
    assert loop is None


def test_an_async_collection_is_awaited_in_the_loop_of_its_store():
    async def main():
        async with ev.aio.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
            collection = await store.collection("texts", dim=2)
            await collection.upsert(["a", "b"], [[1, 0], [0, 1]])
            calls = Calls(collection)
            assert sorted(await calls.ids_later()) == ["a", "b"]
            assert (await calls.take_later(steps()))[1] == 2
            with pytest.raises(ev.errors.InputError, match="await the async methods"):
                calls.take(steps())

    asyncio.run(main())
