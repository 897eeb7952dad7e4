"""Killed processes, two processes, flipped bytes, full disks: what was acknowledged is there, and nothing is half."""

import contextlib
import itertools
import logging
import multiprocessing
import os
import random
import secrets
import shutil
import signal
import sys
import time

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import errors
from tests.faults import worker
from tests.faults.worker import DIM, FIELDS, PASSPHRASE, SIZE, VARIABLE, batch
from tests.stores.oracle import assert_hits

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform == "win32", reason="kills by signal, limits by setrlimit"),
]

# Children come from a server that has imported everything: real processes, and a kill costs no second of imports.
CONTEXT = multiprocessing.get_context("forkserver") if sys.platform != "win32" else multiprocessing
if sys.platform != "win32":
    CONTEXT.set_forkserver_preload(["tests.faults.worker", "encvec_store.backends.faiss"])


@pytest.fixture
def keyset(monkeypatch):
    """A keyset that a child opens from the environment."""
    keyset = ev.Keyset.create("memory:")
    monkeypatch.setenv(VARIABLE, keyset.export(unsafe_cleartext=True))
    return keyset


@contextlib.contextmanager
def child(task, folder, start=0):
    """Run a worker's task; killed at the end, if it still lives."""
    mine, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_run, args=(os.environ.get(VARIABLE), task, theirs, folder, start), daemon=True)
    process.start()
    theirs.close()
    try:
        yield mine, process
    finally:
        process.kill()
        process.join(20)
        mine.close()


def _run(keyset, task, pipe, folder, start):
    if keyset:
        os.environ[VARIABLE] = keyset  # the server that forked us has an environment of its own
    worker.main(task, pipe, folder, start)


def kill_in_the_middle(task, folder, start, rng, within=0.1):
    """Let a task acknowledge something, kill -9 at a random moment, and return all that it acknowledged."""
    with child(task, folder, start) as (pipe, process):
        assert pipe.poll(30), "the child does nothing"
        acknowledged = [pipe.recv()]
        time.sleep(rng.uniform(0, within))
        os.kill(process.pid, signal.SIGKILL)
        process.join(20)
        assert process.exitcode == -signal.SIGKILL, "it ended before it was killed"
        try:
            while pipe.poll(0):
                acknowledged.append(pipe.recv())
        except (EOFError, ConnectionResetError):
            pass
    return acknowledged


def open_again(folder, keyset):
    store = ev.connect(worker.URL.format(folder), keyset=keyset)
    scheme = None if store.collections() else "sap"
    return store, store.collection("things", dim=DIM, scheme=scheme, fields=FIELDS, oversample=10_000)


def check(things, expected):
    """Verify, and compare every record and the answers with what must be there: {id: (vector, metadata, document)}."""
    report = things.verify()
    assert report.ok, report
    found = {record.id: record for record in things.scroll()}
    assert found.keys() == expected.keys()
    for id, (vector, metadata, document) in expected.items():
        np.testing.assert_array_equal(found[id].vector, vector)
        assert (found[id].metadata, found[id].document) == (metadata, document)
    assert things.count() == len(expected)
    if expected:
        query = np.ones(DIM, np.float32)
        vectors = np.array([vector for vector, _, _ in expected.values()])
        assert_hits(things.search(query, k=50), "cosine", query, list(expected), vectors, 50)


def records(numbers, version=0):
    return {id: rest for n in numbers for id, *rest in zip(*batch(n, version), strict=True)}


def settled(things, n):
    """Say which version of a batch is there, whole; None where nothing of it is."""
    found = things.get(batch(n)[0])
    if not found:
        return None
    assert len(found) == SIZE, "half a batch"
    (version,) = {record.metadata["v"] for record in found}
    return version


# ------------------------------------------------------------------------------------------------ kills


def test_killed_while_writing(keyset, tmp_path):
    rng, written = random.Random(1), 0
    for _ in range(8):
        acknowledged = kill_in_the_middle("upsert", tmp_path, written, rng)
        assert acknowledged == list(range(written, acknowledged[-1] + 1))
        store, things = open_again(tmp_path, keyset)
        written = acknowledged[-1] + 1
        written += settled(things, written) is not None  # committed, and killed before it said so
        check(things, records(range(written)))
        store.close()


def test_killed_while_updating(keyset, tmp_path):
    rng, version = random.Random(2), 0
    for _ in range(6):
        acknowledged = kill_in_the_middle("update", tmp_path, version + 1, rng)
        store, things = open_again(tmp_path, keyset)
        (version,) = {settled(things, n) for n in range(3)}
        assert version in (acknowledged[-1], acknowledged[-1] + 1), "all three batches are one write"
        check(things, records(range(3), version))
        store.close()


