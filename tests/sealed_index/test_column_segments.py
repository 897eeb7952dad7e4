"""Columns of metadata are stored with the graphs: by whom, of which rows, and what happens when they are damaged."""

import logging
import os
import signal
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import low_level
from encvec_store.errors import AuthenticationError
from encvec_store.sealed_index import arrays as containers
from encvec_store.sealed_index import column_shelf, lease, manifest
from encvec_store.sealed_index.columns import FieldColumns
from encvec_store.sealed_index.filling import RowSource
from encvec_store.storage import Blob
from tests.kits import sealed
from tests.kits.sealed import apart, vectors_of

N = 200


@pytest.fixture(autouse=True)
def small(monkeypatch):
    sealed.small(monkeypatch)


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


def opened(url, keyset, **options):
    apart()
    store = ev.connect(str(url), keyset=keyset, maintenance="manual", **options)
    return store, store.collection("things", dim=sealed.DIM, metric="l2", scheme="sealed")


def write(things, start, stop):
    names = [f"{i}" for i in range(start, stop)]
    metadata = [{"n": i, "text": f"t{i % 5}", "list": [i]} for i in range(start, stop)]
    things.upsert(names, vectors_of(len(names), start), metadata)


def listed(things, version=1):
    session = low_level.session(things)
    found = manifest.read(session.records, session.keyring, version)
    return () if found is None else found[0].columns


def found(things, where, k=N * 2):
    return sorted(int(hit.id) for hit in things.search(np.zeros(sealed.DIM), k=k, where=where))


class Counted:
    """Counts the payloads that are opened."""

    def __init__(self, things, monkeypatch):
        self.rows, kind = 0, type(low_level.session(things))
        inner = kind.open_payloads

        def counting(session, rows, *rest):
            self.rows += len(rows)
            return inner(session, rows, *rest)

        monkeypatch.setattr(kind, "open_payloads", counting)


def test_a_fresh_process_opens_no_payloads(tmp_path, keyset, monkeypatch):
    url = f"faiss:{tmp_path}?index=hnsw"
    store, things = opened(url, keyset)
    write(things, 0, N)
    things.maintain()
    (segment,) = listed(things)
    assert segment.count == N
    store.close()
    store, things = opened(url, keyset)
    counted = Counted(things, monkeypatch)
    assert found(things, {"n": {"lt": 3}}) == [0, 1, 2]
    assert found(things, {"text": "t2", "n": {"gte": 100}}) == list(range(102, N, 5))
    assert things.count(where={"text": {"gte": "t3"}}) == N * 2 // 5
    assert counted.rows < N / 2 + 4, "no more than the hits"
    counted.rows = 0
    assert found(things, {"list": [7]}) == [7], "a list is no column by itself"
    assert counted.rows > N
    store.close()


def test_new_rows_only(tmp_path, keyset, monkeypatch):
    """Small segments are merged, by their numbers of rows. A large one is not written again."""
    monkeypatch.setattr(column_shelf, "FULL", 150)
    store, things = opened(f"faiss:{tmp_path}?index=hnsw", keyset)
    write(things, 0, N)
    things.maintain()
    first = listed(things)
    assert [segment.count for segment in first] == [150, 50]
    write(things, N, N + 20)
    things.maintain()
    second = listed(things)
    assert second[0] == first[0]
    assert [segment.count for segment in second] == [150, 50, 20]
    write(things, N + 20, N + 60)
    things.maintain()
    assert [segment.count for segment in listed(things)] == [150, 110]
    assert found(things, {"n": {"gte": 0}}) == list(range(N + 60))
    store.close()


def test_deleted_rows_leave(tmp_path, keyset):
    url = f"faiss:{tmp_path}?index=hnsw"
    store, things = opened(url, keyset)
    write(things, 0, N)
    things.maintain()
    things.delete([f"{i}" for i in range(0, N, 20)])
    things.maintain(purge=True)
    assert sum(segment.count for segment in listed(things)) == N - 10
    store.close()
    store, things = opened(url, keyset)
    assert found(things, {"n": {"lt": 30}}) == [i for i in range(30) if i % 20]
    store.close()


