"""A SQLite store in places that change under it: folders removed, replaced or read-only, forks, stores left open."""

import gc
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from encvec_store.errors import StoreError, StoreReadOnlyError, StoreUnreachableError
from encvec_store.storage.sqlite import SqliteStore
from tests.kits.forking import in_child
from tests.kits.records import CONFIG, SPEC, batch, content

READS = (lambda records: records.rows(), lambda records: records.config(), lambda records: records.generation())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(folder):
    with closing(SqliteStore(folder, lock_timeout=0.2)) as store:
        yield store


@pytest.fixture
def records(store):
    records = store.create(SPEC, CONFIG)
    records.put(batch("abc"), under=CONFIG)
    return records


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_stores_that_nobody_closes_leave_nothing_open(folder):
    def use():
        SqliteStore(folder).collections()

    use()
    gc.collect()
    before = descriptors()
    for _ in range(200):
        use()
    gc.collect()
    assert descriptors() == before


class TestMovedAway:
    """The path no longer names the file that is open: what were written there would be lost."""

    @pytest.fixture(params=["removed", "folder removed", "replaced by a copy", "replaced by another"])
    def move(self, request, folder, tmp_path):
        def move():
            if request.param == "removed":
                (folder / "records.sqlite3").unlink()
            elif request.param == "folder removed":
                shutil.rmtree(folder)
            elif request.param == "replaced by a copy":
                shutil.copytree(folder, tmp_path / "copy")
                folder.rename(tmp_path / "old")
                (tmp_path / "copy").rename(folder)
            else:
                folder.rename(tmp_path / "old")
                SqliteStore(folder).close()

        return move

    def test_every_write_is_refused(self, store, records, move):
        move()
        for write in (
            lambda: records.put(batch("d"), under=CONFIG),
            lambda: records.remove(np.array([1])),
            lambda: records.replace([], CONFIG, under=CONFIG),
            records.keep,
            lambda: store.drop(SPEC.tenant, SPEC.name),
        ):
            with pytest.raises(StoreUnreachableError, match="was removed or replaced while the store was open"):
                write()

    def test_so_is_one_that_was_begun(self, records, move):
        def batches():
            move()
            yield batch("e")

        with pytest.raises(StoreUnreachableError, match="was removed or replaced"):
            records.put(batch("d"), under=CONFIG, more=batches())

    def test_and_nobody_searches_what_is_gone(self, records, move):
        move()
        with pytest.raises(StoreUnreachableError, match="was removed or replaced"):
            records.generation()

    def test_it_can_be_opened_again(self, folder, store, records, tmp_path):
        folder.rename(tmp_path / "away")
        with pytest.raises(StoreUnreachableError):
            records.put(batch("d"), under=CONFIG)
        (tmp_path / "away").rename(folder)
        records.put(batch("d"), under=CONFIG)
        assert records.count() == 4


def test_opening_a_store_twice_keeps_the_locks_of_the_first(folder, records, monkeypatch):
    """To close any descriptor of the file would drop the locks that SQLite holds on it in this process."""
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *given, **more: opened.append(str(path)) or real(path, *given, **more))
    SqliteStore(folder).close()
    assert not [path for path in opened if "records.sqlite3" in path]


