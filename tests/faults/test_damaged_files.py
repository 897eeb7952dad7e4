"""Flipped bytes, files cut short or of another time: healed, or named; never a wrong answer."""

import contextlib
import logging
import random
import secrets
import shutil

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import errors
from tests.kits.faults.common import check, open_again, records
from tests.kits.faults.worker import DIM, FAISS, PASSPHRASE, SIZE, batch

pytestmark = pytest.mark.faults


@pytest.fixture
def saved(keyset, tmp_path):
    """A folder with a saved index, closed, and what is in it."""
    folder = tmp_path / "data"
    store, things = open_again(FAISS.format(folder), keyset)
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
            store, things = open_again(FAISS.format(copy), keyset)
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
        open_again(FAISS.format(folder), keyset)


def test_a_flipped_byte_of_the_index_cache(saved, keyset, tmp_path, caplog):
    """It is healed from the records."""
    folder, expected = saved
    caplog.set_level(logging.ERROR, "encvec_store")
    rng = random.Random(8)
    files = [path.relative_to(folder) for path in sorted((folder / "index").rglob("*")) if path.is_file()]
    assert len(files) >= 4
    for name in files:
        size = (folder / name).stat().st_size
        for number in range(min(size, 8)):
            copy = tmp_path / f"copy{number}"
            shutil.copytree(folder, copy)
            flip(copy / name, rng.randrange(size), rng.randrange(8))
            store, things = open_again(FAISS.format(copy), keyset)
            assert not read_all(things, expected), name
            assert not things.verify().damaged
            things.flush()
            check(things, expected)
            store.close()
            store, things = open_again(FAISS.format(copy), keyset)
            check(things, expected)
            store.close()
            shutil.rmtree(copy)


def test_index_files_cut_short_missing_or_of_another_time(saved, keyset, tmp_path):
    folder, expected = saved
    older = tmp_path / "older"
    shutil.copytree(folder, older)
    store, things = open_again(FAISS.format(folder), keyset)
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
        store, things = open_again(FAISS.format(folder), keyset)
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
    store, things = open_again(FAISS.format(folder), keyset)
    things.upsert(*batch(3))
    things.search(np.ones(DIM))
    things.flush()
    store.close()
    for name in ("records.sqlite3", "records.sqlite3-wal", "records.sqlite3-shm"):
        (folder / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup", folder / "records.sqlite3")
    store, things = open_again(FAISS.format(folder), keyset)
    if loaded:
        check(things, expected)
    things.upsert(*batch(4))
    check(things, records([0, 1, 2, 4]))
    things.flush()
    store.close()
    store, things = open_again(FAISS.format(folder), keyset)
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


def test_what_is_no_store(keyset, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "records.sqlite3").write_bytes(b"not a database" * 1000)
    for folder in (tmp_path / "file", odd):
        with pytest.raises(errors.StoreUnreachableError) as caught:
            ev.connect(f"faiss:{folder}", keyset=keyset).collection("things", dim=DIM)
        assert str(folder) in str(caught.value)