def test_key_versions(tmp_path, keyset, monkeypatch):
    url = f"faiss:{tmp_path}?index=hnsw"
    store, things = opened(url, keyset)
    write(things, 0, N)
    things.maintain()
    keyset.rotate()
    write(things, N, N + 100)
    things.maintain()
    assert [sum(segment.count for segment in listed(things, version)) for version in (1, 2)] == [N, 100]
    assert found(things, {"n": {"gte": 190}}) == list(range(190, 300))
    keyset.disable(1)
    assert found(things, {"n": {"gte": 190}}) == list(range(200, 300))
    keyset.enable(1)
    counted = Counted(things, monkeypatch)
    assert found(things, {"n": {"gte": 198}}) == list(range(198, 300))
    assert counted.rows < N
    keyset.destroy(1)
    things.search(vectors_of(1, 0)[0], k=1)
    columns = sealed.index_of(things).columns
    assert not columns.count, "they are dropped at the next search, also of one without a filter"
    assert found(things, {"n": {"gte": 190}}) == list(range(200, 300))
    things.maintain()
    assert not [name for name in low_level.session(things).records.blobs("index.1.")]
    store.close()


def flipped(content):
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


@pytest.mark.parametrize("what", ["altered", "cut off", "missing", "swapped", "malformed"])
def test_damage(tmp_path, keyset, caplog, monkeypatch, what):
    """Filters stay right, the log says so once, graphs are not built anew, and columns are stored again."""
    url = f"faiss:{tmp_path}?index=hnsw"
    monkeypatch.setattr(column_shelf, "FULL", 120)
    store, things = opened(url, keyset)
    write(things, 0, N)
    things.maintain()
    session = low_level.session(things)
    first, second = listed(things)
    content = session.records.blob(first.name)
    if what == "missing":
        session.records.keep(drop=[first.name])
    else:
        plain = np.concatenate(containers.pieces({"rows": np.arange(5)})).tobytes().ljust(first.padded, b"\0")
        content = {
            "altered": flipped(content),
            "cut off": content[: len(content) // 2],
            "swapped": session.records.blob(second.name),
            "malformed": session.keyring.seal_segment(1, first.name, 0, 1, first.count, plain).content,
        }[what]
        session.records.keep([(first.name, 0, Blob(1, content))])
    store.close()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "encvec_store"):
        store, things = opened(url, keyset)
        assert found(things, {"n": {"lt": 3}}) == [0, 1, 2]
        assert found(things, {"n": {"gte": 118}}) == list(range(118, N))
        things.maintain()
    assert len(caplog.records) == 1
    assert first.name not in {segment.name for segment in listed(things)}
    store.close()
    store, things = opened(url, keyset)
    counted = Counted(things, monkeypatch)
    assert found(things, {"n": {"lt": 3}}) == [0, 1, 2]
    assert counted.rows < 10
    store.close()


def test_older_columns_put_back(tmp_path, keyset):
    """With their manifest: they lack rows, and name some that are gone."""
    url = f"faiss:{tmp_path}?index=hnsw"
    store, things = opened(url, keyset)
    write(things, 0, N)
    things.maintain()
    session = low_level.session(things)
    records = session.records
    old = [(name, 0, Blob(1, records.blob(name))) for name in records.blobs("index.")]
    things.delete([f"{i}" for i in range(50)])
    write(things, N, N + 90)
    things.upsert(["60"], vectors_of(1, 9), [{"n": -1}])
    things.maintain(purge=True)
    records.keep(old)
    store.close()
    store, things = opened(url, keyset)
    assert found(things, {"n": {"lt": 70}}) == list(range(50, 70))
    assert found(things, {"n": {"lt": 0}}) == [60]
    assert found(things, {"n": {"gte": N}}) == list(range(N, N + 90))
    things.maintain()
    assert found(things, {"n": {"lt": 70}}) == list(range(50, 70))
    store.close()


