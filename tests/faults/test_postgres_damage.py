"""A PostgreSQL store changed under our hands: indexes, columns, tables, the schema. Named, or healed; never wrong."""

import numpy as np
import psycopg
import pytest

from encvec_store import errors, low_level
from tests.kits.faults.common import check, fill, open_again, records
from tests.kits.faults.worker import DIM, WRITES, batch, dsn_of, postgres
from tests.kits.postgres_store import ask

pytestmark = pytest.mark.faults

BEFORE = records(range(10))
INDEX = "encvec.records_1_s1_hnsw"
READS = {
    "get": lambda things: things.get(batch(3)[0]),
    "search": lambda things: things.search(batch(3)[1][0], k=200, include_vectors=True),
    "filter": lambda things: things.search(batch(3)[1][0], where={"v": 0}),
    "scroll": lambda things: list(things.scroll()),
    "verify": lambda things: things.verify(),
}
CALLS = WRITES | READS
MISLAID = {
    # what is renamed, to be renamed back: the calls that need it
    "TABLE encvec.records_1": set(CALLS),
    "TABLE encvec.terms_1": {"upsert", "delete", "filter", "verify"},
    "TABLE encvec.collections": set(CALLS) - {"flush", "search", "filter"},
    "TABLE encvec.partitions": set(WRITES) | {"verify"},
    "SEQUENCE encvec.contents": {"calibrate", "change"},
    "SCHEMA encvec": set(CALLS),
}


@pytest.fixture
def url(pg_dsn):
    return postgres(pg_dsn)


@pytest.fixture
def store(url, keyset):
    store, things = open_again(url, keyset)
    fill(things, range(10))
    things.flush()
    yield store
    store.close()


@pytest.fixture
def things(store):
    return store.collection("things", oversample=10_000)


@pytest.mark.parametrize(
    "statement",
    [f"DROP INDEX {INDEX}", f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{INDEX}'::regclass"],
    ids=["dropped", "invalid"],
)
def test_an_index(url, things, statement):
    """Searches are right without it, and flush builds it anew."""
    check(things, BEFORE)
    ask(dsn_of(url), statement)
    check(things, BEFORE)
    things.flush()
    assert things.stats()["store"]["index"] == "hnsw"
    assert ask(dsn_of(url), f"SELECT indisvalid FROM pg_index WHERE indexrelid = '{INDEX}'::regclass") == [(True,)]
    check(things, BEFORE)


@pytest.mark.parametrize("place", MISLAID)
def test_what_is_not_there(url, things, place):
    """Whatever needs it says so, and all goes on once it is back."""
    kind, _, name = place.partition(" ")
    ask(dsn_of(url), f"ALTER {place} RENAME TO mislaid")
    for call in sorted(MISLAID[place]):
        with pytest.raises(errors.StoreUnreachableError, match="the tables of the store are missing"):
            CALLS[call](things)
    schema, _, name = name.rpartition(".")
    ask(dsn_of(url), f"ALTER {kind} {f'{schema}.mislaid' if schema else 'mislaid'} RENAME TO {name}")
    check(things, BEFORE)
    WRITES["upsert"](things)
    check(things, records([*range(10), 20]))


def test_a_collection_dropped_by_hand(url, store, things):
    ask(dsn_of(url), "DELETE FROM encvec.partitions")
    ask(dsn_of(url), "DELETE FROM encvec.collections")
    ask(dsn_of(url), "DROP TABLE encvec.records_1, encvec.terms_1")
    for call in sorted(CALLS.keys() - {"flush"}):
        with pytest.raises(errors.CollectionNotFoundError, match="'things' was dropped"):
            CALLS[call](things)
    anew = store.collection("things", dim=DIM)
    anew.upsert(*batch(0))
    assert anew.count() == len(batch(0)[0])


@pytest.mark.parametrize(
    ("column", "value", "refused"),
    [
        ("index_vector", "'[1,2,3]'", {"search": (errors.StoreUnreachableError, "wrong dimension.*verify")}),
        ("index_vector", "NULL", {}),
        ("envelope", r"'\x00'", dict.fromkeys(("get", "search", "scroll"), (errors.AuthenticationError, "record"))),
        (
            "envelope",
            r"envelope || '\x00'",
            dict.fromkeys(("get", "search", "scroll"), (errors.AuthenticationError, "record")),
        ),
        ("payload", "''", dict.fromkeys(("get", "search", "scroll"), (errors.AuthenticationError, "record"))),
        ("token", r"'\x00'", {}),
    ],
)
def test_a_part_of_the_wrong_size(url, things, column, value, refused):
    """The table's check keeps it out. Where that was taken away too, it is never taken for a record's."""
    ((check_,),) = ask(
        dsn_of(url),
        "SELECT conname FROM pg_constraint WHERE conrelid = 'encvec.records_1'::regclass AND contype = 'c'",
    )
    ((row,),) = (
        low_level.session(things).records.find(low_level.session(things).keyring.tokens(["3/0"])[1]).reshape(1, 1)
    )
    change = f"UPDATE encvec.records_1 SET {column} = {value} WHERE row = {row}"
    if column != "payload":
        with pytest.raises(psycopg.Error):
            ask(dsn_of(url), change)
    ask(dsn_of(url), f"ALTER TABLE encvec.records_1 DROP CONSTRAINT {check_}")
    ask(dsn_of(url), f"DROP INDEX {INDEX}")  # it would keep a wrong dimension out as well
    things.stats()  # the index is known to be gone
    ask(dsn_of(url), change)
    for call in ("get", "search", "scroll"):
        if call in refused:
            kind, words = refused[call]
            with pytest.raises(kind, match=words):
                READS[call](things)
        else:
            for record in READS[call](things):
                np.testing.assert_array_equal(record.vector, BEFORE[record.id][0])
    report = things.verify()
    assert {damage.row for damage in report.damaged} == {row}
    assert bool(report.store) is (column != "payload")
    WRITES["delete"](things)  # others are not touched by it
    things.delete(["3/0"])
    if column != "token":
        assert things.verify().ok


def test_another_dimension(url, store, keyset):
    """Asked for, or claimed by the store: the settings, which are sealed, know better."""
    with pytest.raises(errors.ConfigMismatchError, match="dim"):
        store.collection("things", dim=DIM + 1)
    for column in ("index_dim", "envelope_size"):
        ask(dsn_of(url), f"UPDATE encvec.collections SET {column} = {column} + 1")
        with pytest.raises(errors.AuthenticationError, match="settings could not be authenticated"):
            open_again(url, keyset)
        ask(dsn_of(url), f"UPDATE encvec.collections SET {column} = {column} - 1")
    again, things = open_again(url, keyset)
    check(things, BEFORE)
    again.close()
