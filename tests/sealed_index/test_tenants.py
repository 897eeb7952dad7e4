"""Many small tenants in one process: memory, what is kept open, and histories in which each pushes the others out."""

from __future__ import annotations

import gc
import os
import random
import threading
import weakref
from contextlib import ExitStack

import pytest

import encvec_store as ev
from encvec_store import low_level, openings
from encvec_store.sealed_index import BUDGET
from tests.kits import sealed
from tests.kits.forking import in_child
from tests.kits.sealed import DIM, Answers, vectors_of
from tests.kits.threads import guarded

TENANTS = [f"t{n}" for n in range(6)]


@pytest.fixture(params=["faiss", "postgresql"])
def connect(request, tmp_path):
    keyset = ev.Keyset.create("memory:")
    if request.param == "faiss":
        return lambda **how: ev.connect(f"faiss:{tmp_path}", keyset=keyset, **how)
    place = request.getfixturevalue("pg_place")
    return lambda **how: ev.connect(place.dsn, keyset=keyset, schema=place.schema, **how)


@pytest.fixture
def in_files(tmp_path):
    keyset = ev.Keyset.create("memory:")
    with ev.connect(f"faiss:{tmp_path}", keyset=keyset, maintenance="manual") as store:
        yield store


def filled(store, tenant, n=20):
    things = store.collection("things", DIM, scheme="sealed", tenant=tenant)
    things.upsert([f"{tenant}-{i}" for i in range(n)], vectors_of(n, len(tenant)))
    return things


def open_ones(store):
    return sorted(tenant for tenant, _ in store._openings._held)


