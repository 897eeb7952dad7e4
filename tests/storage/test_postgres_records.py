"""Records in PostgreSQL against those in memory, call by call: records, predicates, replacement."""

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encvec_store import errors
from encvec_store.data import AllOf, AnyOf, Match, Present, Range, Term
from encvec_store.storage.postgres import PostgresStore
from encvec_store.storage.postgres.wire import KEY, split_value, term_from, typed_kind
from encvec_store.storage.protocol import EncryptedBatch
from tests.kits.postgres_store import DIM, SIZE, again, ask, batch, both, opened, oracle, sound, spec
from tests.kits.threads import guarded

LONG = "x" * KEY
TEXTS = ["", "\0", "a", "a\0", "b", "é", "\U0001f600", "\uffff", LONG[1:], LONG, LONG + "a", LONG + "b", LONG[1:] + "y"]
NUMBERS = [float("-inf"), -1e300, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, 2.0**53, float("inf")]
TERMS = [Term("str", text) for text in TEXTS] + [Term("number", number) for number in NUMBERS]
TERMS += [Term("instant", number) for number in NUMBERS] + [Term("other", text.encode()) for text in TEXTS]
FIELDS = ["", "a", "b", "\0 'x'"]
LEAVES = st.one_of(
    st.builds(Match, st.sampled_from(FIELDS), st.lists(st.sampled_from(TERMS), max_size=4).map(tuple)),
    st.builds(Present, st.sampled_from(FIELDS)),
    st.builds(
        lambda field, a, b, which: Range(
            field, a.kind, a.value if which % 2 else None, b.value if which // 2 and b.kind == a.kind else None
        ),
        st.sampled_from(FIELDS),
        st.sampled_from(TERMS),
        st.sampled_from(TERMS),
        st.integers(0, 3),
    ),
)
PREDICATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)
QUIET = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


def test_random_histories(pg_dsn):
    """Puts, removals and replacements in any order leave both with the same records under the same rows."""
    rng = np.random.default_rng(5)
    known = rng.integers(0, 256, (60, 16), np.uint8)
    with opened(pg_dsn) as (_, collection):
        expected = oracle()
        config = b"settings"
        for step in range(60):
            n = int(rng.integers(0, 12))
            chosen = rng.choice(60, n + 3, replace=False)
            terms = [
                (int(rng.integers(n)), FIELDS[rng.integers(4)], TERMS[rng.integers(len(TERMS))]) for _ in range(2 * n)
            ]
            retired = [known[i].tobytes() for i in chosen[n:]] if step % 3 == 0 else []
            written = batch(step, n, partition=step % 2 + 1, tokens=known[chosen[:n]], terms=terms, retired=retired)
            if step % 20 == 19:
                new = b"settings %d" % step
                kept = rng.permutation(expected.rows())
                few = batch(step + 100, 5, partition=7)
                parts = [again(written, kept[:n]), again(few, kept[n : n + 5])]
                for store in (collection, expected):
                    store.replace(parts, new, under=config)
                config = new
            elif step % 7 == 6:
                gone = rng.choice(expected.rows(), 3, replace=False)
                assert collection.remove(gone) == expected.remove(gone)
            else:
                new = b"settings %d" % step if step % 10 == 4 else None
                for store in (collection, expected):
                    store.put(written, under=config, config=new)
                config = new or config
            sound(collection, expected)
            np.testing.assert_array_equal(collection.find(known), expected.find(known))
            queries = batch(1000 + step, 2).index_vectors
            for partition in (1, 2, 7):
                for limit in (1, 10, 1000):
                    found = collection.candidates({partition: queries}, limit)
                    for mine, truth in zip(found, expected.candidates({partition: queries}, limit), strict=True):
                        np.testing.assert_array_equal(mine, truth)
                    asked = np.concatenate(found)
                    rows, envelopes = collection.vectors(asked)
                    np.testing.assert_array_equal(rows, asked)
                    np.testing.assert_array_equal(envelopes, expected.vectors(asked)[1])


