"""Records and index of the faiss store together, against the oracle: random histories, with files and without."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from encvec_store.indexes.faiss import connect as open_url
from encvec_store.storage import CollectionSpec
from tests.kits.faiss_store import CONFIG, WIDTH, Both, agree, batch, connect, content, kept, oracle, token, tokens
from tests.kits.histories import NAMES, PREDICATES, terms_for


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

    @rule(names=NAMES, partition=st.integers(1, 2), seed=st.integers(0, 9), data=st.data())
    def put(self, names, partition, seed, data):
        terms, retired = terms_for(data, names), data.draw(NAMES)
        for both in (self.store, self.expected):
            both.put(
                batch(names, partition=partition, seed=seed, terms=terms, retired=retired), under=self.expected.config()
            )

    @rule(names=NAMES)
    def remove(self, names):
        counts = {both.remove(np.append(both.find(tokens(names)), [0, 2**62])) for both in (self.store, self.expected)}
        assert len(counts) == 1

    @rule(names=NAMES, seed=st.integers(0, 9))
    def replace(self, names, seed):
        under = self.expected.config()
        names = [name for name in names if self.expected.find(tokens([name])).any()]
        for both in (self.store, self.expected):
            halves = [kept(both, names[:5], seed=seed), kept(both, names[5:], seed=seed, partition=2)]
            both.replace(halves, f"after {seed}".encode(), under=under)

    @rule()
    def reopen(self):
        self.store.close()
        self.store = connect(self.folder, **self.options)

    @rule()
    def flush(self):
        self.store.flush()

    @rule()
    def forget(self):
        self.store.index.forget()

    @rule(predicate=PREDICATES)
    def filter(self, predicate):
        agree(self.store, self.expected, predicates=[predicate], exact=self.exact, limits=(2, 50))

    @invariant()
    def agrees(self):
        if hasattr(self, "expected"):
            for both in (self.store, self.reader):
                agree(both, self.expected, exact=self.exact, limits=(2, 50))
            assert self.store.config() == self.reader.config() == self.expected.config()
            assert self.store.check() == []

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            self.reader.close()
            shutil.rmtree(self.folder)


TestRandom = Random.TestCase
TestRandom.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)


def test_found_rows_in_the_order_asked(tmp_path):
    store = connect(tmp_path)
    store.put(batch(range(30)), under=CONFIG)
    rows = store.rows()
    for _ in range(2):  # read from the records, then from the map
        asked = np.concatenate([rows[::-3], [2**62], rows[:2], rows[:1]])
        found, envelopes = store.index.vectors(asked)
        assert found.tolist() == asked[asked != 2**62].tolist()
        for row, envelope in zip(found, envelopes, strict=True):
            assert bytes(envelope) == bytes(store.vectors(np.array([row]))[1][0])
        store.flush()
    assert store.index.stats()["partitions"][1]["mapped"] == 30
    store.close()


def test_the_old_is_searched_until_replace_ends(tmp_path):
    store, other = connect(tmp_path), connect(tmp_path)
    store.put(batch("abc"), under=CONFIG)
    before = content(store)

    def batches():
        for name in "abc":
            for both in (store, other):
                assert content(both) == before
                assert len(both.candidates({1: batch("a").index_vectors}, 9)[0]) == 3
            yield kept(store, name, seed=1, partition=2)

    store.replace(batches(), b"new", under=CONFIG)
    assert set(content(other)) == set(map(token, "abc"))
    for both in (store, other):
        assert [len(both.candidates({partition: batch("a").index_vectors}, 9)[0]) for partition in (1, 2)] == [0, 3]
        both.close()


def test_no_index_vectors(tmp_path):
    spec = CollectionSpec("acme", "sealed", 0, WIDTH)
    store = Both(open_url(f"faiss://{tmp_path}"), spec)
    store.put(batch(range(5), spec=spec), under=CONFIG)
    store.flush()
    assert store.check() == []
    assert store.index.stats()["index"] == "none"
    assert not (tmp_path / "index").exists()
    store.close()
