"""Lists on demand: codes lie in the store in sealed blocks, and searches fetch and open what they need."""

import asyncio
import os
import threading
from dataclasses import replace

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import low_level
from encvec_store.errors import AuthenticationError
from encvec_store.sealed_index import BUDGET, kinds
from encvec_store.storage import Blob
from tests.kits import sealed
from tests.kits.async_store import run
from tests.kits.forking import in_child
from tests.kits.sealed import DIM, Answers, apart, named_and_there, vectors_of
from tests.kits.threads import guarded

N = 400


@pytest.fixture(autouse=True)
def small(monkeypatch):
    sealed.small(monkeypatch)


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


@pytest.fixture(params=["faiss", "postgresql"])
def place(request, tmp_path):
    """Return what `connect` needs."""
    if request.param == "faiss":
        return {"url": f"faiss:{tmp_path}", "index": "lists"}
    where = request.getfixturevalue("pg_place")
    return {"url": where.dsn, "schema": where.schema, "index": "lists"}


def opened(place, keyset, metric="l2"):
    """Open as another process would: with nothing in memory."""
    apart()
    store = ev.connect(**place, keyset=keyset, maintenance="manual")
    return store, store.collection("things", dim=DIM, metric=metric, scheme="sealed")


def filled(place, keyset, n=N, metric="l2"):
    store, things = opened(place, keyset, metric)
    answers = Answers(metric)
    answers.stored.update(zip(map(str, range(n)), vectors_of(n, 0), strict=True))
    numbers = [{"n": i} for i in range(n)]
    things.upsert(list(answers.stored), np.array(list(answers.stored.values())), numbers)
    things.maintain()
    assert {part.graph.kind for part in index_of(things).state.parts} == {"lists"}
    return store, things, answers


def index_of(things):
    return low_level.lifecycle(things)._indexing._index.sealed


def blocks_of(things):
    return [part.graph.blocks for part in index_of(things).state.parts]


def test_blocks_are_fetched_once_and_kept(place, keyset):
    store, things, answers = filled(place, keyset)
    (stored,) = blocks_of(things)
    assert stored.parts > 20
    store.close()
    store, things = opened(place, keyset)
    answers.search(things, vectors_of(100, 1))
    answers.enough()
    told = things.stats()["sealed_index"]["blocks"]
    assert 0 < told["in_memory"] == told["fetched"] <= stored.parts
    assert told["bytes"] == told["fetched_bytes"] == told["fetched"] * stored.size
    answers.search(things, vectors_of(100, 1))
    again = things.stats()["sealed_index"]["blocks"]
    assert again["fetched"] == told["fetched"]
    assert again["found"] > told["found"]
    words = things.explain(vectors_of(1, 1)[0])
    assert f"in {stored.parts} sealed blocks in the store" in words
    assert "and 0.00 MB are fetched" in words
    store.close()


@pytest.mark.parametrize("place", ["faiss"], indirect=True)
def test_memory_for_blocks_is_bounded(place, keyset, monkeypatch):
    """Also where a search of many queries reads more than there is room for."""
    _, things, answers = filled(place, keyset)
    index = index_of(things)
    (stored,) = blocks_of(things)
    monkeypatch.setattr(BUDGET, "_limit", index.bytes + 3 * stored.size + BUDGET.others(index))
    index.shrink(1 << 40)
    for _ in range(2):
        answers.search(things, vectors_of(100, 1))
        assert 0 < index.blocks.bytes <= 10 * stored.size
        assert index.bytes + BUDGET.others(index) <= BUDGET.limit * 17 / 16
    answers.enough()
    assert index.blocks.fetched > stored.parts, "some blocks were dropped, and fetched again"
    monkeypatch.setattr(BUDGET, "_limit", 1)
    answers.search(things, vectors_of(25, 1))
    answers.enough()


@pytest.mark.parametrize("place", ["faiss"], indirect=True)
def test_other_collections_take_the_room_of_blocks(place, keyset, monkeypatch):
    store, things, answers = filled(place, keyset)
    other = store.collection("other", dim=DIM, metric="l2", scheme="sealed")
    other.upsert(["a"], vectors_of(1, 3))
    other.search(vectors_of(1, 3)[0])
    size = index_of(other).bytes
    index_of(other).forget()
    BUDGET.make_room(index_of(other))
    answers.search(things, vectors_of(100, 1))
    index, held = index_of(things), index_of(things).state
    before = index.blocks.count
    monkeypatch.setattr(BUDGET, "_limit", BUDGET.total + size - 2_000)
    other.search(vectors_of(1, 3)[0])
    assert 0 < index.blocks.count < before
    assert BUDGET.total <= BUDGET.limit
    assert index.state is held, "the index itself stays"
    answers.search(things, vectors_of(100, 1))


