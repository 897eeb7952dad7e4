"""The contract, kept by records in a SQLite file; and what only a file can do."""

import shutil
import sqlite3
import tempfile
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from encvec_store.data import Range, Term
from encvec_store.errors import StoreUnreachableError
from encvec_store.storage.protocol import Blob, CollectionSpec
from encvec_store.storage.sqlite import SqliteStore, changes
from encvec_store.storage.sqlite.tables import metadata
from encvec_store.storage.sqlite.writing import SqliteWriter
from tests.kits.records import CONFIG, DIM, SPEC, WIDTH, Follower, batch, by_partition, content, kept, token
from tests.storage.contract import RecordsContract


@contextmanager
def place():
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        yield lambda: opened.enter_context(closing(SqliteStore(Path(folder), lock_timeout=0.2)))


class TestSqlite(RecordsContract):
    @pytest.fixture
    def fresh(self):
        return place


@pytest.fixture
def store(tmp_path):
    with closing(SqliteStore(tmp_path, lock_timeout=0.2)) as store:
        yield store


@pytest.fixture
def records(store):
    return store.create(SPEC, CONFIG)


@pytest.fixture
def apart(records, tmp_path):
    """The file, as another program opens it."""
    with closing(sqlite3.connect(tmp_path / "records.sqlite3", isolation_level=None)) as apart:
        yield apart


@pytest.mark.parametrize("name", sorted(metadata.tables))
def test_every_table_has_a_primary_key(name, apart):
    assert list(metadata.tables[name].primary_key)
    assert any(row[5] for row in apart.execute(f"PRAGMA table_info({name})"))


@pytest.mark.parametrize("n", [2, 1_500])
def test_only_a_large_write_has_the_larger_cache(store, records, monkeypatch, n):
    """And only while it lasts, whether it is committed or not."""
    before, seen = SqliteWriter._count, []

    def count(self, more):
        seen.append(self._cursor.execute("PRAGMA cache_size").fetchone()[0])
        if len(seen) == 2:
            raise KeyError
        before(self, more)

    monkeypatch.setattr(SqliteWriter, "_count", count)
    records.put(batch(range(n)), under=CONFIG)
    with pytest.raises(KeyError):
        records.put(batch(range(n, 2 * n)), under=CONFIG)
    assert seen == ([-64_000] * 2 if n > 1_000 else [-2_000] * 2)
    assert records.count() == n
    with store._database.write() as cursor:
        assert cursor.execute("PRAGMA cache_size").fetchone() == (-2_000,)


def test_flush_folds_the_log_where_nobody_reads_it(store, records, apart, tmp_path):
    log = tmp_path / "records.sqlite3-wal"
    records.put(batch("abc"), under=CONFIG)
    apart.execute("BEGIN")
    apart.execute("SELECT * FROM records").fetchall()
    records.put(batch("d"), under=CONFIG)
    records.flush()
    assert log.stat().st_size, "it is read from"
    apart.execute("ROLLBACK")
    records.flush()
    assert not log.stat().st_size
    assert set(content(records)) == set(map(token, "abcd"))
    with store._database.write() as cursor:
        assert cursor.execute("PRAGMA busy_timeout").fetchone() == (200,)


