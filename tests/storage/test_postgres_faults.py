"""What the server refuses or gives up, each as an error of its own kind with a sentence that says what to do."""

import numpy as np
import psycopg
import pytest

import encvec_store as ev
from encvec_store import errors
from encvec_store.storage.postgres import PostgresStore
from tests.kits.postgres_store import batch, spec

RAISE = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{}', MESSAGE = '{}'; END $$"
PLAIN = errors.StoreUnreachableError


@pytest.fixture
def store(pg_place):
    made = PostgresStore(pg_place.dsn, schema=pg_place.schema)
    yield made
    made.close()


def refusing(times, state, message=""):
    """Return a read that the server refuses so many times, and how often it was asked."""
    asked = []

    def work(cursor):
        asked.append(1)
        if len(asked) <= times:
            cursor.execute(RAISE.format(state, message).encode())
        return cursor.execute(b"SELECT 'done'").fetchone()[0]

    return work, asked


@pytest.mark.parametrize(
    ("state", "message", "kind", "words"),
    [
        ("26000", "", errors.PoolerError, "add pooler=1 to the store.s URL"),
        ("42P05", "", errors.PoolerError, "add pooler=1 to the store.s URL"),
        ("08P01", "bind message supplies 1 parameters, but prepared statement", errors.PoolerError, "add pooler=1"),
        ("08P01", "no such user", PLAIN, "no such user"),
        ("42704", "type vector does not exist", PLAIN, r"pgvector was moved.*\(type vector does not exist\); open the"),
        ("55000", "x does not have a replica identity and", PLAIN, "a publication needs a replica identity"),
        ("55000", "sequence is not ready", PLAIN, "sequence is not ready"),
        ("57014", "canceling statement due to statement timeout", errors.StoreTimeoutError, "raise statement_timeout"),
        ("57014", "canceling statement due to user request", PLAIN, "the server cancelled the statement"),
        ("40001", "could not serialize access", errors.StoreLockedError, "at the same time, try again"),
        (
            "40001",
            "canceling statement due to conflict with recovery",
            errors.StandbyConflictError,
            "read from the pri",
        ),
    ],
)
def test_each_state_has_its_sentence(store, monkeypatch, state, message, kind, words):
    monkeypatch.setattr("encvec_store.storage.postgres.source._PAUSE", 0)
    records = store.create(spec(), b"settings")
    work, _ = refusing(99, state, message)
    with pytest.raises(kind, match=words) as caught:
        records.on_content(lambda cursor, _: work(cursor))
    assert type(caught.value) is kind


@pytest.mark.parametrize("message", ["canceling statement due to conflict with recovery", "could not serialize access"])
def test_a_read_that_others_were_in_the_way_of_is_asked_again(store, monkeypatch, message):
    monkeypatch.setattr("encvec_store.storage.postgres.source._PAUSE", 0)
    work, asked = refusing(5, "40001", message)
    assert store._source.read(work) == "done"
    assert len(asked) == 6


def test_statement_timeout_in_a_wait_for_another_writer(store, pg_place):
    """The role's own limit, shorter than ours: the other writer is named, not the statement."""
    records = store.create(spec(), b"settings")
    timed = pg_place.dsn + "&options=-c%20statement_timeout%3D100"
    other = PostgresStore(timed, schema=pg_place.schema)
    with psycopg.connect(pg_place.dsn) as holding:
        holding.execute(f"SELECT FROM {pg_place.schema}.collections FOR UPDATE")
        for call in (
            lambda: other.open("tenant", "things").put(batch(1, 3), under=b"settings"),
            lambda: other.drop("tenant", "things"),
        ):
            with pytest.raises(errors.StoreLockedError, match=r"another process is writing.*the server ended the wait"):
                call()
    assert records.count() == 0
    other.close()


def test_more_hits_than_any_server_counts(pg_place):
    vectors = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    with ev.connect(pg_place.dsn, keyset=ev.Keyset.create("memory:"), schema=pg_place.schema) as store:
        for scheme in ("sap", "sealed"):
            things = store.collection(scheme, dim=4, scheme=scheme)
            things.upsert([str(i) for i in range(20)], vectors)
            for k in (10**18, 10**30):
                assert len(things.search(vectors[0], k=k)) == 20
                assert [len(hits) for hits in things.search(vectors[:2], k=k)] == [20, 20]
