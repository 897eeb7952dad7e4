"""The contract of `VectorIndex` over `Records`: a test file subclasses it for an index and a record store."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encvec_store.data import AllOf, Match, Present, Range, Term
from encvec_store.errors import CollectionNotFoundError, StaleConfigError
from encvec_store.indexes.protocol import BringsEnvelopes, KeepsEnvelopes
from encvec_store.storage import CollectionSpec
from tests.kits.records import CONFIG, DIM, SPEC, WIDTH, batch, kept, token, tokens
from tests.kits.threads import guarded

PARTITIONS = (1, 2, 1 << 32 | 1)
NAMES = st.lists(st.integers(0, 30), max_size=12, unique=True)
WRITES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, st.sampled_from(PARTITIONS)),
        st.tuples(st.just("remove"), NAMES, st.none()),
        st.tuples(st.just("replace"), NAMES, st.sampled_from([4, DIM])),
        st.tuples(st.sampled_from(["flush", "forget", "look"]), st.none(), st.none()),
    ),
    max_size=10,
)


def queries(n=3, dim=DIM, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def everything(records):
    """(rows, partitions, index vectors) of all there is."""
    rows = records.rows()
    partitions = np.array([partition for _, partition, _, _ in records.audit(rows)], np.int64)
    return rows, partitions, records.index_vectors(rows)[1]


def brute(records, probes, limit, predicate=None):
    """What an exact index answers."""
    rows, partitions, vectors = everything(records)
    there = np.isin(rows, records.rows(predicate)) & np.isin(partitions, list(probes))
    lists = []
    for i in range(len(next(iter(probes.values())))):
        products = np.full(len(rows), -np.inf)
        for partition, asked in probes.items():
            products[partitions == partition] = vectors[partitions == partition] @ asked[i]
        products[~there] = -np.inf
        lists.append(rows[np.argsort(-products, kind="stable")[: min(limit, int(there.sum()))]])
    return lists


class Meanwhile:
    """Records that run `work` once, right before one of some methods does its own."""

    def __init__(self, records, *methods):
        self._records, self._methods, self.work = records, methods, None

    def __getattr__(self, name):
        if name in self._methods and self.work is not None:
            work, self.work = self.work, None
            work()
        return getattr(self._records, name)


class IndexContract:
    """Subclasses define the fixture `place`: what `Place` in `tests/kits/indexes.py` has."""

    exact = True
    """Whether it compares everything."""

    @pytest.fixture
    def place(self):
        raise AssertionError("a subclass says how records and an index are made")

    @pytest.fixture
    def records(self, place):
        return place.records()

    @pytest.fixture
    def other(self, records, place):
        """The same collection, as another process sees it."""
        return place.records()

    @pytest.fixture
    def index(self, place, records):
        return place.index(records)

    def agrees(
        self, index, records, *, dim=DIM, limits=(1, 5, 1000), partitions=((1,), (2,), PARTITIONS), predicates=(None,)
    ):
        """Compare every answer with brute force."""
        asked = {partition: queries(dim=dim, seed=partition % 97) for partition in {*PARTITIONS, *sum(partitions, ())}}
        for predicate in predicates:
            for chosen in partitions:
                probes = {partition: asked[partition] for partition in chosen}
                matching = brute(records, probes, 10**9, predicate)
                for limit in limits:
                    got = [rows.tolist() for rows in index.candidates(probes, limit, predicate)]
                    want = [rows[:limit].tolist() for rows in matching]
                    assert [len(line) for line in got] == [len(line) for line in want]
                    for line, whole in zip(got, matching, strict=True):
                        assert len(set(line)) == len(line)
                        assert set(line) <= set(whole.tolist())
                    if self.exact and len(chosen) == 1:
                        assert got == want

    def test_candidates_are_those_of_brute_force(self, index, records):
        for partition in PARTITIONS:
            records.put(
                batch(range(partition % 97 * 100, partition % 97 * 100 + 60), partition=partition), under=CONFIG
            )
        self.agrees(index, records)

    def test_nearest_first(self, index, records):
        records.put(batch(range(100)), under=CONFIG)
        rows, _, vectors = everything(records)
        for line, asked in zip(index.candidates({1: queries()}, 20), queries(), strict=True):
            products = vectors[np.searchsorted(rows, line)] @ asked
            assert np.all(np.diff(products) <= (1e-4 if self.exact else 0.1))

    def test_several_partitions_together(self, index, records):
        """The nearest of all of them, each compared with a query of its own."""
        for n, partition in enumerate(PARTITIONS):
            records.put(batch(range(100 * n, 100 * n + 100), partition=partition), under=CONFIG)
        probes = {partition: queries(seed=partition % 97) for partition in (*PARTITIONS, 7)}
        for limit in (1, 20, 200, 400):
            for got, want in zip(index.candidates(probes, limit), brute(records, probes, limit), strict=True):
                assert len(got) == min(limit, 300)
                assert len(set(got.tolist()) & set(want.tolist())) >= (0.9 if self.exact else 0.5) * len(want)

    def test_filters(self, index, records):
        n = 60
        terms = [(i, "n", Term("number", float(i))) for i in range(n)] + [(3, "f", Term("bool", 1.0))]
        records.put(batch(range(n), terms=terms), under=CONFIG)
        few, half = Match("f", (Term("bool", 1.0),)), Range("n", "number", None, 29.0)
        nothing = Match("n", (Term("number", 1000.0),))
        self.agrees(index, records, predicates=[few, half, nothing, Present("n"), AllOf((few, half))])

    def test_a_filter_asked_again_sees_what_was_written(self, index, records, other):
        predicate = Match("f", (Term("bool", 1.0),))
        records.put(batch(range(40), terms=[(i, "f", Term("bool", float(i % 2))) for i in range(40)]), under=CONFIG)
        for turn in range(4):
            writer = other if turn % 2 else records
            writer.put(batch(range(turn, turn + 9), terms=[(0, "f", Term("bool", 1.0))], seed=turn), under=CONFIG)
            writer.remove(writer.find(tokens([30 + turn])))
            self.agrees(index, records, predicates=[predicate, None])
        names = range(10)
        records.replace([kept(records, names, terms=[(0, "f", Term("bool", 1.0))])], CONFIG, under=CONFIG)
        self.agrees(index, records, predicates=[predicate, None])

    def test_nothing_to_find(self, index, records):
        assert [rows.tolist() for rows in index.candidates({1: queries()}, 5)] == [[], [], []]
        records.put(batch("abc"), under=CONFIG)
        assert index.candidates({1: queries(0)}, 5) == []
        assert [len(rows) for rows in index.candidates({1: queries()}, 0)] == [0, 0, 0]
        assert [len(rows) for rows in index.candidates({5: queries()}, 5)] == [0, 0, 0]
        records.remove(records.rows())
        assert [len(rows) for rows in index.candidates({1: queries()}, 5)] == [0, 0, 0]

    def test_writes_of_others_are_followed(self, place, index, records, other):
        second = place.index(other)
        for turn in range(6):
            writer = (records, other)[turn % 2]
            writer.put(batch(range(turn * 5, turn * 10 + 20), seed=turn, partition=1 + turn % 2), under=CONFIG)
            writer.remove(writer.find(tokens(range(turn * 7, turn * 7 + 4))))
            if turn == 3:
                there = [n for n in range(80) if writer.find(tokens([n])).any()]
                writer.replace([kept(writer, there[::2], seed=9)], CONFIG, under=CONFIG)
            for one, of in ((index, records), (second, other)):
                self.agrees(one, of)
            (index, second)[turn // 2 % 2].flush()

    def test_random_writes(self, place):
        @settings(max_examples=12)
        @given(writes=WRITES)
        def check(writes):
            place.clear()
            self.follow(place, writes)

        check()

    def follow(self, place, writes):
        """Have another process write, and compare answers in between and at the end."""
        records, other = place.records(), place.records()
        index, dim = place.index(records), DIM
        for turn, (what, names, value) in enumerate(writes):
            spec = CollectionSpec(SPEC.tenant, SPEC.name, dim, WIDTH)
            if what == "put":
                other.put(batch(names, partition=value, seed=turn, spec=spec), under=CONFIG)
            elif what == "remove":
                other.remove(other.find(tokens(names)))
            elif what == "replace":
                dim, spec = value, CollectionSpec(SPEC.tenant, SPEC.name, value, WIDTH)
                there = [name for name in names if other.find(tokens([name])).any()]
                made = kept(other, there, partition=2, seed=turn, spec=spec)
                other.replace([made], CONFIG, under=CONFIG, index_dim=value)
            elif what == "look":
                self.agrees(index, records, dim=dim, limits=(2, 50))
            else:
                getattr(index, what)()
        self.agrees(index, records, dim=dim, limits=(2, 50))

    # replace

    def test_content_replaced_under_the_same_rows(self, index, records, other):
        """The numbers tell nothing: index vectors of before are void."""
        records.put(batch(range(60)), under=CONFIG)
        self.agrees(index, records)
        index.flush()
        before = index.candidates({1: queries()}, 10)
        other.replace([kept(other, range(60), seed=1)], CONFIG, under=CONFIG, index_dim=DIM)
        assert sorted(records.rows()) == sorted(other.rows())
        self.agrees(index, records)
        after = index.candidates({1: queries()}, 10)
        assert any(a.tolist() != b.tolist() for a, b in zip(before, after, strict=True))

    def test_another_dimension(self, index, records, other):
        records.put(batch(range(60)), under=CONFIG)
        self.agrees(index, records)
        spec = CollectionSpec(SPEC.tenant, SPEC.name, 3, WIDTH)
        other.replace([kept(other, range(60), spec=spec)], CONFIG, under=CONFIG, index_dim=3)
        with pytest.raises(StaleConfigError):
            index.candidates({1: queries()}, 5)
        self.agrees(index, records, dim=3)
        other.replace([kept(other, range(60))], CONFIG, under=CONFIG, index_dim=DIM)
        self.agrees(index, records)

    @pytest.mark.parametrize("dim", [0, 3, 9])
    def test_probes_of_another_dimension_are_stale(self, index, records, dim):
        records.put(batch(range(10)), under=CONFIG)
        for _ in range(2):
            with pytest.raises(StaleConfigError):
                index.candidates({1: queries(dim=dim)}, 5)
            self.agrees(index, records)

    def test_no_index_vectors(self, place):
        spec = CollectionSpec("acme", "sealed", 0, WIDTH)
        records = place.records(spec)
        index = place.index(records)
        records.put(batch(range(5), spec=spec), under=CONFIG)
        assert all(len(rows) in (0, 3) for rows in index.candidates({1: queries(dim=0)}, 3))
        index.flush()
        with pytest.raises(StaleConfigError):
            index.candidates({1: queries()}, 3)
        given = CollectionSpec("acme", "sealed", DIM, WIDTH)
        records.replace([kept(records, range(5), spec=given)], CONFIG, under=CONFIG, index_dim=DIM)
        self.agrees(index, records)
        assert index.check() == []

    @pytest.mark.parametrize("dim", [3, DIM])
    def test_content_replaced_while_it_is_read(self, index, records, other, monkeypatch, dim):
        """What is read then is of both, and must not stay."""
        records.put(batch(range(40)), under=CONFIG)
        spec = CollectionSpec(SPEC.tenant, SPEC.name, dim, WIDTH)
        read, replaced = records.index_vectors, []

        def index_vectors(rows):
            found = read(rows)
            if not replaced:
                replaced.append(True)
                other.replace([kept(other, range(40), seed=1, spec=spec)], CONFIG, under=CONFIG, index_dim=dim)
            return found

        monkeypatch.setattr(records, "index_vectors", index_vectors)
        try:
            index.candidates({1: queries()}, 5)
        except StaleConfigError:
            assert dim != DIM
        self.agrees(index, records, dim=dim)

    # the rest of the protocol

    def test_forgotten_and_made_again(self, index, records):
        records.put(batch(range(50)), under=CONFIG)
        self.agrees(index, records)
        index.flush()
        index.forget()
        self.agrees(index, records)
        index.flush()
        assert index.check() == []

    def test_closed_and_opened_again(self, place, index, records):
        records.put(batch(range(50)), under=CONFIG)
        self.agrees(index, records)
        index.close()
        index.close()
        records.put(batch(range(40, 60), seed=1), under=CONFIG)
        again = place.index(place.records())
        self.agrees(again, records)
        assert again.check() == []

    def test_of_a_dropped_collection(self, place, index, records):
        records.put(batch(range(50)), under=CONFIG)
        self.agrees(index, records)
        place.store().drop(SPEC.tenant, SPEC.name)
        with pytest.raises(CollectionNotFoundError):
            index.candidates({1: queries()}, 5)
        index.remove()
        made = place.records()
        made.put(batch(range(5), seed=1), under=CONFIG)
        self.agrees(place.index(made), made)

    def test_explain_and_stats(self, index, records):
        records.put(batch(range(50), terms=[(3, "f", Term("bool", 1.0))]), under=CONFIG)
        assert "50" in index.explain(1, queries(1)[0], 5)
        assert "1 of 50" in index.explain(1, queries(1)[0], 5, Present("f"))
        index.candidates({1: queries()}, 5)
        told = index.stats()
        assert isinstance(told["index"], str)
        assert all(isinstance(size, int) for size in told["bytes"].values())

    def test_threads(self, index, records, other):
        """Readers and writers at once: nothing fails, and every answer has its length."""
        records.put(batch(range(100)), under=CONFIG)
        failed, done = [], threading.Event()

        def write():
            for turn in range(6):
                names = range(1000 + turn * 30, 1060 + turn * 30)
                other.put(batch(names, seed=turn), under=CONFIG)
                other.remove(other.find(tokens(names[::3])))

        def search():
            while not done.is_set():
                assert all(len(rows) == 20 for rows in index.candidates({1: queries()}, 20))

        writer, readers = guarded(failed, write), [guarded(failed, search) for _ in range(2)]
        for thread in (writer, *readers):
            thread.start()
        writer.join()
        done.set()
        for thread in readers:
            thread.join()
        assert failed == []
        self.agrees(index, records)

    def test_envelopes_it_brings_or_keeps(self, index, records, other):
        if not isinstance(index, BringsEnvelopes | KeepsEnvelopes):
            pytest.skip("no such capability")
        records.put(batch(range(50)), under=CONFIG)
        for _ in range(2):
            rows = records.rows()[::-7]
            if isinstance(index, KeepsEnvelopes):
                found, envelopes = index.vectors(np.append(rows, [2**62]))
                assert found.tolist() == rows.tolist()
                assert np.array_equal(envelopes, records.vectors(rows)[1])
            if isinstance(index, BringsEnvelopes):
                nearest = index.nearest({1: queries()}, 10)
                assert set(nearest.rows.tolist()) == set(np.concatenate(nearest.lists).tolist())
                assert np.array_equal(nearest.vectors, records.vectors(nearest.rows)[1])
                assert len(nearest.lists) == 3
                assert all(len(line) == 10 for line in nearest.lists)
            index.flush()  # the second time from copies, if it has any
        other.replace([kept(other, range(50), seed=1)], CONFIG, under=CONFIG)
        if isinstance(index, KeepsEnvelopes):
            assert np.array_equal(index.vectors(rows)[1], records.vectors(rows)[1]), "sealed anew"
        assert token(1) in {name for _, _, name, _ in records.audit(records.rows())}

    @pytest.mark.parametrize("method", ["filter", "index_vectors"])
    def test_a_record_that_is_updated_in_the_middle_of_a_search(self, place, records, other, method):
        """It was there all the time, and satisfied the filter: it is found, as of before or of after."""
        marked = [(i, "f", Term("bool", 1.0)) for i in range(12)]
        before = batch(range(12), terms=marked)
        meanwhile = Meanwhile(records, *(("rows", "following") if method == "filter" else (method,)))
        index = place.index(meanwhile)
        records.put(before, under=CONFIG)
        if method == "filter":
            index.candidates({1: queries()}, 100)  # so that nothing but the filter is left to read
        meanwhile.work = lambda: other.put(batch(range(6), seed=1, terms=marked[:6]), under=CONFIG)
        for line in index.candidates({1: queries()}, 100, Present("f")):
            assert sorted(line.tolist()) == records.rows().tolist()
        if meanwhile.work is not None:
            pytest.skip("one statement reads everything")

    def test_filters_beside_a_writer_without_end(self, place, records, other):
        """Every record stays in the collection, and satisfies the filter, while it is updated again and again."""
        marked, failed, done = [(i, "f", Term("bool", 1.0)) for i in range(10)], [], threading.Event()
        records.put(batch(range(10), terms=marked), under=CONFIG)

        def write():
            seed = 0
            while not done.is_set():
                seed += 1
                other.put(batch(range(10), seed=seed, terms=marked), under=CONFIG)

        def search(index):
            for _ in range(40):
                for line in index.candidates({1: queries()}, 100, Present("f")):
                    assert len(line) == 10

        index = place.index(records)
        writer, searchers = guarded(failed, write), [guarded(failed, search, index) for _ in range(2)]
        for thread in (writer, *searchers):
            thread.start()
        for thread in searchers:
            thread.join()
        done.set()
        writer.join()
        assert not failed