def test_killed_while_deleting(keyset, tmp_path):
    rng, left = random.Random(3), 0
    store, things = open_again(tmp_path, keyset)
    ids, vectors, metadata, documents = zip(*map(batch, range(400)), strict=True)
    ids, metadata, documents = (list(itertools.chain(*part)) for part in (ids, metadata, documents))
    things.upsert(ids, np.concatenate(vectors), metadata, documents)
    store.close()
    for _ in range(5):
        acknowledged = kill_in_the_middle("delete", tmp_path, left, rng)
        store, things = open_again(tmp_path, keyset)
        left = acknowledged[-1] + 1
        left += left < 400 and settled(things, left) is None
        check(things, records(range(left, 400)))
        store.close()
        if left > 350:
            break


def test_killed_while_saving_the_index(keyset, tmp_path, caplog):
    """The cache is whole, or it is not used: it never answers for records that are gone, nor misses any."""
    rng, written = random.Random(4), 0
    for _ in range(8):
        acknowledged = kill_in_the_middle("flush", tmp_path, written, rng)
        store, things = open_again(tmp_path, keyset)
        written = acknowledged[-1] + 1
        written += settled(things, written) is not None
        check(things, records(range(written)))
        things.flush()
        assert "not used" not in caplog.text, "no half-written cache stood under the final name"
        store.close()


def test_killed_while_calibrating(keyset, tmp_path):
    rng = random.Random(5)
    store, things = open_again(tmp_path, keyset)
    for n in range(15):
        things.upsert(*batch(n))
    store.close()
    for n in range(6):
        kill_in_the_middle("calibrate", tmp_path, 10 * n, rng)
        store, things = open_again(tmp_path, keyset)
        stats = things.stats()
        assert stats["scheme"]["beta"] == stats["calibration"]["beta"], "settings are all old or all new"
        check(things, records(range(15)))
        store.close()


def test_killed_while_moving(keyset, tmp_path):
    """Settings, profile and index vectors are all sealed, all of one sketch, or all of the next."""
    rng, states, digests = random.Random(7), set(), set()
    for n in range(8):
        folder = tmp_path / str(n // 4)
        if n % 4 == 0:
            store = ev.connect(worker.URL.format(folder), keyset=keyset)
            things = store.collection("things", dim=DIM, fields=FIELDS, oversample=10_000)
            for number in range(14):
                things.upsert(*batch(number))
            store.close()
        kill_in_the_middle("move", folder, 0, rng, within=1.0)
        store, things = open_again(folder, keyset)
        stats = things.stats()
        states.add(stats["profile"]["state"])
        digests.add(stats["scheme"]["profile"])
        check(things, records(range(14 + (things.count() > 14 * SIZE))))
        width = things.index_vectors(["0/0"]).shape[1]
        assert width == (stats["scheme"]["k"] if stats["scheme"]["profile"] else 0)
        store.close()
    assert "sketch" in states, "it never got that far"


def test_killed_while_writing_a_key_file(tmp_path):
    path, rng = tmp_path / "keys.json", random.Random(6)
    ev.Keyset.create(f"file:{path}", passphrase=PASSPHRASE)
    for _ in range(4):
        acknowledged = kill_in_the_middle("rotate", path, 0, rng)
        keyset = ev.Keyset.open(f"file:{path}", passphrase=PASSPHRASE)
        assert keyset.primary in (acknowledged[-1], acknowledged[-1] + 1)
        assert len(keyset.live) == keyset.primary, "no version is lost"


# ---------------------------------------------------------------------------------------- two processes


def test_two_processes_write(keyset, tmp_path):
    """They take turns; both lose nothing, and a reader sees whole batches only."""
    store, things = open_again(tmp_path, keyset)
    with child("write_twenty", tmp_path, 0) as (first, _), child("write_twenty", tmp_path, 20) as (second, _):
        seen = 0
        while not (first.poll(0) and second.poll(0.01)):
            count = things.count()
            assert count % SIZE == 0
            assert count >= seen
            seen = count
            hits = things.search(np.ones(DIM), k=5)
            assert len(hits) == min(5, count) or things.count() > count
            if not first.poll(0) and not second.poll(0):
                things.upsert(*batch(99))
        assert (first.recv(), second.recv()) == ("done", "done")
    check(things, records([*range(40), *([99] if things.get(["99/0"]) else [])]))
    store.close()


def test_while_another_process_holds_the_lock(keyset, tmp_path):
    store, things = open_again(tmp_path, keyset)
    for n in range(10):
        things.upsert(*batch(n))
    store.close()
    with child("hold_the_lock", tmp_path) as (pipe, _):
        assert pipe.poll(30)
        assert pipe.recv() == "holding"
        store = ev.connect(worker.URL.format(tmp_path), keyset=keyset, lock_timeout=0.2)
        things = store.collection("things", oversample=10_000)
        calls = (
            lambda: things.upsert(*batch(50)),
            lambda: things.delete(["0/0"]),
            lambda: things.calibrate(k=2, target_recall=0.5),
            lambda: store.collection("new", dim=2),
            lambda: store.drop("things"),
        )
        for call in calls:
            with pytest.raises(errors.StoreLockedError, match="another process"):
                call()
        check(things, records(range(10)))
        pipe.send("go on")
        assert pipe.poll(30)
        assert pipe.recv() == "done"
    check(things, records(range(10)))
    things.upsert(*batch(10))
    check(things, records(range(11)))
    store.close()


# -------------------------------------------------------------------------------------- flipped bytes


@pytest.fixture
def saved(keyset, tmp_path):
    """A folder with a saved index, closed, and what is in it."""
    folder = tmp_path / "data"
    store, things = open_again(folder, keyset)
    for n in range(4):
        things.upsert(*batch(n))
    things.delete(batch(3)[0])
    things.search(np.ones(DIM))
    things.flush()
    store.close()
    return folder, records(range(3))


def read_all(things, expected, refusals=errors.EncvecError):
    """Read in every way. Returns whether something was refused or missing; wrong data fails the test."""
    flaw = False
    query = np.ones(DIM, np.float32)
    readings = (
        lambda: things.search(query, k=len(expected), include_vectors=True),
        lambda: things.search(query, k=len(expected), where={"batch": 1}, include_vectors=True),
        lambda: things.search(query, k=len(expected), where={"v": {"lte": 0}}, include_vectors=True),
        lambda: things.get(list(expected)),
        lambda: list({record.id: record for record in things.scroll()}.values()),
    )
    for number, reading in enumerate(readings):
        try:
            found = reading()
        except refusals:
            flaw = True
            continue
        assert len({record.id for record in found}) == len(found)
        for record in found:
            vector, metadata, document = expected[record.id]
            np.testing.assert_array_equal(record.vector, vector)
            assert (record.metadata, record.document) == (metadata, document)
        flaw |= len(found) != (SIZE if number == 1 else len(expected))
    return flaw


def flip(path, position, bit):
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))