@pytest.fixture(scope="module")
def filled(pg_server, pg_template):
    """A backend and the oracle over the same 300 records, and one that always searches by index."""
    name = f"{pg_template}_predicates"
    pg_server.execute("CREATE DATABASE {} TEMPLATE {}", name, pg_template)
    rng = np.random.default_rng(1)
    terms = [(int(rng.integers(300)), FIELDS[rng.integers(4)], TERMS[rng.integers(len(TERMS))]) for _ in range(900)]
    dsn = pg_server.dsn(name)
    with opened(dsn) as (_, scanning), opened(dsn, index="hnsw") as (_, indexed):
        expected = oracle()
        for store in (scanning, expected):
            store.put(batch(0, 300, terms=terms), under=b"settings")
        indexed.flush()
        yield scanning, indexed, expected
    pg_server.drop(name)


@QUIET
@given(PREDICATES, st.integers(0, 310), st.one_of(st.none(), st.integers(0, 50)))
def test_predicates_select_what_the_oracle_says(filled, predicate, after, limit):
    scanning, _, expected = filled
    wanted = expected.rows(predicate, after=after, limit=limit)
    np.testing.assert_array_equal(scanning.rows(predicate, after=after, limit=limit), wanted)


@QUIET
@given(PREDICATES, st.sampled_from([1, 5, 400]))
def test_candidates_satisfy_the_predicate_every_way(filled, predicate, limit):
    scanning, indexed, expected = filled
    queries = batch(9, 2).index_vectors
    wanted = expected.candidates({1: queries}, limit, predicate)
    for store in (scanning, indexed):
        for mine, truth in zip(store.candidates({1: queries}, limit, predicate), wanted, strict=True):
            np.testing.assert_array_equal(mine, truth)


@given(st.sampled_from(TERMS) | st.builds(Term, st.just("number"), st.floats(allow_nan=False)), st.sampled_from(TERMS))
def test_terms_come_back_and_sort_as_their_values(a, b):
    key, rest = split_value(a.value)
    assert term_from(typed_kind(*a), key, rest) == a
    if a.kind == b.kind:
        mine, theirs = ((key, rest or b"") for key, rest in (split_value(a.value), split_value(b.value)))
        assert (mine < theirs) == (a.value < b.value)
        assert (mine == theirs) == (a.value == b.value)


def test_stale_settings_change_nothing(pg_dsn):
    with opened(pg_dsn) as (_, collection):
        collection.put(batch(1, 3), under=b"settings", config=b"newer")
        before = collection.generation()
        with pytest.raises(errors.StaleConfigError):
            collection.put(batch(2, 3), under=b"settings")
        with pytest.raises(errors.StaleConfigError):
            collection.replace(iter([again(batch(2, 3))]), b"mine", under=b"settings")
        assert (collection.count(), collection.generation(), collection.config()) == (3, before, b"newer")


def test_readers_see_the_old_content_until_the_replacement_is_whole(pg_dsn):
    with opened(pg_dsn) as (_, mine), opened(pg_dsn) as (_, theirs):
        mine.put(batch(1, 5), under=b"settings")

        def batches():
            yield again(batch(2, 2), 1)
            np.testing.assert_array_equal(theirs.rows(), np.arange(1, 6))
            assert theirs.config() == b"settings"
            yield again(batch(3, 2), 4)

        mine.replace(batches(), b"new", under=b"settings")
        for store in (mine, theirs):
            np.testing.assert_array_equal(store.rows(), [1, 2, 4, 5])
            assert store.config() == b"new"
        query = batch(2, 1).index_vectors
        np.testing.assert_array_equal(theirs.candidates({1: query}, 1)[0], [1])
        tables = ask(pg_dsn, "SELECT count(*) FROM pg_class WHERE relname ~ '^(records|terms)_[0-9]+$'")
        assert tables == [(2,)], "the old tables are gone"


def test_a_read_that_the_server_ends_for_a_deadlock_is_done_again(pg_dsn):
    """It stood in the way of tables being dropped, and nothing of it was written."""
    with opened(pg_dsn) as (_, collection):
        collection.put(batch(0, 3), under=b"settings")
        victims = iter([psycopg.errors.DeadlockDetected("deadlock detected")])

        def work(cursor, content):
            for error in victims:
                raise error
            return "read"

        assert collection.records.on_content(work) == "read"
        assert collection.check() == []


