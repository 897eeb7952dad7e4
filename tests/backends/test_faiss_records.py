"""Records of the faiss store against the oracle: random operations, filters, transactions."""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from encvec_store.data.fields import Term
from encvec_store.data.filters import AllOf, AnyOf, Match, Present, Range
from encvec_store.errors import CollectionNotFoundError, StaleConfigError, StoreLockedError
from encvec_store.indexes.faiss import FaissBackend
from encvec_store.storage.protocol import CollectionSpec
from encvec_store.storage.sqlite.records import Records
from encvec_store.storage.sqlite.tables import metadata

from .faiss_kit import CONFIG, SPEC, agree, batch, connect, content, oracle, token, tokens

SIZES = SPEC.index_dim, SPEC.envelope_size
NAMES = st.lists(st.integers(0, 30), max_size=12, unique=True)
VALUES = st.one_of(
    st.sampled_from([-1.0, 0.0, 1.0, 2.5, float("inf")]).map(lambda value: Term("number", value)),
    st.sampled_from([0.0, 1.0]).map(lambda value: Term("bool", value)),
    st.sampled_from(["", "a", "b", "\ue000", "\U0001f600", "a\0b"]).map(lambda value: Term("str", value)),
    st.sampled_from([b"", b"a", b"\xff"]).map(lambda value: Term("other", value)),
)
FIELDS = st.sampled_from(["x", "y"])
BOUNDS = st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 1.0, 2.5]))
TEXTS = st.one_of(st.none(), st.sampled_from(["", "a", "\ue000", "\U0001f600"]))
LEAVES = st.one_of(
    st.builds(Match, FIELDS, st.lists(VALUES, max_size=3).map(tuple)),
    st.builds(Range, FIELDS, st.sampled_from(["number", "bool"]), BOUNDS, BOUNDS),
    st.builds(Range, FIELDS, st.just("str"), TEXTS, TEXTS),
    st.builds(Present, FIELDS),
)
PREDICATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: AllOf(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
    ),
    max_leaves=4,
)


class Random(RuleBasedStateMachine):
    """Anything in any order, with a second store on the folder that only reads."""

    @initialize(flat_limit=st.sampled_from([4, 1000]), mapped=st.booleans())
    def start(self, flat_limit, mapped):
        self.folder = Path(tempfile.mkdtemp())
        # with the small limit everything goes through HNSW, whose order is not compared
        self.options = {"flat_limit": flat_limit, "mapped": mapped}
        self.exact = flat_limit == 1000
        self.store = connect(self.folder, **self.options)
        self.reader = connect(self.folder, **self.options)
        self.expected = oracle()

    @rule(names=NAMES, space=st.integers(1, 2), seed=st.integers(0, 9), data=st.data())
    def put(self, names, space, seed, data):
        terms = [
            (i, field, term)
            for i in range(len(names))
            for field, term in data.draw(st.lists(st.tuples(FIELDS, VALUES), max_size=3))
        ]
        retired = data.draw(NAMES)
        for collection in (self.store[1], self.expected):
            collection.put(
                batch(names, space=space, seed=seed, terms=terms, retired=retired), under=self.expected.config()
            )

    @rule(names=NAMES)
    def remove(self, names):
        counts = {
            collection.remove(np.append(collection.find(tokens(names)), [0, 2**62]))
            for collection in (self.store[1], self.expected)
        }
        assert len(counts) == 1

    @rule(names=NAMES, seed=st.integers(0, 9))
    def replace(self, names, seed):
        under = self.expected.config()
        for collection in (self.store[1], self.expected):
            halves = [batch(names[:5], seed=seed), batch(names[5:], seed=seed, space=2), batch([99])]
            collection.replace(halves, f"after {seed}".encode(), under=under)

    @rule()
    def reopen(self):
        self.store[0].close()
        self.store = connect(self.folder, **self.options)

    @rule()
    def flush(self):
        self.store[1].flush()

    @rule()
    def drop_cache(self):
        self.store[1].drop_cache()

    @rule(predicate=PREDICATES)
    def filter(self, predicate):
        agree(self.store[1], self.expected, predicates=[predicate], exact=self.exact, limits=(2, 50))

    @invariant()
    def agrees(self):
        if hasattr(self, "expected"):
            for _, collection in (self.store, self.reader):
                agree(collection, self.expected, exact=self.exact, limits=(2, 50))
            assert self.store[1].config() == self.reader[1].config() == self.expected.config()
            assert self.store[1].check() == []

    def teardown(self):
        if hasattr(self, "store"):
            self.store[0].close()
            self.reader[0].close()
            shutil.rmtree(self.folder)