def test_a_flipped_byte_of_the_records(saved, keyset, tmp_path):
    """It is named on opening or by verify, or it changes nothing."""
    folder, expected = saved
    rng = random.Random(7)
    size = (folder / "records.sqlite3").stat().st_size
    positions = [*range(0, 100, 7), *(rng.randrange(size) for _ in range(60))]
    noticed = 0
    for number, position in enumerate(positions):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(folder, copy)
        flip(copy / "records.sqlite3", position, rng.randrange(8))
        try:
            store, things = open_again(copy, keyset)
        except errors.EncvecError:
            noticed += 1
        else:
            flaw = read_all(things, expected, errors.EncvecError)
            try:
                ok = things.verify().ok
            except errors.EncvecError:
                ok = False
            assert not (ok and flaw), f"position {position}: something is amiss, and verify says nothing"
            noticed += not ok
            with contextlib.suppress(errors.EncvecError):
                store.close()
        shutil.rmtree(copy)
    assert noticed >= 10


def test_a_flipped_byte_of_the_schema(saved, keyset):
    """SQLite's complaint quotes the text that is no text any more."""
    folder, _ = saved
    path = folder / "records.sqlite3"
    flip(path, path.read_bytes().index(b"PRIMARY KEY"), 7)
    with pytest.raises(errors.StoreUnreachableError):
        open_again(folder, keyset)


def test_a_flipped_byte_of_the_index_cache(saved, keyset, tmp_path):
    """It is healed from the records."""
    folder, expected = saved
    logging.getLogger("encvec_store").setLevel(logging.ERROR)
    rng = random.Random(8)
    files = [path.relative_to(folder) for path in sorted((folder / "index").rglob("*")) if path.is_file()]
    assert len(files) >= 4
    for name in files:
        size = (folder / name).stat().st_size
        for number in range(min(size, 8)):
            copy = tmp_path / f"copy{number}"
            shutil.copytree(folder, copy)
            flip(copy / name, rng.randrange(size), rng.randrange(8))
            store, things = open_again(copy, keyset)
            assert not read_all(things, expected), name
            assert not things.verify().damaged
            things.flush()
            check(things, expected)
            store.close()
            store, things = open_again(copy, keyset)
            check(things, expected)
            store.close()
            shutil.rmtree(copy)
    logging.getLogger("encvec_store").setLevel(logging.NOTSET)