def test_a_failed_replacement_changes_nothing(pg_dsn):
    with opened(pg_dsn) as (_, collection):
        collection.put(batch(1, 5), under=b"settings")

        def batches():
            yield again(batch(2, 4))
            raise RuntimeError("no more")

        with pytest.raises(RuntimeError, match="no more"):
            collection.replace(batches(), b"new", under=b"settings")
        assert collection.config() == b"settings"
        np.testing.assert_array_equal(collection.rows(), np.arange(1, 6))
        assert collection.check() == []


def test_a_batch_is_all_or_nothing(pg_dsn):
    with opened(pg_dsn) as (_, collection):
        collection.put(batch(1, 5), under=b"settings")
        wrong = batch(2, 5)
        wrong = EncryptedBatch(
            wrong.partitions, wrong.tokens, wrong.index_vectors, wrong.vectors[:, 1:], wrong.payloads
        )
        with pytest.raises(errors.StoreError):
            collection.put(wrong, under=b"settings")
        assert collection.count() == 5
        assert collection.check() == []


def test_no_index_vectors(pg_dsn):
    with opened(pg_dsn, dim=0) as (_, collection):
        expected = oracle(dim=0)
        for store in (collection, expected):
            store.put(batch(1, 5, dim=0), under=b"settings")
        sound(collection, expected)
        assert [len(rows) for rows in collection.candidates({1: np.empty((2, 0), np.float32)}, 3)] == [0, 0]
        collection.flush()
        assert collection.stats()["index"] == "exact"


def test_creating_at_once_makes_one(pg_dsn):
    """From an empty database: schema, tables and collection are made once, whoever is first."""
    made, failed = [], []

    def create():
        store = PostgresStore(pg_dsn)
        made.append((store, both(store.create(spec(), b"settings"))))

    threads = [guarded(failed, create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    made[0][1].put(batch(1, 3), under=b"settings")
    assert {collection.count() for _, collection in made} == {3}
    assert made[0][0].collections() == [("tenant", "things")]
    for store, _ in made:
        store.close()


def test_dropped_collections_are_gone(pg_dsn):
    with opened(pg_dsn) as (backend, mine), opened(pg_dsn) as (other, theirs):
        mine.put(batch(1, 3), under=b"settings")
        assert theirs.count() == 3
        assert backend.drop("tenant", "things") is True
        assert backend.drop("tenant", "things") is False
        assert other.open("tenant", "things") is None
        for call in (theirs.rows, theirs.config, theirs.generation, lambda: theirs.put(batch(2, 1), under=b"settings")):
            with pytest.raises(errors.CollectionNotFoundError):
                call()
        anew = other.create(spec(), b"other")
        assert (anew.count(), anew.config()) == (0, b"other")


def test_big_payloads_and_batches(pg_dsn):
    with opened(pg_dsn, dim=700, size=3000) as (_, collection):
        big = batch(1, 300, dim=700, size=3000)
        big.payloads[:3] = [b"", bytes(5_000_000), b"x" * 9_000]
        expected = oracle(700, 3000)
        for store in (collection, expected):
            store.put(big, under=b"settings")
        sound(collection, expected)


def test_damage_is_seen_without_keys(pg_dsn):
    with opened(pg_dsn) as (_, collection):
        collection.put(batch(1, 5, terms=[(i, "a", Term("number", 1.0)) for i in range(5)]), under=b"settings")
        ask(pg_dsn, "DELETE FROM encvec.records_1 WHERE row = 2")
        found = collection.check()
        assert any("1 filter terms belong to no record" in line for line in found)
        assert any("count of records is wrong for 1 partitions" in line for line in found)


def test_rows_of_an_unknown_shape(pg_dsn):
    with opened(pg_dsn) as (_, collection):
        nothing = np.empty(0, np.int64)
        assert [len(part) for part in collection.vectors(nothing)] == [0, 0]
        assert collection.vectors(nothing)[1].shape == (0, SIZE)
        assert collection.index_vectors(nothing)[1].shape == (0, DIM)
        assert collection.payloads(np.array([5]))[1] == []
        assert collection.remove(nothing) == collection.remove(np.array([9])) == 0
        assert collection.generation() == 1
        assert collection.find(np.empty((0, 16), np.uint8)).shape == (0,)