@pytest.mark.parametrize("company", [True, False])
def test_what_goes_leaves_nothing_behind(store, company, tmp_path):
    """Not in a table, whichever way records go; and what others have stays."""
    terms = [(i, "f", Term("number", float(i))) for i in range(9)]
    first = store.create(SPEC, CONFIG)
    if company:
        second = store.create(CollectionSpec("acme", "other", DIM, WIDTH), CONFIG)
        second.put(batch(range(9), terms=terms), under=CONFIG, blobs={"profile": Blob(1, b"theirs")})
    third = store.create(CollectionSpec("acme", "third", DIM, WIDTH), CONFIG)
    apart = sqlite3.connect(tmp_path / "records.sqlite3")

    def held():
        count = "SELECT count(*) FROM "
        return {table: apart.execute(count + table).fetchone()[0] for table in metadata.tables}

    nothing = held()
    first.put(batch(range(9), terms=terms), under=CONFIG, blobs={"profile": Blob(1, b"ours")})
    first.put(batch(range(3), terms=terms[:2]), under=CONFIG)
    assert held()["terms"] - nothing["terms"] == 6 + 2
    first.remove(first.rows()[:2])
    assert held()["records"] - nothing["records"] == 7
    assert held()["changes"] - nothing["changes"] == 4, "the second write added and removed"
    names = [n for n in range(9) if token(n) in content(first)]
    again = [kept(first, names[:3], terms=terms[:3]), kept(first, names[3:], terms=terms[:1], partition=2)]
    first.replace(again, b"new", under=CONFIG)
    assert (first.partitions(), first.check()) == ({1: 3, 2: 4}, [])
    assert held()["terms"] - nothing["terms"] == 3 + 1
    store.drop("acme", "faces")
    del nothing["collections"]
    assert {table: n for table, n in held().items() if table != "collections"} == nothing
    assert third.check() == []
    if company:
        assert len(second.rows(Range("f", "number", 0.0, 9.0))) == second.count() == 9
        assert second.blob("profile") == b"theirs"
    apart.close()


def test_a_drop_takes_along_the_index_files(store, records, tmp_path):
    """Nobody else would: numbers of collections never come again."""
    other = store.create(CollectionSpec("acme", "other", DIM, WIDTH), CONFIG)
    for one in (records, other):
        folder = store.index_folder(one.collection)
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    store.drop(SPEC.tenant, SPEC.name)
    assert not store.index_folder(records.collection).exists()
    assert store.index_folder(other.collection).exists()
    assert store.create(SPEC, CONFIG).collection not in (records.collection, other.collection)


def test_check_finds_what_another_program_did(records, apart):
    records.put(batch(range(9), terms=[(0, "f", Term("number", 1.0))]), under=CONFIG)
    for change, told in (
        ("DELETE FROM vectors WHERE row = (SELECT max(row) FROM records)", "1 records have no vector"),
        ("UPDATE vectors SET envelope = x'00' WHERE row = (SELECT min(row) FROM records)", "wrong length"),
        ("DELETE FROM index_vectors WHERE row = (SELECT max(row) FROM records)", "no index vector"),
        ("UPDATE partitions SET records = 5", "miscounted"),
        ("UPDATE changes SET rows = x'00'", "not ranges"),
        ("UPDATE meta SET value = 1 WHERE name = 'next_row'", "never given out"),
    ):
        apart.execute(change)
        assert any(told in line for line in records.check()), told
    # and what is left can still be read
    assert len(records.vectors(records.rows())[0]) == 8


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM changes",
        "DELETE FROM changes WHERE generation = (SELECT max(generation) FROM changes)",
        "UPDATE changes SET rows = x'00'",
        "UPDATE changes SET rows = 'text'",
        "UPDATE changes SET rows = 5",
    ],
)
def test_changes_that_another_program_took_out_or_altered_are_made_good(records, apart, change):
    one = Follower()
    records.put(batch("abc"), under=CONFIG)
    one.follow(records)
    records.put(batch("cd", seed=1), under=CONFIG)
    records.put(batch([]), under=CONFIG)
    apart.execute(change)
    assert one.follow(records).whole
    assert one.partitions == by_partition(records)


def test_the_change_table_stays_small(records, apart, monkeypatch):
    """Without anybody who tidies up; and followers of every age go on."""
    monkeypatch.setattr(changes, "KEPT", 5)
    monkeypatch.setattr(changes, "ENTRIES_MOST", 10)
    followers = []
    for turn in range(30):
        followers.append(Follower())
        followers[-1].follow(records)
        records.put(batch([turn % 4], seed=turn), under=CONFIG)
        assert apart.execute("SELECT count(*) FROM changes").fetchone()[0] <= 2 * 2 * 5
    wholes = []
    for one in followers:
        wholes.append(one.follow(records).whole)
        assert one.partitions == by_partition(records)
    assert wholes == sorted(wholes, reverse=True)
    assert 5 <= wholes.count(False) < 10
    for turn in range(6):
        records.put(batch([turn % 4], seed=turn), under=CONFIG)
    records.flush()
    assert apart.execute("SELECT count(*) FROM changes").fetchone()[0] <= 10


