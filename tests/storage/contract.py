"""The contract of `Records` and `RecordStore`: a test file subclasses it for a store and says how one is opened."""

import threading

import numpy as np
import pytest

from encvec_store.data import AllOf, AnyOf, Match, Present, Range, Term
from encvec_store.errors import CollectionNotFoundError, StaleConfigError, StoreClosedError, StoreLockedError
from encvec_store.storage.protocol import Blob, CollectionSpec
from tests.kits import histories
from tests.kits.records import CONFIG, DIM, SPEC, WIDTH, batch, content, kept, of_batch, token, tokens
from tests.storage.blobs import BlobsContract
from tests.storage.changes import ChangesContract
from tests.storage.frozen import FrozenContract
from tests.storage.names import NamesContract


class RecordsContract(BlobsContract, ChangesContract, FrozenContract, NamesContract):
    """Subclasses define the fixture `fresh`.

    It is a function that returns a context manager of an empty place: a function that opens a store there, as another
    process would, with a lock timeout well below a second. The place closes what was opened.
    """

    examples = 25

    @pytest.fixture
    def fresh(self):
        raise AssertionError("a subclass says how a store is opened")

    @pytest.fixture
    def open_store(self, fresh):
        with fresh() as open_store:
            yield open_store

    @pytest.fixture
    def store(self, open_store):
        return open_store()

    @pytest.fixture
    def records(self, store):
        return store.create(SPEC, CONFIG)

    @pytest.fixture
    def other(self, records, open_store):
        """The same collection, as another process sees it."""
        return open_store().open(SPEC.tenant, SPEC.name)

    def test_random_histories(self, fresh):
        histories.run(fresh, self.examples)

    def test_kinds_are_kept_apart(self, records):
        terms = [(0, "f", Term("number", 1.0)), (1, "f", Term("bool", 1.0)), (2, "f", Term("str", "1"))]
        records.put(batch("abc", terms=terms), under=CONFIG)
        a, b, c = records.find(tokens("abc")).tolist()
        assert records.rows(Match("f", (Term("number", 1.0),))).tolist() == [a]
        assert records.rows(Match("f", (Term("bool", 1.0), Term("str", "1")))).tolist() == [b, c]
        assert records.rows(Range("f", "number", None, None)).tolist() == [a]
        assert records.rows(Range("f", "str", "", None)).tolist() == [c]
        assert records.rows(Present("f")).tolist() == [a, b, c]
        assert records.rows(Present("g")).tolist() == []

    def test_text_is_ordered_by_code_point(self, records):
        # UTF-16 would put U+1F600 before U+E000; a locale would put "a" before "B"
        ordered = ["B", "a", "é", "\ue000", "\U0001f600"]
        records.put(
            batch(range(5), terms=[(i, "f", Term("str", text)) for i, text in enumerate(ordered)]), under=CONFIG
        )
        rows = records.find(tokens(range(5))).tolist()
        for i, low in enumerate(ordered):
            assert records.rows(Range("f", "str", low, None)).tolist() == rows[i:]
            assert records.rows(Range("f", "str", None, low)).tolist() == rows[: i + 1]

    def test_thousands_of_terms_in_one_filter(self, records):
        n = 3_000
        terms = [(i, "f", Term("number", float(i))) for i in range(n)]
        records.put(batch(range(n), terms=terms), under=CONFIG)
        wanted = tuple(Term("number", float(i)) for i in range(0, 80_000, 2))
        assert len(records.rows(Match("f", wanted))) == n / 2
        assert len(records.rows(AllOf((Match("f", wanted), Range("f", "number", 10.0, 20.0))))) == 6

    def test_pages_of_rows(self, records):
        n = 50
        records.put(batch(range(n), terms=[(i, "f", Term("bool", float(i % 2))) for i in range(n)]), under=CONFIG)
        for predicate in (None, Match("f", (Term("bool", 1.0),)), Present("f"), AnyOf((Present("f"), Present("g")))):
            everything, after, pages = records.rows(predicate).tolist(), 0, []
            while len(page := records.rows(predicate, after=after, limit=7)):
                pages += page.tolist()
                after = pages[-1]
            assert pages == everything

    def test_found_rows_in_the_order_asked(self, records):
        records.put(batch(range(30)), under=CONFIG)
        rows = records.rows()
        asked = np.concatenate([rows[::-3], [2**62], rows[:2]])
        expected = asked[asked != 2**62].tolist()
        for read in (records.vectors, records.payloads, records.index_vectors):
            found, values = read(asked)
            assert found.tolist() == expected
            for row, value in zip(found, values, strict=True):
                assert bytes(value) == bytes(read(np.array([row]))[1][0])
        assert [entry[0] for entry in records.audit(asked)] == expected

    def test_sizes_of_payloads(self, records):
        records.put(batch(range(20)), under=CONFIG)
        rows = records.rows()[::-1]
        asked = np.concatenate([rows, [10**12]])
        found, sizes = records.payload_sizes(asked)
        np.testing.assert_array_equal(found, rows)
        assert sizes.tolist() == [len(payload) for payload in records.payloads(rows)[1]]
        assert [len(part) for part in records.payload_sizes(rows[:0])] == [0, 0]

    def test_nothing_asked(self, records):
        nothing = np.empty(0, np.int64)
        assert records.vectors(nothing)[1].shape == (0, WIDTH)
        assert records.index_vectors(nothing)[1].shape == (0, DIM)
        assert records.payloads(nothing)[1] == records.audit(nothing) == []
        assert records.find(tokens([])).tolist() == []
        assert records.remove(nothing) == 0
        assert (records.rows().tolist(), records.count(), records.partitions()) == ([], 0, {})

    def test_a_row_named_twice_goes_once(self, records):
        records.put(batch("abc"), under=CONFIG)
        first, second, third = records.rows()
        assert records.remove(np.array([first, third, first])) == 2
        assert records.rows().tolist() == [second]

    def test_rows_of_another_collection_are_absent(self, store, records):
        other = store.create(CollectionSpec("acme", "other", DIM, WIDTH), CONFIG)
        other.put(batch(range(5)), under=CONFIG)
        rows = other.rows()
        assert records.remove(rows) == 0
        assert all(len(read(rows)[0]) == 0 for read in (records.vectors, records.payloads, records.index_vectors))
        assert records.audit(rows) == []
        assert records.find(tokens(range(5))).tolist() == [0] * 5
        assert other.count() == 5

    def test_the_newest_row(self, records):
        assert records.newest() == 0
        records.put(batch("abc"), under=CONFIG)
        assert records.newest() == records.rows()[-1]
        records.put(batch("a"), under=CONFIG)
        last = records.newest()
        assert last == records.rows()[-1]
        records.remove(np.array([last]))
        assert 0 < records.newest() == records.rows()[-1] < last

    def test_audit_says_what_a_store_can_read(self, records):
        one, two = Term("number", 1.0), Term("str", "a")
        records.put(batch("ab", partition=7, terms=[(0, "x", one), (0, "x", one), (0, "y", two)]), under=CONFIG)
        a, b = records.find(tokens("ab")).tolist()
        found = records.audit(np.array([b, a]))
        assert found == [(b, 7, token("b"), set()), (a, 7, token("a"), {("x", one), ("y", two)})]

    def test_partitions_are_large_numbers(self, records):
        for partition in (1, 1 << 32 | 1, 1 << 44):
            records.put(batch([partition], partition=partition), under=CONFIG)
        assert records.partitions() == {1: 1, 1 << 32 | 1: 1, 1 << 44: 1}
        assert set(records.changes(-1, 0).added) == {1, 1 << 32 | 1, 1 << 44}

    # settings and blobs

    def test_settings_must_be_those_seen(self, records):
        records.put(batch("a"), under=CONFIG, config=b"second")
        generation = records.generation()
        for write in (
            lambda: records.put(batch("b"), under=CONFIG),
            lambda: records.replace([kept(records, "a")], b"third", under=CONFIG),
            lambda: records.put(batch("b"), under=CONFIG, blobs={"profile": Blob(1, b"third")}),
        ):
            with pytest.raises(StaleConfigError):
                write()
        assert (records.config(), records.count(), records.generation()) == (b"second", 1, generation)
        assert records.blob("profile") is None

    def test_blobs(self, records, other):
        assert records.blob("profile") is None
        records.put(batch("a"), under=CONFIG, blobs={"profile": Blob(1, b"one"), "list": Blob(1, b"")})
        assert (other.blob("profile"), other.blob("list"), other.blob("profile", 1)) == (b"one", b"", None)
        records.put(batch("b"), under=CONFIG)
        records.put(batch("c"), under=CONFIG, blobs={"list": Blob(2, b"two" * 100_000)})
        assert (other.blob("profile"), other.blob("list")) == (b"one", b"two" * 100_000)
        records.replace([kept(records, "abc")], b"new", under=CONFIG)
        assert other.blob("profile") == b"one", "only what is named changes"
        records.replace([kept(records, "abc")], b"new", under=b"new", blobs={"profile": Blob(3, b"three")})
        assert (other.blob("profile"), other.blob("list")) == (b"three", b"two" * 100_000)
        records.put(batch([]), under=b"new", blobs={"list": None, "never": None})
        assert (other.blob("profile"), other.blob("list")) == (b"three", None)

    def test_a_blob_is_of_its_collection(self, store, records):
        other = store.create(CollectionSpec("acme", "other", DIM, WIDTH), CONFIG)
        records.put(batch([]), under=CONFIG, blobs={"profile": Blob(1, b"ours")})
        other.put(batch([]), under=CONFIG, blobs={"profile": Blob(1, b"theirs")})
        assert (records.blob("profile"), other.blob("profile")) == (b"ours", b"theirs")
        store.drop("acme", "other")
        assert records.blob("profile") == b"ours"
        again = store.create(CollectionSpec("acme", "other", DIM, WIDTH), CONFIG)
        assert again.blob("profile") is None

    def test_a_blob_does_not_show_in_a_repr(self):
        assert "secret" not in repr(Blob(1, b"secret"))

    # put

    def test_a_put_that_fails_changes_nothing(self, records):
        records.put(batch("abc"), under=CONFIG)
        before, generation = content(records), records.generation()

        def more():
            yield batch("de")
            raise KeyError("no such thing")

        with pytest.raises(KeyError):
            records.put(
                batch("ax", seed=1), under=CONFIG, config=b"new", blobs={"profile": Blob(1, b"new")}, more=more()
            )
        assert (content(records), records.generation(), records.config()) == (before, generation, CONFIG)
        assert records.blob("profile") is None
        records.put(batch("d"), under=CONFIG)
        assert records.check() == []

    def test_retired_names_go_with_the_write(self, records):
        records.put(batch("abc"), under=CONFIG)
        records.put(batch("de", retired="abx"), under=CONFIG)
        assert set(content(records)) == set(map(token, "cde"))

    def test_a_batch_to_put_must_have_no_rows(self, records):
        records.put(batch("a"), under=CONFIG)
        with pytest.raises(ValueError, match="must have no rows"):
            records.put(kept(records, "a"), under=CONFIG)
        with pytest.raises(ValueError, match="must have no rows"):
            records.put(batch("b"), under=CONFIG, more=[kept(records, "a")])
        assert set(content(records)) == {token("a")}

    def test_a_put_over_rows_that_must_be_there(self, records, other):
        records.put(batch("abc"), under=CONFIG)
        before, rows = content(records), records.find(tokens("ab"))
        other.remove(rows[:1])
        assert records.put(batch("ab", seed=1), under=CONFIG, over=rows) is False
        generation = other.generation()
        assert content(records) == {name: kept for name, kept in before.items() if name != token("a")}
        assert records.put(batch("b", seed=1), under=CONFIG, over=rows[1:], more=[batch("c", seed=2)]) is True
        assert content(other) == of_batch(batch("b", seed=1)) | of_batch(batch("c", seed=2))
        assert other.generation() == generation + 1
        assert records.put(batch("d"), under=CONFIG, over=rows[:0]) is True

    def test_row_numbers_are_never_used_again(self, open_store, records):
        seen = set()
        for turn in range(4):
            records.put(batch("abcd", seed=turn), under=CONFIG)
            rows = records.rows()
            assert not seen & set(rows.tolist())
            assert rows.min() > max(seen, default=0)
            seen.update(rows.tolist())
            if turn == 1:
                records.remove(rows)
            if turn == 2:
                records.replace([kept(records, "b")], CONFIG, under=CONFIG)
            records = open_store().open(SPEC.tenant, SPEC.name)

    # replace

    def test_replace_keeps_rows(self, records, other):
        records.put(batch("abcde"), under=CONFIG)
        before = dict(zip("abcde", records.find(tokens("abcde")).tolist(), strict=True))
        spec = CollectionSpec(SPEC.tenant, SPEC.name, 3, WIDTH)
        made = [kept(records, "db", seed=1, partition=2, spec=spec), kept(records, "e", seed=1, spec=spec)]
        records.replace(made, b"new", under=CONFIG, index_dim=3)
        for seen in (records, other):
            assert seen.find(tokens("abcde")).tolist() == [0, before["b"], 0, before["d"], before["e"]]
            assert content(seen) == of_batch(made[0]) | of_batch(made[1])
            assert seen.index_vectors(seen.rows())[1].shape == (3, 3)
            assert seen.partitions() == {1: 1, 2: 2}
            assert seen.config() == b"new"
        records.put(batch("f", spec=spec), under=b"new")
        assert records.rows().max() > max(before.values())
        assert records.check() == []

    def test_a_batch_of_replace_must_have_rows_that_there_are(self, records):
        records.put(batch("ab"), under=CONFIG)
        before = content(records)
        with pytest.raises(ValueError, match="must have rows"):
            records.replace([kept(records, "a"), batch("b")], CONFIG, under=CONFIG)
        for rows in ([2**61], [0], [-1]):
            with pytest.raises(ValueError, match="have already"):
                records.replace([batch("a", rows=np.array(rows, np.int64))], CONFIG, under=CONFIG)
        assert content(records) == before

    def test_replace_shows_the_old_until_the_end(self, records, other):
        records.put(batch("abc"), under=CONFIG)
        before = content(records)

        def batches():
            for name in "abc":
                assert content(records) == content(other) == before
                read = []  # another thread may make the batches
                thread = threading.Thread(target=lambda read=read: read.append(content(records)))
                thread.start()
                thread.join(5)
                assert read == [before]
                yield kept(records, name, seed=1, partition=2)

        records.replace(batches(), b"new", under=CONFIG)
        assert set(content(other)) == set(map(token, "abc"))
        assert content(other) != before
        assert other.partitions() == {2: 3}
        assert other.config() == b"new"

    def test_replace_that_fails_changes_nothing(self, records):
        records.put(batch("abc"), under=CONFIG)
        before, generation = content(records), records.generation()

        def batches():
            yield kept(records, "ab", seed=1, spec=CollectionSpec(SPEC.tenant, SPEC.name, 3, WIDTH))
            raise KeyError("no such thing")

        with pytest.raises(KeyError):
            records.replace(batches(), b"new", under=CONFIG, index_dim=3, blobs={"profile": Blob(1, b"new")})
        assert (content(records), records.generation(), records.config()) == (before, generation, CONFIG)
        assert records.blob("profile") is None
        records.put(batch("d"), under=CONFIG)
        assert records.check() == []

    def test_replace_by_nothing(self, records, other):
        records.put(batch("abc"), under=CONFIG)
        records.replace([], CONFIG, under=CONFIG)
        assert (other.count(), other.partitions(), content(other)) == (0, {}, {})

    def test_locked_by_another(self, records, other):
        records.put(batch("a"), under=CONFIG)

        def batches():
            for writer in (other, records):  # another process, and another caller in this one
                with pytest.raises(StoreLockedError, match="nothing was written, try again"):
                    writer.put(batch("b"), under=CONFIG)
                with pytest.raises(StoreLockedError):
                    writer.remove(writer.rows())
            assert other.count() == 1
            yield kept(records, "a", seed=1)

        records.replace(batches(), CONFIG, under=CONFIG)
        other.put(batch("d"), under=CONFIG)
        assert set(content(records)) == {token("a"), token("d")}

    # precision, dimension

    def test_half_precision(self, store):
        spec = CollectionSpec("acme", "halves", DIM, WIDTH, half=True)
        records = store.create(spec, CONFIG)
        made = batch(range(9), spec=spec)
        records.put(made, under=CONFIG)
        _, vectors = records.index_vectors(records.find(made.tokens))
        assert vectors.dtype == np.float32
        assert np.array_equal(vectors, made.index_vectors.astype(np.float32))
        assert records.check() == []

    def test_no_index_vectors(self, store):
        spec = CollectionSpec("acme", "sealed", 0, WIDTH)
        records = store.create(spec, CONFIG)
        records.put(batch(range(5), spec=spec), under=CONFIG)
        assert records.vectors(records.rows())[1].shape == (5, WIDTH)
        found, vectors = records.index_vectors(records.rows())
        assert (found.tolist(), vectors.shape) == (records.rows().tolist(), (5, 0))
        assert records.changes(-1, 0).index_dim == 0
        records.replace([kept(records, range(3))], b"new", under=CONFIG, index_dim=DIM)
        assert records.index_vectors(records.rows())[1].shape == (3, DIM)
        assert records.changes(-1, 0).index_dim == DIM
        records.flush()
        assert records.check() == []

    def test_stats_name_sizes(self, records):
        records.put(batch(range(50)), under=CONFIG)
        sizes = records.stats()["bytes"]
        assert all(isinstance(size, int) for size in sizes.values())
        assert sum(sizes.values()) >= 50 * (WIDTH + 4 * DIM)

    # the store

    def test_collections(self, store):
        assert store.open("acme", "faces") is None
        first = store.create(SPEC, b"one")
        again = store.create(CollectionSpec("acme", "faces", 3, 3), b"two")
        assert (again.config(), again.spec.index_dim, again.spec.envelope_size) == (b"one", DIM, WIDTH)
        store.create(CollectionSpec("\U0001f600", "a", DIM, WIDTH), CONFIG)
        store.create(CollectionSpec("\ue000", "a", DIM, WIDTH), CONFIG)
        assert store.collections() == [("acme", "faces"), ("\ue000", "a"), ("\U0001f600", "a")]
        assert store.collections("acme") == [("acme", "faces")]
        first.put(batch(range(10)), under=b"one")
        assert store.drop("acme", "faces")
        assert not store.drop("acme", "faces")
        assert store.open("acme", "faces") is None
        made = store.create(SPEC, b"three")
        assert (made.count(), made.config(), made.check()) == (0, b"three", [])

    def test_what_was_dropped_is_not_found(self, store, records, other):
        records.put(batch("abc"), under=CONFIG)
        records.generation(), other.generation()
        store.drop(SPEC.tenant, SPEC.name)
        for seen in (records, other):
            for use in (seen.config, seen.generation, lambda seen=seen: seen.put(batch("a"), under=CONFIG)):
                with pytest.raises(CollectionNotFoundError):
                    use()

    def test_closed(self, store, records):
        records.put(batch(range(3)), under=CONFIG)
        store.close()
        store.close()
        for use in (
            store.collections,
            lambda: store.open("acme", "faces"),
            lambda: store.create(SPEC, CONFIG),
            lambda: records.put(batch([1]), under=CONFIG),
            records.generation,
            records.count,
            records.config,
        ):
            with pytest.raises(StoreClosedError):
                use()