TestRandom = Random.TestCase
TestRandom.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)


@pytest.fixture
def store(tmp_path):
    backend, collection = connect(tmp_path, lock_timeout=0.2)
    yield collection
    backend.close()


def test_kinds_are_kept_apart(store):
    terms = [(0, "f", Term("number", 1.0)), (1, "f", Term("bool", 1.0)), (2, "f", Term("str", "1"))]
    store.put(batch("abc", terms=terms), under=CONFIG)
    a, b, c = store.find(tokens("abc")).tolist()
    assert store.rows(Match("f", (Term("number", 1.0),))).tolist() == [a]
    assert store.rows(Match("f", (Term("bool", 1.0), Term("str", "1")))).tolist() == [b, c]
    assert store.rows(Range("f", "number", None, None)).tolist() == [a]
    assert store.rows(Range("f", "str", "", None)).tolist() == [c]
    assert store.rows(Present("f")).tolist() == [a, b, c]
    assert store.rows(Present("g")).tolist() == []


def test_text_is_ordered_by_code_point(store):
    # UTF-16 would put U+1F600 before U+E000; a locale would put "a" before "B"
    ordered = ["B", "a", "é", "\ue000", "\U0001f600"]
    store.put(batch(range(5), terms=[(i, "f", Term("str", text)) for i, text in enumerate(ordered)]), under=CONFIG)
    rows = store.find(tokens(range(5))).tolist()
    for i, low in enumerate(ordered):
        assert store.rows(Range("f", "str", low, None)).tolist() == rows[i:]
        assert store.rows(Range("f", "str", None, low)).tolist() == rows[: i + 1]


def test_thousands_of_terms_in_one_filter(store):
    n = 3_000
    terms = [(i, "f", Term("number", float(i))) for i in range(n)]
    store.put(batch(range(n), terms=terms), under=CONFIG)
    wanted = tuple(Term("number", float(i)) for i in range(0, 80_000, 2))
    assert len(store.rows(Match("f", wanted))) == n / 2
    assert len(store.rows(AllOf((Match("f", wanted), Range("f", "number", 10.0, 20.0))))) == 6


def test_pages_of_rows(store):
    n = 50
    store.put(batch(range(n), terms=[(i, "f", Term("bool", float(i % 2))) for i in range(n)]), under=CONFIG)
    for predicate in (None, Match("f", (Term("bool", 1.0),)), Present("f"), AnyOf((Present("f"), Present("g")))):
        everything, after, pages = store.rows(predicate).tolist(), 0, []
        while len(page := store.rows(predicate, after=after, limit=7)):
            pages += page.tolist()
            after = pages[-1]
        assert pages == everything


def test_found_rows_in_the_order_asked(store):
    store.put(batch(range(30)), under=CONFIG)
    rows = store.rows()
    for _ in range(2):  # read from the records, then from the map
        asked = np.concatenate([rows[::-3], [2**62], rows[:2], rows[:1]])
        expected = asked[asked != 2**62].tolist()
        for read in (store.vectors, store.payloads, store.index_vectors):
            found, values = read(asked)
            assert found.tolist() == expected
            for row, value in zip(found, values, strict=True):
                assert bytes(value) == bytes(read(np.array([row]))[1][0])
        assert [entry[0] for entry in store.audit(asked)] == expected
        store.flush()
    assert store.stats()["spaces"][1]["mapped"] == 30


def test_rows_of_another_collection_are_absent(tmp_path):
    backend, store = connect(tmp_path)
    other = backend.create(CollectionSpec("acme", "other", 8, 40), CONFIG)
    other.put(batch(range(5)), under=CONFIG)
    rows = other.rows()
    assert store.remove(rows) == 0
    assert all(len(read(rows)[0]) == 0 for read in (store.vectors, store.payloads, store.index_vectors))
    assert store.audit(rows) == []
    assert store.find(tokens(range(5))).tolist() == [0] * 5
    assert other.count() == 5
    backend.close()


