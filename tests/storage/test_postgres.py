"""The contract, kept by records in PostgreSQL; and what only its tables can show."""

import itertools
from contextlib import ExitStack, contextmanager

import numpy as np
import psycopg
import pytest

from encvec_store.data import Term
from encvec_store.storage.postgres import PostgresStore, changes, writer
from encvec_store.storage.postgres.source import Source
from encvec_store.storage.protocol import Blob
from tests.kits.postgres import role
from tests.kits.records import CONFIG, SPEC, Follower, batch, by_partition, kept, tokens
from tests.storage.contract import RecordsContract

SCHEMAS = itertools.count()


def ask(dsn, statement, *values):
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def place(url, store=PostgresStore, **options):
    """Yield what opens a store in a schema of its own."""
    schema = f"place_{next(SCHEMAS)}"
    with ExitStack() as opened:

        def open_store():
            made = store(url, schema=schema, lock_timeout=0.3, **options)
            opened.callback(made.close)
            return made

        yield open_store


class Contract(RecordsContract):
    examples = 10

    def test_only_what_changed_is_read(self, records, other, monkeypatch):
        """One statement says whether there is something new, and what."""
        records.put(batch(range(50)), under=CONFIG)
        one = Follower()
        one.follow(other)
        read, asked = Source.read, []
        monkeypatch.setattr(Source, "read", lambda self, *more: asked.append(1) or read(self, *more))
        assert one.follow(other) is None
        assert len(asked) == 1
        records.put(batch([1, 2]), under=CONFIG)
        told = one.follow(other)
        assert (told.whole, len(asked)) == (False, 2)
        rows, envelopes = told.sent
        np.testing.assert_array_equal(rows, told.added[1])
        np.testing.assert_array_equal(envelopes, records.vectors(rows)[1])
        records.put(batch(range(40)), under=CONFIG)
        rows, envelopes = one.follow(other).sent
        np.testing.assert_array_equal(rows, np.sort(records.rows())[-40:][: len(rows)])
        np.testing.assert_array_equal(envelopes, records.vectors(rows)[1])
        assert 0 < len(rows) < 40, "many are fetched by whoever needs them"


class TestPostgres(Contract):
    @pytest.fixture
    def fresh(self, pg_dsn):
        return lambda: place(pg_dsn)


class TestRowSecurity(Contract):
    """The same by a role without privileges, each tenant behind row-level security."""

    @pytest.fixture
    def fresh(self, pg_dsn):
        class Listing(PostgresStore):
            """May list one tenant at a time; the administrator says which there are."""

            def collections(self, tenant=None):
                if tenant is not None or self._closed:
                    return super().collections(tenant)
                tenants = ask(pg_dsn, f"SELECT DISTINCT tenant FROM {self._names.schema}.collections")
                of = super().collections
                return sorted(found for (owner,) in tenants for found in of(owner))

        database = pg_dsn.partition("?")[0].rpartition("/")[2]
        with role(pg_dsn, f"GRANT CREATE ON DATABASE {database} TO {{}}") as url:
            yield lambda: place(url, Listing, row_security=True)


@pytest.fixture
def store(pg_dsn):
    store = PostgresStore(pg_dsn)
    yield store
    store.close()


@pytest.fixture
def records(store):
    return store.create(SPEC, CONFIG)


def test_every_table_has_a_primary_key(pg_dsn, store, records):
    """Logical replication cannot tell rows apart without: parents, a collection's own tables, and those that came
    when everything was replaced.
    """
    records.put(batch("ab", terms=[(0, "x", Term("str", "a"))]), under=CONFIG)
    keyed = "SELECT indrelid FROM pg_index WHERE indisprimary AND indisvalid"
    found = (
        f"SELECT relname, oid IN ({keyed}) FROM pg_class WHERE relkind IN ('r', 'p')"
        " AND relnamespace = 'encvec'::regnamespace ORDER BY 1"
    )
    parents = {"meta", "collections", "blobs", "partitions", "changes", "records", "terms"}
    for content in (1, 2):
        tables = dict(ask(pg_dsn, found))
        assert set(tables) == parents | {f"records_{content}", f"terms_{content}"}
        assert all(tables.values()), tables
        records.replace([kept(records, "ab")], CONFIG, under=CONFIG)


def test_terms_that_begin_alike(records):
    """Of one field of one record, longer than what an index takes of them, and one of them twice."""
    long = [Term("str", "x" * 600 + end) for end in "ab"]
    terms = [(0, "f", term) for term in (*long, *long, Term("str", "x" * 512))]
    records.put(batch("a", terms=terms), under=CONFIG)
    ((_, _, _, found),) = records.audit(records.rows())
    assert found == {("f", term) for _, _, term in terms}