def test_index_files_cut_short_missing_or_of_another_time(saved, keyset, tmp_path):
    folder, expected = saved
    older = tmp_path / "older"
    shutil.copytree(folder, older)
    store, things = open_again(folder, keyset)
    things.upsert(*batch(3))
    things.delete(batch(0)[0])
    things.search(np.ones(DIM))
    things.flush()
    store.close()
    expected = records(range(1, 4))
    files = [path for path in sorted((folder / "index").rglob("*")) if path.is_file()]

    def tampers():
        for path in files:
            content = path.read_bytes()
            if content:
                yield lambda p=path, c=content: p.write_bytes(c[: len(c) // 2])
            yield lambda p=path: p.write_bytes(b"")
            yield lambda p=path: p.unlink()
        yield lambda: (shutil.rmtree(folder / "index"), shutil.copytree(older / "index", folder / "index"))
        yield lambda: shutil.rmtree(folder / "index")

    for tamper in list(tampers()):
        backup = tmp_path / "backup"
        shutil.copytree(folder, backup)
        tamper()
        store, things = open_again(folder, keyset)
        assert not read_all(things, expected)
        assert not things.verify().damaged
        things.flush()
        check(things, expected)
        store.close()
        shutil.rmtree(folder)
        backup.rename(folder)


@pytest.mark.parametrize("loaded", [False, True], ids=["index unloaded", "index loaded"])
def test_records_put_back_beside_a_newer_index(saved, keyset, tmp_path, monkeypatch, loaded):
    """A backup of the records, and then other writes than those that the index knows: as many, so it looks current."""
    folder, expected = saved
    leaps = iter([1 << 30])  # rows of the first process stand above those of the next, as chance would have it
    monkeypatch.setattr(secrets, "randbelow", lambda _: next(leaps, 0))
    shutil.copy(folder / "records.sqlite3", tmp_path / "backup")
    store, things = open_again(folder, keyset)
    things.upsert(*batch(3))
    things.search(np.ones(DIM))
    things.flush()
    store.close()
    for name in ("records.sqlite3", "records.sqlite3-wal", "records.sqlite3-shm"):
        (folder / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup", folder / "records.sqlite3")
    store, things = open_again(folder, keyset)
    if loaded:
        check(things, expected)
    things.upsert(*batch(4))
    check(things, records([0, 1, 2, 4]))
    things.flush()
    store.close()
    store, things = open_again(folder, keyset)
    check(things, records([0, 1, 2, 4]))
    store.close()


def test_a_flipped_byte_of_a_key_file(tmp_path):
    path, rng = tmp_path / "keys.json", random.Random(9)
    ev.Keyset.create(f"file:{path}", passphrase=PASSPHRASE)
    whole = path.read_bytes()
    for _ in range(30):
        changed = bytearray(whole)
        changed[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(errors.KeysetError):
            ev.Keyset.open(f"file:{path}", passphrase=PASSPHRASE)
    path.write_bytes(whole)
    assert ev.Keyset.open(f"file:{path}", passphrase=PASSPHRASE).primary == 1


# ---------------------------------------------------------------------------------- full, and not there


def test_a_full_disk(keyset, tmp_path):
    store, things = open_again(tmp_path, keyset)
    things.upsert(*batch(0))
    store.close()
    told = []
    with child("fill_the_disk", tmp_path, 1) as (pipe, _):
        while pipe.poll(60):
            told.append(pipe.recv())
            if told[-1] == "done":
                break
    acknowledged = [item for item in told if isinstance(item, int)]
    (failure,) = [item for item in told if isinstance(item, tuple)]
    name, message, count, hits = failure
    assert name == "StoreUnreachableError", failure
    assert message
    assert (count, hits) == (SIZE * (len(acknowledged) + 1), 1), "it can still be read"
    store, things = open_again(tmp_path, keyset)
    check(things, records(range(len(acknowledged) + 1)))
    things.upsert(*batch(1000))
    assert things.verify().ok
    store.close()


def test_what_is_no_store(keyset, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "records.sqlite3").write_bytes(b"not a database" * 1000)
    for folder in (tmp_path / "file", odd):
        with pytest.raises(errors.StoreUnreachableError) as caught:
            ev.connect(f"faiss:{folder}", keyset=keyset).collection("things", dim=DIM)
        assert str(folder) in str(caught.value)