class Tenant:
    """One tenant's records, as they must be."""

    def __init__(self, name: str) -> None:
        self.name, self.lock, self.answers = name, threading.Lock(), Answers("cosine")

    def step(self, store, rng: random.Random) -> None:
        """Write, delete or build, then search."""
        things = store.collection("things", DIM, scheme="sealed", tenant=self.name)
        stored = self.answers.stored
        match rng.randrange(4):
            case 0 | 1:
                names = [f"{self.name}-{n}" for n in rng.sample(range(150), rng.randrange(1, 40))]
                vectors = vectors_of(len(names), rng.randrange(1 << 30))
                things.upsert(names, vectors)
                stored.update(zip(names, vectors, strict=True))
            case 2 if stored:
                names = rng.sample(sorted(stored), rng.randrange(1, 1 + len(stored) // 2 or 2))
                things.delete(names)
                for name in names:
                    del stored[name]
            case _:
                things.maintain()
        self.look(store, rng.randrange(1 << 30))

    def look(self, store, seed: int) -> None:
        things = store.collection("things", DIM, scheme="sealed", tenant=self.name)
        self.answers.search(things, vectors_of(2, seed), k=8)


def test_histories_in_which_tenants_push_one_another_out(connect, monkeypatch):
    """Threads and forks, with room for one or two indexes, and for two open collections."""
    sealed.small(monkeypatch)
    monkeypatch.setattr(BUDGET, "_limit", 40_000)
    monkeypatch.setattr(openings, "KEPT", 2)
    tenants = [Tenant(name) for name in TENANTS]
    errors: list[BaseException] = []

    def look() -> None:
        for tenant in tenants:
            tenant.look(store, 5)

    store = connect()
    with store:

        def work(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(25):
                tenant = rng.choice(tenants)
                with tenant.lock:
                    tenant.step(store, rng)

        threads = [guarded(errors, work, seed) for seed in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            with ExitStack() as stack:
                for tenant in tenants:
                    stack.enter_context(tenant.lock)
                in_child(look)
        for thread in threads:
            thread.join()
        assert not errors, errors[0]
        look()
        assert len(open_ones(store)) <= 2
    sealed.apart()
    store = connect()  # as another process
    with store:
        look()
    missing, asked = (sum(getattr(tenant.answers, what) for tenant in tenants) for what in ("missing", "asked"))
    assert missing <= 0.02 * asked


def test_only_so_many_collections_stay_open(in_files, monkeypatch):
    monkeypatch.setattr(openings, "KEPT", 3)
    held = [filled(in_files, tenant) for tenant in TENANTS]
    assert open_ones(in_files) == TENANTS, "one in use was closed"
    session = weakref.ref(low_level.session(held[1]))
    del held[1], held[2]  # t1 and t3
    gc.collect()
    assert session() is not None, "it was closed although there was room"
    in_files.collection("things", tenant="t0")
    assert open_ones(in_files) == ["t0", "t2", "t4", "t5"]
    gc.collect()
    assert session() is None, "it is still in memory"
    vectors = vectors_of(20, 2)
    assert in_files.collection("things", tenant="t1").search(vectors[3], k=1)[0].id == "t1-3"
    assert held[0].search(vectors[4], k=1)[0].id == "t0-4"


def test_an_iteration_keeps_its_collection_open(in_files, monkeypatch):
    monkeypatch.setattr(openings, "KEPT", 1)
    records = filled(in_files, "t0", 5).scroll()
    first = next(records)
    for tenant in TENANTS[1:]:
        filled(in_files, tenant)
    gc.collect()
    assert "t0" in open_ones(in_files)
    assert len({first.id, *(record.id for record in records)}) == 5
    del records
    filled(in_files, "t9")
    assert "t0" not in open_ones(in_files)


def test_a_collection_is_closed_whole(in_files, monkeypatch):
    """What was built is stored before it is closed, as when the store is closed."""
    sealed.small(monkeypatch)
    monkeypatch.setattr(openings, "KEPT", 1)
    things = filled(in_files, "t0", 200)
    session = low_level.session(things)
    builder = things._sources._sealed._indexes.current.builder
    monkeypatch.setattr(type(builder), "_save", lambda *given, **how: None)
    things.maintain()
    monkeypatch.undo()
    monkeypatch.setattr(openings, "KEPT", 1)
    monkeypatch.setattr("encvec_store.sealed_index.builder.LAST", 10)
    assert not session.records.blobs("index.")
    del things, builder
    filled(in_files, "t1")
    assert session.records.blobs("index.")


def test_memory_stays_within_the_limit(in_files, monkeypatch):
    """However many tenants are searched, their indexes take what is allowed, and a dropped one takes nothing."""
    one = filled(in_files, "first")
    one.search(vectors_of(1, 0)[0])
    size = BUDGET.total
    limit = size + 5 * one.stats()["sealed_index"]["memory_bytes"]
    monkeypatch.setattr(BUDGET, "_limit", limit)
    held = [filled(in_files, f"t{n:03d}") for n in range(40)]
    for things in held:
        things.search(vectors_of(1, 1)[0])
        assert BUDGET.total <= limit
    loaded = [things.stats()["sealed_index"]["loaded"] for things in held]
    assert 0 < sum(loaded) <= 6
    assert loaded[-1], "the one used last was dropped"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc")
def test_nothing_of_the_system_is_taken_for_each_collection(connect):
    """No thread, descriptor or connection."""

    def taken() -> tuple[int, int]:
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    with connect() as store:
        held = [filled(store, "first")]
        held[0].search(vectors_of(1, 1)[0])
        before = taken()
        for n in range(20):
            held.append(filled(store, f"t{n}"))
            held[-1].search(vectors_of(1, 1)[0])
        assert taken() == before


def private() -> int:
    """The bytes that this process shares with no other."""
    with open("/proc/self/smaps_rollup") as lines:
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="no /proc")
def test_forked_workers_share_the_index(tmp_path):
    """Searches write nothing into it, so that its pages are not copied: with filters, and after a write."""
    dim = 512
    keyset = ev.Keyset.create("memory:")
    with ev.connect(f"faiss:{tmp_path}?index=flat", keyset=keyset, maintenance="manual") as store:
        things = store.collection("things", dim, scheme="sealed")
        ids = list(map(str, range(12_000)))
        things.upsert(ids, vectors_of(12_000, 1, dim), [{"n": n % 10} for n in range(12_000)])
        things.maintain()
        queries = vectors_of(20, 2, dim)
        things.search(queries[0], where={"n": 3})
        size = things.stats()["sealed_index"]["memory_bytes"]

        def work() -> int:
            before = private()
            for query in queries:
                assert len(things.search(query)) == 10
                things.search(query, where={"n": 3})
            things.upsert(["new"], queries[:1])
            assert things.search(queries[0])[0].id == "new"
            return private() - before

        gc.collect()
        grown = in_child(work, timeout=120)
    assert size > 8_000_000
    assert grown < size / 2, f"{grown / 1e6:.1f} MB of {size / 1e6:.1f} MB were copied"
