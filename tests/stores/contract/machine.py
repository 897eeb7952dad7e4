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
from tests.kits.strategies import FIELDS, FILTERS, METADATA, POLICIES, accepts, alike, in_order
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

    @rule(
        batch=BATCHES,
        parts=st.sets(st.sampled_from(["metadata", "documents", "vectors"]), min_size=1),
        replace=st.booleans(),
    )
    def update(self, batch, parts, replace):
        points, metadata, documents = map(list, zip(*batch.values(), strict=True)) if batch else ([], [], [])
        given = {"metadata": metadata, "documents": documents, "vectors": np.array(points).reshape(-1, DIM)}
        given = {name: given[name] for name in parts}
        known = batch.keys() & self.truth.keys()
        assert self.things.update(list(batch), replace=replace, **given) == len(known)
        for id in known:
            point, fields, text = batch[id]
            old_point, old_fields, old_text = self.truth[id]
            new_fields = fields if replace else {**old_fields, **fields}
            new_text = text if replace or text is not None else old_text
            self.truth[id] = (
                np.array(point, np.float32) if "vectors" in parts else old_point,
                new_fields if "metadata" in parts else old_fields,
                new_text if "documents" in parts else old_text,
            )
            self.written[id] = self.upserts
        self.upserts += 1

    @rule(where=FILTERS, fields=METADATA, replace=st.booleans())
    def update_where(self, where, fields, replace):
        changed = self.chosen(where)
        assert self.things.update(where=where, metadata=fields, replace=replace) == len(changed)
        for id in changed:
            point, old_fields, text = self.truth[id]
            self.truth[id] = (point, fields if replace else {**old_fields, **fields}, text)
            self.written[id] = self.upserts
        self.upserts += 1

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

    @rule(
        where=st.none() | FILTERS,
        order=st.lists(st.sampled_from([*FIELDS, *(f"-{name}" for name in FIELDS)]), max_size=2, unique=True),
        offset=st.integers(0, 2),
        limit=st.none() | st.integers(1, 3),
        ids=st.none() | st.lists(IDS, max_size=4),
    )
    def get_some(self, where, order, offset, limit, ids):
        chosen = self.chosen(where) if where else list(self.truth)
        found = self.things.get(ids, where, order_by=order or None)
        if ids is None:
            assert sorted(record.id for record in found) == sorted(chosen)
        else:
            assert sorted(record.id for record in found) == sorted(id for id in ids if id in chosen)
        for record in found:
            self.check(record)
        part = self.things.get(ids, where, order_by=order or None, offset=offset, limit=limit, include_vectors=False)
        assert [record.id for record in part] == [record.id for record in found][
            offset : None if limit is None else offset + limit
        ]
        assert all(record.vector is None for record in part)
        expected = in_order(order, [(record.metadata, record.id) for record in self.things.get(ids, where)])
        assert [record.id for record in found] == [id for _, id in expected]

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

    @rule(
        query=POINTS,
        k=st.sampled_from([1, 2, 100]),
        where=st.none() | FILTERS,
        offset=st.integers(0, 2),
        share=st.none() | st.floats(0, 1),
        group_by=st.none() | st.sampled_from(FIELDS),
        group_size=st.integers(1, 2),
        diversity=st.none() | st.sampled_from([0.0, 0.3, 1.0]),
        pool=st.none() | st.integers(1, 4),
        examples=st.none() | st.tuples(st.lists(IDS, min_size=1, max_size=2), st.lists(IDS, max_size=2)),
    )
    def search_refined(self, query, k, where, offset, share, group_by, group_size, diversity, pool, examples):
        how = {"offset": offset, "threshold": None}
        how |= {"group_by": group_by, "group_size": group_size} if group_by else {}
        how |= {"diversity": diversity, "pool": pool} if diversity is not None else {}
        points = {id: point for id, (point, _, _) in self.truth.items()}
        if examples is not None:
            if not {*examples[0], *examples[1]} <= points.keys():
                with pytest.raises(errors.InputError, match="no record"):
                    self.things.recommend(*examples, k, where, **how)
                return
            query = oracle.target(self.metric, *([points[id] for id in ids] for ids in examples))
            if self.metric == "cosine" and np.abs(query).max() < 1e-6:
                return
        query = np.asarray(query, np.float32)
        left_out = {*examples[0], *examples[1]} if examples else set()
        chosen = [id for id in (self.chosen(where) if where else self.truth) if id not in left_out]
        scores = (
            dict(zip(chosen, oracle.exact(self.metric, query, np.array([points[id] for id in chosen])), strict=True))
            if chosen
            else {}
        )
        if share is not None and scores:
            how["threshold"] = float(np.quantile(list(scores.values()), share)) + 1e-7
        if examples is None:
            hits = self.things.search(query, k, where, **how)
        else:
            hits = self.things.recommend(*examples, k, where, **how)
        oracle.assert_refined(
            hits, self.metric, scores, points, {id: fields for id, (_, fields, _) in self.truth.items()}, k, how
        )

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