DAMAGE = {
    "altered": lambda content, other: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
    "cut": lambda content, other: content[:-1],
    "empty": lambda content, other: b"",
    "swapped": lambda content, other: other,
}


@pytest.mark.parametrize("what", [*DAMAGE, "missing"])
@pytest.mark.parametrize("place", ["faiss"], indirect=True)
def test_damage(place, keyset, what):
    """A damaged block raises a clear error; `maintain` builds the index anew."""
    store, things, answers = filled(place, keyset)
    (stored,) = blocks_of(things)
    records = low_level.session(things).records
    sealed_blocks = records.blob_parts(stored.name, range(stored.parts))
    if what == "missing":
        kept = [(stored.name, part, Blob(1, content)) for part, content in sealed_blocks.items() if part != 3]
        records.keep(kept, drop=[stored.name])
    else:
        records.keep([(stored.name, 3, Blob(1, DAMAGE[what](sealed_blocks[3], sealed_blocks[4])))])
    store.close()
    store, things = opened(place, keyset)
    assert not things.verify().ok
    with pytest.raises(AuthenticationError, match=r"(?s)block.*[Rr]un `encvec maintain`.* to build it anew"):
        things.search(vectors_of(50, 1))
    things.maintain()
    answers.search(things, vectors_of(100, 1))
    answers.enough()
    assert things.verify().ok
    named, there = named_and_there(things)
    assert named == there
    store.close()