def test_very_scattered_changes_are_forgotten(records, apart, monkeypatch):
    monkeypatch.setattr(changes, "BYTES_MOST", 16 * 20)
    records.put(batch(range(100)), under=CONFIG)
    one = Follower()
    one.follow(records)
    records.remove(records.rows()[::2])
    records.flush()
    assert apart.execute("SELECT count(*) FROM changes").fetchone() == (0,)
    assert one.follow(records).whole
    assert one.partitions == by_partition(records)
    records.put(batch([200]), under=CONFIG)
    assert not one.follow(records).whole


def test_older_copy_of_the_file_put_back(tmp_path):
    """A generation comes again with other content; its stamp does not. And rows of before are not used again."""
    path = tmp_path / "records.sqlite3"
    with closing(SqliteStore(tmp_path)) as store:
        store.create(SPEC, CONFIG).put(batch("abc"), under=CONFIG)
    old = path.read_bytes()
    one = Follower()
    with closing(SqliteStore(tmp_path)) as store:
        records = store.open(SPEC.tenant, SPEC.name)
        records.put(batch("de"), under=CONFIG)
        one.follow(records)
        assert one.follow(records, stamp=one.stamp) is None
        lost = set(records.rows().tolist())
    path.write_bytes(old)
    with closing(SqliteStore(tmp_path)) as store:
        records = store.open(SPEC.tenant, SPEC.name)
        records.put(batch("fg"), under=CONFIG)
        assert records.generation() == one.generation
        assert one.copy().follow(records, stamp=one.stamp).whole
        assert not set(records.rows()[-2:].tolist()) & lost


def test_asking_for_the_generation_is_cheap(records, monkeypatch):
    """Every search does: no statement but the version of the file where nobody has written."""
    records.put(batch("abc"), under=CONFIG)
    known = records.generation()
    monkeypatch.setattr(records._database, "read", None)
    monkeypatch.setattr(records._database, "snapshot", None)
    assert records.generation() == known


def test_a_damaged_generation_is_told(records, apart):
    records.generation()
    apart.execute("UPDATE collections SET generation = 'many'")
    with pytest.raises(StoreUnreachableError, match="must be an integer"):
        records.generation()


@pytest.mark.parametrize("value", [5, 5.5, "text"])
def test_values_of_a_wrong_type_are_empty(records, apart, value):
    """SQLite keeps them in any column. What opens them finds that they are damaged."""
    records.put(batch("ab"), under=CONFIG, blobs={"profile": Blob(1, b"whole")})
    rows = records.rows()
    for column in ("vectors.envelope", "records.payload", "index_vectors.vector", "records.token"):
        table, name = column.split(".")
        apart.execute(f"UPDATE {table} SET {name} = ? WHERE row = ?", (value, int(rows[0])))
    apart.execute("UPDATE blobs SET content = ?", (value,))
    assert records.vectors(rows)[1][0].tobytes() == bytes(WIDTH)
    assert records.payloads(rows)[1][0] == b""
    assert records.index_vectors(rows)[1][0].tolist() == [0.0] * DIM
    assert [found[2] for found in records.audit(rows)] == [b"", token("b")]
    assert records.blob("profile") == b""
    assert records.check()


def test_a_copy_of_the_folder_is_the_same_store(records, store, tmp_path):
    records.put(batch("abc"), under=CONFIG)
    records.flush()
    shutil.copytree(tmp_path, tmp_path / "copy")
    with closing(SqliteStore(tmp_path / "copy")) as other:
        found = other.open(SPEC.tenant, SPEC.name)
        assert content(found) == content(records)
        assert np.array_equal(found.rows(), records.rows())
        assert found.spec == CollectionSpec(SPEC.tenant, SPEC.name, DIM, WIDTH)
