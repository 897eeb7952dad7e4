"""Damage, key versions, little memory, forks and threads: searches of a sealed collection stay right."""

import gc
import itertools
import logging
import os
import shutil
import sqlite3
import threading
from contextlib import closing

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import low_level
from encvec_store.data import METRICS
from encvec_store.errors import StoreReadOnlyError, StoreUnreachableError
from encvec_store.sealed_index import BUDGET, builder, growth, index, lease, shared
from encvec_store.sealed_index.lease import Lease
from encvec_store.sealed_index.manifest import name_of, read
from encvec_store.sealed_index.tail import Tail
from encvec_store.storage import Blob
from tests.kits.forking import in_child
from tests.kits.threads import guarded

DIM, N = 12, 200


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Make graphs of a few records."""
    monkeypatch.setattr(index, "COARSE", 150)
    for module, name, value in ((builder, "FIRST", 60), (builder, "LAST", 10), (builder, "COARSE", 150)):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


def vectors_of(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def opened(url, keyset, name="things", **options):
    """Open as another process would: with nothing in memory."""
    gc.collect()
    shared._known.clear()
    store = ev.connect(str(url), keyset=keyset, maintenance="manual", **options)
    return store, store.collection(name, dim=DIM, metric="l2", scheme="sealed")


def filled(url, keyset, n=N, name="things", seed=0):
    store, things = opened(url, keyset, name)
    stored = dict(zip(map(str, range(n)), vectors_of(n, seed), strict=True))
    things.upsert(list(stored), np.array(list(stored.values())))
    things.maintain()
    return store, things, stored


def check(things, stored, k=10, most=1):
    ids, matrix = list(stored), np.array(list(stored.values()), np.float64)
    missed = 0
    for query in vectors_of(6, 99):
        hits = things.search(query, k=k, include_vectors=True)
        assert len({hit.id for hit in hits}) == min(k, len(ids))
        for hit in hits:
            np.testing.assert_array_equal(hit.vector, stored[hit.id])
        best = {ids[i] for i in np.argsort(((matrix - query) ** 2).sum(1))[:k]}
        missed += len(best - {hit.id for hit in hits})
    assert missed <= most


def state_of(things):
    return low_level.lifecycle(things)._indexing._index.sealed.state


def blobs_of(things):
    records = low_level.session(things).records
    return {
        (name, part): records.blob(name, part)
        for name, (parts, _) in records.blobs("index.").items()
        for part in range(parts)
    }


def put(things, name, content, part=0, version=1):
    assert low_level.session(things).records.keep([(name, part, Blob(version, content))])


def flipped(content):
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


DAMAGE = {
    "altered": flipped,
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "another version": lambda content: content[:1] + (9).to_bytes(4, "big") + content[5:],
}


@pytest.mark.parametrize("what", [*DAMAGE, "missing", "swapped", "another collection", "another life"])
@pytest.mark.parametrize("where", ["manifest", "segment"])
def test_damage(tmp_path, keyset, caplog, where, what):
    """Searches stay right, the log says so once, and the index is stored anew."""
    url = f"faiss:{tmp_path}?index=hnsw"
    store, things, stored = filled(url, keyset)
    session = low_level.session(things)
    listed, _ = read(session.records, session.keyring, 1)
    first, second = (segment.name for segment in listed.segments[:2])
    name = name_of(1) if where == "manifest" else first
    if what in DAMAGE:
        put(things, name, DAMAGE[what](session.records.blob(name)))
    elif what == "missing":
        session.records.keep(drop=[name])
    elif what == "swapped":
        put(things, name, session.records.blob(second))
    elif what == "another collection":
        other_store, other, _ = filled(url, keyset, name="other")
        theirs = low_level.session(other)
        found, raw = read(theirs.records, theirs.keyring, 1)
        put(things, name, raw if where == "manifest" else theirs.records.blob(found.segments[0].name))
        other_store.close()
    else:
        old = session.records.blob(name)
        store.drop("things")
        store.close()
        store, things, stored = filled(url, keyset)
        session = low_level.session(things)
        name = name if where == "manifest" else read(session.records, session.keyring, 1)[0].segments[0].name
        put(things, name, old)
    store.close()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "encvec_store"):
        store, things = opened(url, keyset)
        check(things, stored)
        things.maintain()
        check(things, stored)
    said = [record for record in caplog.records if "built anew" in record.message]
    assert len(said) == (0 if (where, what) == ("manifest", "missing") else 1)
    store.close()
    caplog.clear()
    store, things = opened(url, keyset)
    check(things, stored)
    assert state_of(things).parts[0].stored is not None, "it was not stored anew"
    assert not caplog.records
    store.close()


def test_an_older_index_put_back(tmp_path, keyset):
    url = f"faiss:{tmp_path}?index=hnsw"
    store, things, stored = filled(url, keyset)
    old = blobs_of(things)
    gone = list(stored)[:120]
    things.delete(gone)
    stored = {id: vector for id, vector in stored.items() if id not in gone}
    more = dict(zip(gone, vectors_of(120, 5), strict=True))
    things.upsert(list(more), np.array(list(more.values())))
    stored |= more
    things.maintain(purge=True)
    for (name, part), content in old.items():
        put(things, name, content, part)
    check(things, stored)
    store.close()
    store, things = opened(url, keyset)
    check(things, stored)
    things.maintain(purge=True)
    check(things, stored)
    store.close()


def listings(things):
    """Count how often the first search lists all records."""
    records, found = low_level.session(things).records, []
    changes = records.changes
    records.changes = lambda *given, **how: found.append(changes(*given, **how)) or found[-1]
    things.search(vectors_of(1)[0], k=1)
    records.changes = changes
    assert found
    return sum(each is not None and each.whole for each in found)


def test_records_are_listed_only_if_the_index_is_not_of_all(tmp_path, keyset):
    url = f"faiss:{tmp_path}?index=hnsw"
    store, things, stored = filled(url, keyset)
    store.close()
    store, things = opened(url, keyset)
    assert listings(things) == 0
    check(things, stored)
    things.delete(["7"])
    del stored["7"]
    store.close()
    for left in (["8"], ["new"]):  # since the manifest, and since a manifest of which a record is gone
        store, things = opened(url, keyset)
        assert listings(things) == 1
        check(things, stored)
        stored.pop(left[0], None)
        things.delete(left)
        things.maintain()
        store.close()
    store, things = opened(url, keyset)
    things.maintain(purge=True)
    store.close()
    store, things = opened(url, keyset)
    assert listings(things) == 0
    check(things, stored)
    store.close()


def test_an_index_of_another_history_with_as_many_writes(tmp_path, keyset):
    """Of two copies of a store that went on apart, one gets the index of the other."""
    places = [tmp_path / "a", tmp_path / "b"]
    store, *_ = filled(f"faiss:{places[0]}?index=hnsw", keyset)
    store.close()
    shutil.copytree(*places)
    taken = {}
    for seed, place in enumerate(places):
        store, things = opened(f"faiss:{place}?index=hnsw", keyset)
        things.upsert([f"more{i}" for i in range(N)], vectors_of(N, seed))
        if not seed:
            things.maintain()
            taken = blobs_of(things)
        for (name, part), content in taken.items():
            put(things, name, content, part)
        store.close()
        store, things = opened(f"faiss:{place}?index=hnsw", keyset)
        assert bool(listings(things)) == bool(seed)
        store.close()


def test_an_index_of_which_one_key_version_cannot_be_read(tmp_path, keyset):
    """What is left of it was stored when graphs held all records, and nothing was written since: it is not all."""
    url = f"faiss:{tmp_path}?index=hnsw"
    store, things, stored = filled(url, keyset)
    keyset.rotate()
    more = dict(zip([f"more{i}" for i in range(N)], vectors_of(N, 5), strict=True))
    things.upsert(list(more), np.array(list(more.values())))
    things.maintain()
    put(things, name_of(1), flipped(low_level.session(things).records.blob(name_of(1))))
    store.close()
    store, things = opened(url, keyset)
    check(things, stored | more)
    store.close()


def test_rows_that_are_gone_and_no_change_tells(tmp_path, keyset):
    url = f"faiss:{tmp_path}?index=hnsw"
    store, things, stored = filled(url, keyset)
    store.close()
    for running in (False, True):
        store, things = opened(url, keyset)
        if running:
            check(things, stored)
        gone = [hit.id for hit in things.search(vectors_of(6, 99)[0], k=3)] if running else ["1", "2"]
        session = low_level.session(things)
        rows = session.records.find(session.keyring.tokens(gone)[1])
        with closing(sqlite3.connect(tmp_path / "records.sqlite3")) as database, database:
            for table in ("records", "vectors"):
                database.executemany(f"DELETE FROM {table} WHERE row = ?", [(row,) for row in rows.tolist()])
        stored = {id: vector for id, vector in stored.items() if id not in gone}
        check(things, stored)
        store.close()


@pytest.mark.parametrize("error", [StoreReadOnlyError, StoreUnreachableError])
def test_a_store_that_cannot_be_written(tmp_path, keyset, caplog, monkeypatch, error):
    """The index stays in memory; a store that is only out of reach gets it at the next run."""
    store, things = opened(f"faiss:{tmp_path}?index=hnsw", keyset)
    stored = dict(zip(map(str, range(N)), vectors_of(N), strict=True))
    things.upsert(list(stored), np.array(list(stored.values())))

    def refused(*given, **how):
        raise error("no room")

    records = low_level.session(things).records
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "encvec_store"):
        patch.setattr(type(records), "keep", refused)
        things.maintain()
        check(things, stored)
    assert state_of(things).parts
    assert not records.blobs("index.")
    assert [record for record in caplog.records if "no room" in record.message]
    things.maintain()
    check(things, stored)
    assert bool(records.blobs("index.1")) == (error is StoreUnreachableError)
    store.close()


def test_a_builder_that_died(tmp_path, keyset, monkeypatch):
    """Its lease stops others until it runs out."""
    store, things = opened(f"faiss:{tmp_path}?index=hnsw", keyset)
    stored = dict(zip(map(str, range(N)), vectors_of(N), strict=True))
    things.upsert(list(stored), np.array(list(stored.values())))
    session = low_level.session(things)
    assert Lease(session.records, session.keyring).taken()
    things.maintain()
    check(things, stored)
    assert not any(part.kept for part in state_of(things).parts)
    session.records.keep(drop=[lease.lease_name(1)])
    monkeypatch.setattr(lease, "SECONDS", -1.0)
    assert Lease(session.records, session.keyring).taken()
    things.maintain()
    assert all(part.kept for part in state_of(things).parts)
    assert state_of(things).tail.living == 0
    check(things, stored)
    store.close()


def test_key_versions(tmp_path, keyset):
    url = f"faiss:{tmp_path}?index=hnsw"
    store, things, old = filled(url, keyset)
    second = keyset.rotate()
    new = dict(zip([f"new {i}" for i in range(100)], vectors_of(100, 7), strict=True))
    things.upsert(list(new), np.array(list(new.values())))
    late = dict(zip([f"late {i}" for i in range(5)], vectors_of(5, 8), strict=True))
    things.maintain()
    things.upsert(list(late), np.array(list(late.values())))
    check(things, old | new | late)
    keyset.disable(1)
    check(things, new | late)
    keyset.enable(1)
    check(things, old | new | late)
    assert any(part.version == 1 and part.stored for part in state_of(things).parts), "it was not loaded again"
    keyset.destroy(1)
    check(things, new | late)
    assert {part.version for part in state_of(things).parts} == {second}
    store.close()
    store, things = opened(url, keyset)  # a process that never knew the version
    things.maintain()
    assert not [name for name, _ in blobs_of(things) if name.split(".")[1] == "1"]
    check(things, new | late)
    store.close()


def test_nothing_of_a_destroyed_version_is_in_memory(tmp_path, keyset):
    store, things, old = filled(f"faiss:{tmp_path}?index=flat", keyset, 20)
    keyset.rotate()
    new = dict(zip([f"new {i}" for i in range(100)], vectors_of(100, 7), strict=True))
    things.upsert(list(new), np.array(list(new.values())))
    check(things, old | new)
    assert state_of(things).tail.buffer.centre is not None
    keyset.destroy(1)
    check(things, new)
    held = state_of(things).tail.buffer
    vectors = np.array(list(old.values()))
    assert not (held.centre == vectors).all(1).any()
    assert set(held.versions[: held.used].tolist()) == {2}
    for used in held.vectors[: held.used] + held.centre:
        assert not np.isclose(used, vectors).all(1).any()
    store.close()


def test_little_memory(tmp_path, keyset, monkeypatch):
    """Collections push one another out of memory, and come back, also while graphs are built."""
    monkeypatch.setattr(BUDGET, "_limit", 1)
    url = f"faiss:{tmp_path}"
    one_store, one, first = filled(url, keyset)
    gc.collect()
    two_store, two, second = filled(url, keyset, 180, "other", 3)
    assert state_of(one) is None, "it was not pushed out"
    for _ in range(2):
        check(one, first)
        check(two, second)
    real = growth.begin

    def pushed_out(*given, **how):
        check(two, second)
        return real(*given, **how)

    monkeypatch.setattr(growth, "begin", pushed_out)
    more = dict(zip([f"more {i}" for i in range(100)], vectors_of(100, 4), strict=True))
    one.upsert(list(more), np.array(list(more.values())))
    one.maintain()
    check(one, first | more)
    one.maintain()
    check(one, first | more)
    one_store.close()
    two_store.close()


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_many_new_records_are_loaded_in_steps(tmp_path, keyset, monkeypatch, kind):
    """They go from the records into a graph. Searches, deletes and updates come in between."""
    monkeypatch.setattr(builder, "_LOADED", 100)
    monkeypatch.setattr(growth, "PIECE", 40)
    store, things = opened(f"faiss:{tmp_path}?index={kind}", keyset)
    stored = dict(zip(map(str, range(500)), vectors_of(500), strict=True))
    things.upsert(list(stored), np.array(list(stored.values())))
    grown, graphs = growth.grown, []

    def disturbed(metric, into, *given):
        graphs.append(0 if into is None else len(into.rows))
        if len(graphs) == 2:
            check(things, stored, most=3)
            things.delete(["3", "150", "250"])
            things.upsert(["4", "160", "499"], vectors_of(3, 9))
            for id in ("3", "150", "250"):
                del stored[id]
            stored.update(zip(["4", "160", "499"], vectors_of(3, 9), strict=True))
        if len(graphs) == 3:
            things.upsert(["new"], vectors_of(1, 7))
            stored["new"] = vectors_of(1, 7)[0]
        return grown(metric, into, *given)

    monkeypatch.setattr(builder, "grown", disturbed)
    assert things.maintain() == ["index 500 new records"]
    assert len(graphs) == 4, "each step doubles what is there"
    assert all(size > 1.9 * before for before, size in itertools.pairwise(graphs)), graphs
    check(things, stored, most=3)
    (part,) = state_of(things).parts
    assert (part.living, part.kept) == (494, True)
    store.close()
    store, things = opened(f"faiss:{tmp_path}?index={kind}", keyset)
    check(things, stored, most=3)
    assert things.stats()["sealed_index"]["tail"] == 4
    assert things.verify().ok
    store.close()


def test_many_new_records_whose_products_overflow(tmp_path, keyset):
    """They are in no graph: they are compared in double precision."""
    store, things = opened(f"faiss:{tmp_path}?index=hnsw", keyset)
    huge = vectors_of(400) * np.float32(1e25)
    stored = dict(zip(map(str, range(400)), huge, strict=True))
    things.upsert(list(stored), huge)
    things.maintain()
    check(things, stored, most=0)
    assert state_of(things).tail.living == 400
    store.close()


def test_a_part_that_was_loaded_again_while_it_was_extended(tmp_path, keyset, monkeypatch):
    """Its segments must not be named twice."""
    store, things, stored = filled(f"faiss:{tmp_path}?index=hnsw", keyset)
    sealed = low_level.lifecycle(things)._indexing._index.sealed
    before = state_of(things)
    (old,) = before.parts
    sealed.forget()
    check(things, stored)
    sealed.publish((old,), (old,))
    assert len(state_of(things).parts) == 1
    check(things, stored)
    store.close()


def test_a_late_thread_of_a_cancelled_search():
    """It goes on writing to the tail's buffer: others write somewhere else."""
    tail = Tail.empty(METRICS["l2"], DIM)
    rows, vectors = np.arange(1, 6), vectors_of(5)
    slow, held = threading.Event(), threading.Event()
    real = tail.buffer.write

    def late(*given):
        held.set()
        assert slow.wait(20)
        real(*given)

    tail.buffer.write = late
    thread = threading.Thread(target=tail.with_more, args=(rows, np.ones(5, np.int64), vectors))
    thread.start()
    assert held.wait(20)
    made = tail.with_more(rows[::-1], np.ones(5, np.int64), vectors[::-1])
    slow.set()
    thread.join()
    np.testing.assert_array_equal(made.rows, rows[::-1])
    np.testing.assert_allclose(made.vectors_of(np.arange(5)), vectors[::-1], rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork(tmp_path, keyset):
    store, things, stored = filled(f"faiss:{tmp_path}?index=hnsw", keyset)

    def use():
        kept = state_of(things).parts[0].graph
        check(things, stored)
        assert state_of(things).parts[0].graph is kept
        more = dict(zip([f"more {i}" for i in range(100)], vectors_of(100, 4), strict=True))
        things.upsert(list(more), np.array(list(more.values())))
        things.maintain()
        check(things, stored | more)
        return more

    more = in_child(use)
    check(things, stored | more)
    store.close()


def test_threads(tmp_path, keyset):
    store, things, stored = filled(f"faiss:{tmp_path}?index=hnsw", keyset)
    failed = []

    def work(number):
        mine = dict(zip([f"{number}/{i}" for i in range(30)], vectors_of(30, number), strict=True))
        for _ in range(3):
            things.upsert(list(mine), np.array(list(mine.values())))
            for id, vector in list(mine.items())[:5]:
                (hit,) = things.search(vector, k=1)
                assert hit.id == id

    def build():
        for n in range(4):
            things.maintain(purge=n % 2 == 1)

    threads = [guarded(failed, work, number) for number in range(1, 9)] + [guarded(failed, build)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    for number in range(1, 9):
        stored |= dict(zip([f"{number}/{i}" for i in range(30)], vectors_of(30, number), strict=True))
    things.maintain()
    check(things, stored)
    store.close()