def test_settings_must_be_those_seen(store):
    store.put(batch("a"), under=CONFIG, config=b"second")
    for write in (
        lambda: store.put(batch("b"), under=CONFIG),
        lambda: store.replace([batch("b")], b"third", under=CONFIG),
    ):
        with pytest.raises(StaleConfigError):
            write()
    assert (store.config(), store.count(), store.generation()) == (b"second", 1, 2)


def test_replace_shows_the_old_until_the_end(tmp_path):
    backend, store = connect(tmp_path)
    _, other = connect(tmp_path)
    store.put(batch("abc"), under=CONFIG)
    before = content(store)

    def batches():
        for name in "xyz":
            assert content(store) == content(other) == before
            assert len(store.candidates({1: batch("a").index_vectors}, 9)[0]) == 3
            yield batch(name, seed=1, space=2)

    store.replace(batches(), b"new", under=CONFIG)
    assert set(content(other)) == set(map(token, "xyz"))
    assert other.spaces() == {2: 3}
    assert other.config() == b"new"
    backend.close()
    _.close()


def test_replace_that_fails_changes_nothing(store):
    store.put(batch("abc"), under=CONFIG)
    before, generation = content(store), store.generation()

    def batches():
        yield batch("xyz")
        raise KeyError("no such thing")

    with pytest.raises(KeyError):
        store.replace(batches(), b"new", under=CONFIG)
    assert (content(store), store.generation(), store.config()) == (before, generation, CONFIG)
    store.put(batch("d"), under=CONFIG)
    assert store.check() == []


def test_locked_by_another(tmp_path):
    backend, store = connect(tmp_path, lock_timeout=0.1)
    second, other = connect(tmp_path, lock_timeout=0.1)
    store.put(batch("a"), under=CONFIG)

    def batches():
        for writer in (other, store):  # another process, and another thread of this one
            with pytest.raises(StoreLockedError, match="nothing was written, try again"):
                writer.put(batch("b"), under=CONFIG)
            with pytest.raises(StoreLockedError):
                writer.remove(writer.rows())
        assert other.count() == 1
        yield batch("c")

    store.replace(batches(), CONFIG, under=CONFIG)
    other.put(batch("d"), under=CONFIG)
    assert set(content(store)) == {token("c"), token("d")}
    backend.close()
    second.close()


@pytest.mark.parametrize("n", [2, 1_500])
def test_only_a_large_write_has_the_larger_cache(store, monkeypatch, n):
    """And only while it lasts, whether it is committed or not."""
    kept, seen = Records._count, []

    def count(self, cursor, more):
        seen.append(cursor.execute("PRAGMA cache_size").fetchone()[0])
        if len(seen) == 2:
            raise KeyError
        kept(self, cursor, more)

    monkeypatch.setattr(Records, "_count", count)
    store.put(batch(range(n)), under=CONFIG)
    with pytest.raises(KeyError):
        store.put(batch(range(n, 2 * n)), under=CONFIG)
    assert seen == ([-64_000] * 2 if n > 1_000 else [-2_000] * 2)
    assert store.count() == n
    with store._database.write() as cursor:
        assert cursor.execute("PRAGMA cache_size").fetchone() == (-2_000,)


def test_flush_folds_the_log_where_nobody_reads_it(tmp_path):
    backend, store = connect(tmp_path)
    log = tmp_path / "records.sqlite3-wal"
    store.put(batch("abc"), under=CONFIG)
    with closing(sqlite3.connect(tmp_path / "records.sqlite3")) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM records").fetchall()
        store.put(batch("d"), under=CONFIG)
        store.flush()
        assert log.stat().st_size, "it is read from"
    store.flush()
    assert not log.stat().st_size
    assert set(content(store)) == set(map(token, "abcd"))
    with store._database.write() as cursor:
        assert cursor.execute("PRAGMA busy_timeout").fetchone() == (5_000,)
    backend.close()