def test_another_process_rebuilds_while_this_one_reads(place, keyset):
    store, things, answers = filled(place, keyset)
    answers.search(things, vectors_of(3, 1))
    index_of(things).shrink(1 << 40)
    other_store, other = opened(place, keyset)
    gone = list(answers.stored)[: N // 2]
    other.delete(gone)
    other.maintain(purge=True)
    for name in gone:
        del answers.stored[name]
    answers.search(things, vectors_of(100, 1))
    answers.enough()
    assert blocks_of(things) == blocks_of(other)
    for each in (store, other_store):
        each.close()


def test_a_disabled_key_version_leaves_no_block_in_memory(place, keyset):
    store, things, answers = filled(place, keyset)
    answers.search(things, vectors_of(3, 1))
    index = index_of(things)
    assert index.blocks.count
    keyset.rotate()
    keyset.disable(1)
    assert things.search(vectors_of(1, 1)[0]) == []
    assert not index.blocks.count
    keyset.enable(1)
    answers.search(things, vectors_of(100, 1))
    things.upsert(list(answers.stored), np.array(list(answers.stored.values())))
    things.maintain(purge=True)
    assert [part.version for part in blocks_of(things)] == [2]
    named, there = named_and_there(things)
    assert named == there, "no block of the old version is left"
    keyset.destroy(1)
    answers.search(things, vectors_of(100, 1))
    answers.enough()
    store.close()


@pytest.mark.parametrize("place", ["faiss"], indirect=True)
def test_filters(place, keyset):
    """Narrow ones, wide ones, and those that pass only far from the query."""
    store, things, answers = filled(place, keyset)
    queries, stored = vectors_of(50, 1), answers.stored
    for bound in (3, 15, 60, 200, N):
        passing = {name: vector for name, vector in stored.items() if int(name) < bound}
        answers.search(things, queries, stored=passing, where={"n": {"lt": bound}})
    answers.enough()
    apart = Answers("l2")
    for query in queries:
        far = sorted(stored, key=lambda name: ((stored[name] - query) ** 2).sum())[N // 2 :]
        passing = {name: stored[name] for name in far}
        hits = things.search(query, k=10, include_vectors=True, where={"n": {"in": list(map(int, far))}})
        apart.check(hits, query, 10, passing)
    assert apart.missing <= 0.2 * apart.asked, "among vectors that are all about equally far"
    store.close()


def test_a_collection_outgrows_memory_and_comes_back(place, keyset, monkeypatch):
    monkeypatch.setattr(kinds, "_FLAT_MOST", 10)
    del place["index"]
    store, things = opened(place, keyset)
    answers, seen = Answers("l2"), []
    sizes = {kind: kinds.memory_of(kind, 200, DIM) + 9 * 200 for kind in ("hnsw", "ivf")}
    for step, limit in enumerate((sizes["hnsw"], sizes["ivf"], 1_500, 1_500, 10 * sizes["hnsw"])):
        monkeypatch.setattr(BUDGET, "_limit", limit)
        names = [f"{step}-{i}" for i in range(100)]
        vectors = vectors_of(100, step)
        things.upsert(names, vectors)
        answers.stored.update(zip(names, vectors, strict=True))
        things.maintain()
        seen.append("+".join(sorted({part.graph.kind for part in index_of(things).state.parts})))
        answers.search(things, vectors_of(25, 99))
    answers.enough()
    assert seen[0] == "hnsw"
    assert seen[1] == "ivf"
    assert seen[2] == "lists"
    assert "lists" in seen[3]
    assert seen[4] == "hnsw"
    store.close()


@pytest.mark.parametrize("place", ["faiss"], indirect=True)
def test_a_builder_dies_at_any_moment(place, keyset):
    """The old index answers, and the next builder leaves nothing behind."""
    store, things, answers = filled(place, keyset)
    things.delete(list(answers.stored)[:150])
    for name in list(answers.stored)[:150]:
        del answers.stored[name]
    store.close()
    for moment in range(0, 12, 3):

        def build(moment=moment):
            _, things = opened(place, keyset)
            records = low_level.session(things).records
            keep, calls = records.keep, iter(range(100))

            def dying(*arguments, **more):
                if next(calls) == moment:
                    os._exit(0)
                return keep(*arguments, **more)

            records.keep = dying
            things.maintain(purge=True)
            os._exit(0)

        child = os.fork()
        if not child:
            build()
        os.waitpid(child, 0)
        store, things = opened(place, keyset)
        answers.search(things, vectors_of(25, moment))
        store.close()
    answers.enough()
    store, things = opened(place, keyset)
    index_of(things)
    low_level.session(things).records.keep(drop=["index.1.lease"])
    things.maintain(purge=True)
    named, there = named_and_there(things)
    assert named == there
    store.close()


@pytest.mark.parametrize("place", ["faiss"], indirect=True)
def test_threads_and_a_forked_child(place, keyset):
    store, things, answers = filled(place, keyset)
    index_of(things).shrink(1 << 40)

    def search():
        answers.search(things, vectors_of(10, threading.get_ident() % 1000))

    failed = []
    threads = [guarded(failed, search) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    assert not failed
    answers.enough()
    in_child(search)
    store.close()


def test_in_an_event_loop(place, keyset):
    """Many searches at once, one of them cancelled; the index is built there too."""
    stored, queries = vectors_of(N, 0), vectors_of(100, 1)

    async def main():
        apart()
        async with ev.aio.connect(**place, keyset=keyset, maintenance="manual") as store:
            things = await store.collection("things", dim=DIM, metric="l2", scheme="sealed")
            await things.upsert([str(i) for i in range(N)], stored)
            await things.maintain()
            tasks = [asyncio.ensure_future(things.search(query, include_vectors=True)) for query in queries]
            await asyncio.sleep(0)
            tasks[3].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    answers = Answers("l2", stored=dict(zip(map(str, range(N)), stored, strict=True)))
    for query, hits in zip(queries, run(main), strict=True):
        if isinstance(hits, asyncio.CancelledError):
            continue
        answers.check(hits, query, 10)
    answers.enough()
    store, things = opened(place, keyset)
    assert things.stats()["sealed_index"]["kind"] == "lists"
    store.close()


def test_records_that_were_sealed_anew(place, keyset):
    """Their lists are copied under the new key version, from blocks under the old one."""
    store, things, answers = filled(place, keyset)
    keyset.rotate()
    index = index_of(things)
    (part,) = index.state.parts
    index._state = replace(index.state, parts=(replace(part, version=2, stored=None),))
    session = low_level.session(things)
    builder = low_level.lifecycle(things)._indexing._index.builder
    assert builder._step(session, None, thorough=True, purge=False)
    (moved,) = index.state.parts
    assert (moved.version, moved.graph.blocks.version) == (2, 2)
    answers.search(things, vectors_of(100, 1))
    answers.enough()
    store.close()