def test_a_write_is_numbered_by_one_statement(records, monkeypatch):
    """However many partitions it touches: counts, changes and the settings go together."""
    partitions = np.arange(1, 41)
    one = batch(range(40))
    one.partitions = partitions
    records.put(one, under=CONFIG)
    two = batch(range(40), seed=1)
    two.partitions = partitions[::-1]
    cursors = []
    write = Source.write

    @contextmanager
    def counted(self):
        with write(self) as cursor:
            cursors.append(Counting(cursor))
            yield cursors[-1]

    monkeypatch.setattr(Source, "write", counted)
    records.put(two, under=CONFIG, config=b"new")
    # it locks and looks, deletes, copies and numbers
    assert [cursor.n for cursor in cursors] == [4]
    assert records.partitions() == dict.fromkeys(partitions.tolist(), 1)
    assert records.check() == []


class Counting:
    """A cursor that counts what is sent."""

    def __init__(self, cursor):
        self._cursor, self.n = cursor, 0

    def __getattr__(self, name):
        if name in ("execute", "copy"):
            self.n += 1
        return getattr(self._cursor, name)


def test_changes_are_forgotten_in_time(pg_dsn, store, records, monkeypatch):
    for module in (changes, writer):
        monkeypatch.setattr(module, "KEPT", 10)
    followers = []
    for turn in range(45):
        records.put(batch([turn % 7], seed=turn), under=CONFIG)
        followers.append(Follower())
        followers[-1].follow(records)
        ((n,),) = ask(pg_dsn, "SELECT count(DISTINCT generation) FROM encvec.changes")
        assert n < 21, "without any tidying up"
    told = [one.follow(records) for one in followers]
    assert [change.whole for change in told[:-1]] == [True] * 28 + [False] * 16
    assert told[-1] is None
    assert all(one.partitions == by_partition(records) for one in followers)


def test_flush_forgets_changes_that_are_much(pg_dsn, records, monkeypatch):
    monkeypatch.setattr(changes, "BYTES_MOST", 200)
    records.put(batch(range(100)), under=CONFIG)
    one, two = Follower(), Follower()
    one.follow(records)
    records.flush()
    assert one.copy().follow(records) is None
    records.remove(records.find(tokens(range(0, 100, 2))))  # many ranges
    before = records.generation()
    records.flush()
    assert records.generation() == before
    assert ask(pg_dsn, "SELECT count(*) FROM encvec.changes") == [(0,)]
    assert one.follow(records).whole
    assert two.follow(records).whole
    records.put(batch("a"), under=CONFIG)
    assert not one.follow(records).whole
    assert one.partitions == by_partition(records)


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM encvec.changes WHERE generation = 3", "UPDATE encvec.changes SET rows = 'x' WHERE generation = 3"],
)
def test_lost_and_damaged_changes_are_made_up_for(pg_dsn, records, damage):
    """By listing everything, also where a write had neither added nor removed anything."""
    records.put(batch("abc"), under=CONFIG)
    one = Follower()
    one.follow(records)
    records.put(batch([]), under=CONFIG, config=CONFIG)
    records.put(batch("d"), under=CONFIG)
    assert not one.copy().follow(records).whole
    ask(pg_dsn, damage)
    assert one.follow(records).whole
    assert one.partitions == by_partition(records)


def test_an_older_copy_that_was_put_back(pg_dsn, records):
    """Its generations come again, and a stamp that was kept tells."""
    records.put(batch("abc"), under=CONFIG)
    tables = ("collections", "partitions", "changes", "records_1")
    for table in tables:
        ask(pg_dsn, f"CREATE TABLE copy_{table} AS TABLE encvec.{table}")
    records.put(batch("d"), under=CONFIG)
    one = Follower()
    one.follow(records)
    for table in tables[1:]:
        ask(pg_dsn, f"DELETE FROM encvec.{table}")
        ask(pg_dsn, f"INSERT INTO encvec.{table} TABLE copy_{table}")
    ask(
        pg_dsn,
        "UPDATE encvec.collections SET (generation, stamp, next_row) ="
        " (SELECT generation, stamp, next_row FROM copy_collections)",
    )
    assert one.copy().follow(records).whole, "a generation that did not come yet"
    records.put(batch("e"), under=CONFIG)
    assert one.copy().follow(records) is None, "nobody who has no stamp can tell"
    assert one.follow(records, stamp=one.stamp).whole
    assert one.partitions == by_partition(records)


def test_a_dropped_collection_has_no_dimension(store, records):
    store.drop(SPEC.tenant, SPEC.name)
    told = records.changes(3, 1)
    assert (told.whole, told.index_dim, told.added) == (True, None, {})


def test_blobs_lie_as_they_are_and_count(pg_dsn, records):
    """Not compressed, so that a piece can be read without the rest."""
    content = bytes(100_000)
    records.put(batch([]), under=CONFIG, blobs={"profile": Blob(7, content)})
    ((size, version),) = ask(pg_dsn, "SELECT pg_column_size(content), key_version FROM encvec.blobs")
    assert (size, version) == (len(content), 7)
    assert records.stats()["bytes"]["blobs"] == len(content)