def test_collections(tmp_path):
    backend = FaissBackend(f"faiss://{tmp_path}")
    assert backend.open("acme", "faces") is None
    first = backend.create(SPEC, b"one")
    again = backend.create(CollectionSpec("acme", "faces", 3, 3), b"two")
    assert (again.config(), again.spec) == (b"one", SPEC)
    backend.create(CollectionSpec("\U0001f600", "a", 8, 40), CONFIG)
    backend.create(CollectionSpec("\ue000", "a", 8, 40), CONFIG)
    assert backend.collections() == [("acme", "faces"), ("\ue000", "a"), ("\U0001f600", "a")]
    first.put(batch(range(10)), under=b"one")
    first.candidates({1: batch("a").index_vectors}, 3)
    assert backend.drop("acme", "faces")
    assert not backend.drop("acme", "faces")
    assert backend.open("acme", "faces") is None
    for use in (first.config, first.generation, lambda: first.put(batch("a"), under=b"one")):
        with pytest.raises(CollectionNotFoundError):
            use()
    made = backend.create(SPEC, b"three")
    assert (made.count(), made.config(), made.check()) == (0, b"three", [])
    assert not len(made.candidates({1: batch("a").index_vectors}, 3)[0])
    backend.close()


@pytest.mark.parametrize("company", [True, False])
def test_what_goes_leaves_nothing_behind(tmp_path, company):
    """Not in a table, whichever way records go; and what others have stays."""
    terms = [(i, "f", Term("number", float(i))) for i in range(9)]
    with closing(FaissBackend(f"faiss://{tmp_path}")) as backend:
        first = backend.create(SPEC, CONFIG)
        if company:
            second = backend.create(CollectionSpec("acme", "other", *SIZES), CONFIG)
            second.put(batch(range(9), terms=terms), under=CONFIG, artefacts={"profile": b"theirs"})
        third = backend.create(CollectionSpec("acme", "third", *SIZES), CONFIG)
        apart = sqlite3.connect(tmp_path / "records.sqlite3")

        def kept():
            count = "SELECT count(*) FROM "
            return {table: apart.execute(count + table).fetchone()[0] for table in metadata.tables}

        nothing = kept()
        first.put(batch(range(9), terms=terms), under=CONFIG, artefacts={"profile": b"ours"})
        first.put(batch(range(3), terms=terms[:2]), under=CONFIG)
        assert kept()["terms"] - nothing["terms"] == 6 + 2
        first.remove(first.rows()[:2])
        assert kept()["records"] - nothing["records"] == 7
        again = [batch(range(5), terms=terms[:5]), batch(range(4, 8), terms=terms[:1], space=2)]
        first.replace(again, b"new", under=CONFIG)
        assert (first.spaces(), first.check()) == ({1: 4, 2: 4}, [])
        assert kept()["terms"] - nothing["terms"] == 4 + 1
        backend.drop("acme", "faces")
        del nothing["collections"]
        assert {table: n for table, n in kept().items() if table != "collections"} == nothing
        assert third.check() == []
        if company:
            assert len(second.rows(Range("f", "number", 0.0, 9.0))) == second.count() == 9
            assert second.artefact("profile") == b"theirs"
        apart.close()


def test_no_index_vectors(tmp_path):
    spec = CollectionSpec("acme", "sealed", 0, 40)
    backend = FaissBackend(f"faiss://{tmp_path}")
    store = backend.create(spec, CONFIG)
    store.put(batch(range(5), spec=spec), under=CONFIG)
    assert store.vectors(store.rows())[1].shape == (5, 40)
    assert store.index_vectors(store.rows())[1].shape == (5, 0)
    store.flush()
    assert store.check() == []
    assert store.stats()["index"] == "none"
    backend.close()


def test_check_finds_what_another_program_did(tmp_path):
    backend, store = connect(tmp_path)
    store.put(batch(range(9), terms=[(0, "f", Term("number", 1.0))]), under=CONFIG)
    for change, told in (
        ("DELETE FROM vectors WHERE row = (SELECT max(row) FROM records)", "1 records have no vector"),
        ("UPDATE vectors SET envelope = x'00' WHERE row = (SELECT min(row) FROM records)", "wrong length"),
        ("DELETE FROM index_vectors WHERE row = (SELECT max(row) FROM records)", "no index vector"),
        ("UPDATE spaces SET records = 5", "miscounted"),
        ("UPDATE meta SET value = 1 WHERE name = 'next_row'", "never given out"),
    ):
        with backend._database.write() as cursor:
            cursor.execute(change)
        assert any(told in line for line in store.check()), told
    # and what is left can still be read
    assert len(store.vectors(store.rows())[0]) == 8
    backend.close()