class TestReadOnly:
    def refused(self, store, records):
        for write in (
            lambda: records.put(batch("d"), under=CONFIG),
            lambda: records.remove(records.rows()),
            lambda: records.replace([], CONFIG, under=CONFIG),
            records.keep,
            lambda: store.create(SPEC, CONFIG),
            lambda: store.drop(SPEC.tenant, SPEC.name),
        ):
            with pytest.raises(StoreReadOnlyError, match="open for reading only; nothing was written"):
                write()

    def test_asked_for(self, folder, store, records, caplog):
        with closing(SqliteStore(folder, read_only=True)) as reader:
            found = reader.open(SPEC.tenant, SPEC.name)
            assert content(found) == content(records)
            assert found.check() == []
            found.flush()
            self.refused(reader, found)
            records.put(batch("d"), under=CONFIG)
            assert found.count() == 4
            assert found.generation() == records.generation()
        assert not caplog.records

    def test_no_store_is_made(self, tmp_path):
        with pytest.raises(StoreUnreachableError, match="cannot open the store"):
            SqliteStore(tmp_path / "none", read_only=True)
        assert not (tmp_path / "none").exists()

    def test_a_folder_that_cannot_be_written(self, folder, records, store, monkeypatch, caplog):
        """As the system tells it: a superuser may write everywhere, so it is told so here."""
        expected = content(records)
        store.close()
        able = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and able(path, mode))
        with closing(SqliteStore(folder)) as reader:
            found = reader.open(SPEC.tenant, SPEC.name)
            assert content(found) == expected
            assert found.check() == []
            self.refused(reader, found)
            assert [record.getMessage() for record in caplog.records] == [
                f"the store in {folder} is opened read-only: Permission denied"
            ]
            assert sorted(path.name for path in folder.iterdir()) == ["records.sqlite3"]
            with closing(sqlite3.connect(folder / "records.sqlite3")) as other:
                other.execute("UPDATE collections SET stamp = 1")
                other.commit()
                with pytest.raises(StoreUnreachableError, match="was written to after it was opened"):
                    found.generation()

    @pytest.mark.parametrize("live", [False, True], ids=["closed", "open elsewhere"])
    def test_a_read_only_mount(self, folder, store, records, tmp_path, live):
        program = (
            "import sys; from pathlib import Path; from encvec_store.storage.sqlite import SqliteStore\n"
            f"r = SqliteStore(Path({str(folder)!r})).open({SPEC.tenant!r}, {SPEC.name!r})\n"
            "print(r.count(), len(r.payloads(r.rows())[1]), r.check(), r.generation())"
        )
        generation = records.generation()
        if not live:
            store.close()
        mount = f'mount --bind "{folder}" "{folder}" && mount -o remount,ro,bind "{folder}" && exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", mount, "sh", sys.executable, "-c", program]
        if shutil.which("unshare") is None or subprocess.run([*command[:5], "exit", "sh"], check=False).returncode:
            pytest.skip("no mounts of its own here")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == f"3 3 [] {generation}\n", done.stderr
        assert done.stderr.count("is opened read-only: Read-only file system") == 1


class TestForked:
    def test_a_child_reads_and_writes_on_connections_of_its_own(self, store, records):
        def child():
            records.put(batch("d"), under=CONFIG)
            return records.count(), records.generation()

        before = records.generation()
        assert in_child(child) == (4, before + 1)
        assert records.generation() == before + 1
        records.put(batch("e"), under=CONFIG)
        assert in_child(lambda: [len(read(records)) for read in READS[:2]]) == [5, len(CONFIG)]
        assert records.check() == []

    def test_a_child_follows_its_parent(self, records):
        """SQLite's number of commits begins anew on another connection: the old one must not pass for it."""
        known = records.generation()

        def child():
            first = records.generation()
            with closing(sqlite3.connect(records._database.path)) as other:
                other.execute("UPDATE collections SET generation = generation + 1")
                other.commit()
            return first, records.generation()

        assert in_child(child) == (known, known + 1)

    def test_a_child_that_ends_leaves_the_file_to_its_parent(self, folder, records):
        in_child(lambda: gc.collect() and None)
        assert (folder / "records.sqlite3-wal").stat().st_size
        assert records.count() == 3

    def test_in_the_middle_of_a_write(self, records):
        """The parent's transaction is the parent's: the child waits for it, as any process does."""

        def child():
            try:
                records.put(batch("d"), under=CONFIG)
            except StoreError as error:
                return type(error).__name__

        told = []

        def batches():
            told.append(in_child(child))
            yield batch("e")

        records.put(batch("f"), under=CONFIG, more=batches())
        assert told == ["StoreLockedError"]
        assert records.count() == 5