def test_a_payload_that_does_not_open_is_in_no_segment(tmp_path, keyset):
    store, things = opened(f"faiss:{tmp_path}?index=hnsw", keyset)
    write(things, 0, N)
    session = low_level.session(things)
    known, inner = session.records.rows(), session.open_payloads
    bad = known[7]

    class Damaged:
        records, keyring = session.records, session.keyring

        def open_payloads(self, rows):
            if bad in rows:
                raise AuthenticationError("a record could not be authenticated")
            return inner(rows)

    columns = FieldColumns()
    RowSource(Damaged(), FieldColumns()).add(columns, known)
    assert columns.rows.tolist() == [row for row in known.tolist() if row != bad]
    store.close()


@pytest.mark.parametrize("writes", range(1, 6))
def test_killed_while_columns_are_stored(tmp_path, keyset, monkeypatch, writes):
    """At any write of a save: what is left of it is not used, or whole."""
    url = f"faiss:{tmp_path}?index=hnsw"
    store, things = opened(url, keyset)
    write(things, 0, N)
    things.maintain()
    store.close()

    def dies():
        _, things = opened(url, keyset)
        write(things, N, N + 90)
        records, left = low_level.session(things).records, [writes]
        keep = type(records).keep

        def killed(self, *given, **how):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return keep(self, *given, **how)

        monkeypatch.setattr(type(records), "keep", killed)
        things.maintain()

    child = os.fork()
    if not child:
        with suppress(BaseException):
            dies()
        os._exit(0)
    os.waitpid(child, 0)
    monkeypatch.setattr(lease, "SECONDS", -1.0)
    store, things = opened(url, keyset)
    for _ in range(2):
        assert found(things, {"n": {"gte": N - 5}}) == list(range(N - 5, N + 90))
        assert found(things, {"text": "t1"}) == list(range(1, N + 90, 5))
        things.maintain()
    named, there = sealed.named_and_there(things)
    assert named >= there - {lease.lease_name(1)}
    store.close()


@pytest.mark.parametrize("what", ["altered", "missing", "swapped"])
def test_verify_finds_damage_and_maintain_mends_it(tmp_path, keyset, monkeypatch, what):
    """Nobody needs to filter for that."""
    url = f"faiss:{tmp_path}?index=hnsw"
    monkeypatch.setattr(column_shelf, "FULL", 120)
    store, things = opened(url, keyset)
    write(things, 0, N)
    things.maintain()
    assert things.verify().ok
    records = low_level.session(things).records
    first, second = listed(things)
    if what == "missing":
        records.keep(drop=[first.name])
    else:
        content = flipped(records.blob(first.name)) if what == "altered" else records.blob(second.name)
        records.keep([(first.name, 0, Blob(1, content))])
    store.close()
    store, things = opened(url, keyset)
    (line,) = things.verify().store
    assert "columns 1 of 2 are damaged" in line or f"segment {first.name} is not in the store" in line
    things.maintain()
    assert things.verify().ok
    assert found(things, {"n": {"lt": 3}}) == [0, 1, 2]
    store.close()


def moved(block):
    return replace(block, rows=block.rows + 1)


def fewer(block):
    columns = FieldColumns()
    columns.adopt(block, block.rows[::2])
    return columns.block(block.rows)


def other(name):
    def changed(block):
        values = block.columns[name]
        words = None if values.words is None else values.words + 1
        return replace(block, columns=block.columns | {name: replace(values, words=words, codes=values.codes[::-1])})

    return changed


def without(block):
    return replace(block, columns={name: values for name, values in block.columns.items() if name != "text"})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (moved, "columns 1 of 1 are of other rows"),
        (fewer, f"columns lack {N // 2} of {N} records"),
        (other("n"), f"columns 1 of 1: {N} of {N} records have other metadata"),
        (other("text"), "records have other metadata"),
        (without, f"{N} of {N} records have other metadata"),
    ],
)
def test_verify_compares_columns_with_the_records(tmp_path, keyset, monkeypatch, change, fault):
    store, things = opened(f"faiss:{tmp_path}?index=hnsw", keyset)
    write(things, 0, N)
    made = column_shelf.ColumnShelf._made
    monkeypatch.setattr(column_shelf.ColumnShelf, "_made", lambda *given: change(made(*given)))
    things.maintain()
    lines = things.verify().store
    assert any(fault in line for line in lines), lines
    store.close()
