"""A random history of calls against a dictionary: whatever was done, answers are those of plaintext."""

from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import encvec_store as ev
from encvec_store import errors
from tests.kits import oracle
from tests.kits.oracle import assert_hits
from tests.kits.strategies import FIELDS, FILTERS, METADATA, POLICIES, accepts, alike
from tests.stores.contract import EVERYTHING

DIM = 3
IDS = st.sampled_from(["a", "b", "c", "d e", "é", "\U0001f600", "x" * 1024])
POINTS = st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.25, 1.0, 3.0]), min_size=DIM, max_size=DIM)
BATCHES = st.dictionaries(IDS, st.tuples(POINTS, METADATA, st.none() | st.text(max_size=3)), max_size=4)


class Machine(RuleBasedStateMachine):
    """Subclassed with a `place`: how the store under test is opened."""

    filters = Bundle("filters")
    new_place = None

    @initialize(
        metric=st.sampled_from(oracle.METRICS),
        scheme=st.sampled_from(["sap", "sealed"]),
        policies=POLICIES,
    )
    def open(self, metric, scheme, policies):
        self.keyset = ev.Keyset.create("memory:")
        self.place = type(self).new_place(self.keyset)
        self.store = self.place.connect()
        self.metric, self.scheme, self.policies = metric, scheme, policies
        max_norm = None if metric == "cosine" else 10.0
        self.things = self.store.collection(
            "things", dim=DIM, metric=metric, scheme=scheme, fields=policies, max_norm=max_norm, oversample=EVERYTHING
        )
        self.truth: dict[str, tuple] = {}
        self.written: dict[str, int] = {}  # by which upsert, counted
        self.upserts = 0
        self.lost: set[str] = set()

    @rule(batch=BATCHES)
    def upsert(self, batch):
        if batch:
            points, metadata, documents = zip(*batch.values(), strict=True)
            self.things.upsert(list(batch), np.array(points), list(metadata), list(documents))
        else:
            self.things.upsert([], [])
        for id, (point, fields, text) in batch.items():
            self.truth[id] = (np.array(point, np.float32), fields, text)
            self.written[id] = self.upserts
        self.upserts += 1

    @rule(batch=BATCHES.filter(len), bad=st.sampled_from(["nan", "width", "twice", "metadata"]))
    def upsert_badly(self, batch, bad):
        points, metadata, documents = (list(part) for part in zip(*batch.values(), strict=True))
        ids, width = list(batch), DIM + (bad == "width")
        points = np.ones((len(points), width)) if bad == "width" else np.array(points)
        if bad == "nan":
            points[-1, 0] = np.nan
        if bad == "twice":
            ids, points, metadata, documents = (
                ids + ids[:1],
                np.vstack([points, points[:1]]),
                metadata * 2,
                documents * 2,
            )
            metadata, documents = metadata[: len(ids)], documents[: len(ids)]
        if bad == "metadata":
            metadata[-1] = {"a": object()}
        with pytest.raises(errors.InputError):
            self.things.upsert(ids, points, metadata, documents)

    @rule(ids=st.lists(IDS, max_size=3))
    def delete(self, ids):
        assert self.things.delete(ids) == len(set(ids) & self.truth.keys())
        for id in ids:
            self.truth.pop(id, None)

    @rule(where=FILTERS)
    def delete_where(self, where):
        gone = self.chosen(where)
        if len(gone) < len(self.truth) or len(gone) < 2:  # keep some: an empty collection teaches little
            assert self.things.delete(where=where) == len(gone)
            for id in gone:
                del self.truth[id]

    @rule(ids=st.lists(IDS, max_size=4))
    def get(self, ids):
        records = self.things.get(ids)
        assert [record.id for record in records] == [id for id in ids if id in self.truth]
        for record in records:
            self.check(record)

    @rule(query=POINTS, k=st.sampled_from([1, 2, 100]), where=st.none() | FILTERS)
    def search(self, query, k, where):
        chosen = self.chosen(where) if where else list(self.truth)
        hits = self.things.search(query, k=k, where=where, include_vectors=True)
        if not chosen:
            assert hits == []
            return
        assert_hits(hits, self.metric, query, chosen, np.array([self.truth[id][0] for id in chosen]), k)
        for hit in hits:
            self.check(hit)

    @rule(queries=st.lists(POINTS, max_size=3), where=st.none() | FILTERS)
    def search_several(self, queries, where):
        chosen = self.chosen(where) if where else list(self.truth)
        lists = self.things.search(np.array(queries).reshape(-1, DIM), k=2, where=where)
        assert [len(hits) for hits in lists] == [min(2, len(chosen))] * len(queries)

    @rule(where=FILTERS)
    def count_and_scroll(self, where):
        chosen = self.chosen(where)
        assert self.things.count(where) == len(chosen)
        found = [record.id for record in self.things.scroll(where)]
        assert sorted(found) == sorted(chosen)
        assert [self.written[id] for id in found] == sorted(self.written[id] for id in found), "in the order of writes"

    @rule()
    def rotate(self):
        if self.keyset.primary < 4:
            self.keyset.rotate()

    @rule()
    def retire(self):
        """Destroy the oldest version, once nothing is under it any more."""
        used = {int(version) for version in self.things.stats()["key_versions"]}
        unused = [version for version in self.keyset.live[1:] if version not in used]
        if unused and self.truth:
            self.things.upsert(*self.again())  # settings move to the primary with a write
            self.keyset.destroy(min(unused))

    def again(self):
        id = next(reversed(self.truth))
        point, fields, text = self.truth[id]
        return [id], point[None], [fields], [text]

    @precondition(lambda self: self.scheme == "sap")
    @rule(target_recall=st.sampled_from([0.5, 0.8]))
    def calibrate(self, target_recall):
        self.things.calibrate(oracle.vectors(150, DIM), k=2, target_recall=target_recall, max_candidates=EVERYTHING)

    @rule()
    def reopen(self):
        self.store = self.place.reopen(self.store)
        self.things = self.store.collection("things", fields=self.policies, oversample=EVERYTHING)

    @rule()
    def flush(self):
        self.things.flush()

    @rule()
    def verify(self):
        report = self.things.verify()
        assert report.ok, report
        assert (report.checked, report.unreadable) == (len(self.truth), 0)

    @invariant()
    def counts(self):
        if hasattr(self, "truth"):
            assert self.things.count() == len(self.truth)

    def chosen(self, where):
        return [id for id, (_, fields, _) in self.truth.items() if accepts(where, fields)]

    def check(self, record):
        point, fields, text = self.truth[record.id]
        np.testing.assert_array_equal(record.vector, point)
        assert record.document == text
        assert alike(fields, record.metadata)

    def teardown(self):
        if hasattr(self, "truth"):
            with closing(self.place):
                records = {record.id: record for record in self.things.scroll()}
                assert sorted(records) == sorted(self.truth)
                for record in records.values():
                    self.check(record)


def run(place, examples):
    """Run the machine over stores that `place(keyset)` opens."""
    assert set(FIELDS) == {"a", "b", "c"}

    class Subject(Machine):
        new_place = staticmethod(place)

    run_state_machine_as_test(
        Subject,
        settings=settings(
            max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
