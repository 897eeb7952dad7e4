"""Random histories of a collection's records against a plain dictionary, with followers of every age."""

from contextlib import ExitStack

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from encvec_store.data import AllOf, AnyOf, Match, Present, Range, Term
from encvec_store.storage import CollectionSpec
from tests.kits.records import (
    CONFIG,
    SPEC,
    WIDTH,
    Follower,
    batch,
    by_partition,
    content,
    kept,
    of_batch,
    token,
    tokens,
)

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


def holds(predicate, terms):
    """Whether a record with such {(field, term)} satisfies a predicate."""
    match predicate:
        case Match(field, wanted):
            return any((field, term) in terms for term in wanted)
        case Present(field):
            return any(name == field for name, _ in terms)
        case AllOf(parts):
            return all(holds(part, terms) for part in parts)
        case AnyOf(parts):
            return any(holds(part, terms) for part in parts)
    low, high = predicate.low, predicate.high
    return any(
        name == predicate.field
        and term.kind == predicate.kind
        and (low is None or term.value >= low)
        and (high is None or term.value <= high)
        for name, term in terms
    )


def terms_for(data, names):
    return [
        (i, field, term)
        for i in range(len(names))
        for field, term in data.draw(st.lists(st.tuples(FIELDS, VALUES), max_size=3))
    ]


def run(fresh, examples):
    """Run them on fresh places, each a context manager of a function that opens a store there."""

    class Histories(RuleBasedStateMachine):
        @initialize()
        def start(self):
            self.stack = ExitStack()
            self.open_store = self.stack.enter_context(fresh())
            self.records = self.open_store().create(SPEC, CONFIG)
            self.reader = self.open_store().open(SPEC.tenant, SPEC.name)
            self.spec, self.expected, self.config = SPEC, {}, CONFIG
            self.followers = [Follower()]
            self.rows = {}
            """By token, as they were found last."""
            self.highest = 0
            self.told = True
            """Whether followers know the partitions of all rows."""

        @rule(
            names=NAMES, partition=st.integers(1, 3), seed=st.integers(0, 9), more=NAMES, retired=NAMES, data=st.data()
        )
        def put(self, names, partition, seed, more, retired, data):
            first = batch(
                names, partition=partition, seed=seed, terms=terms_for(data, names), retired=retired, spec=self.spec
            )
            second = batch(more, seed=seed, spec=self.spec)
            self.records.put(first, under=self.config, more=[second])
            for name in retired:
                self.expected.pop(token(name), None)
            self.expected |= of_batch(first) | of_batch(second)
            written = {*first.tokens.view("V16").ravel().tolist(), *second.tokens.view("V16").ravel().tolist()}
            self.look(written)

        def look(self, written):
            """Rows of what was written are new; others are what they were."""
            names = list(self.expected)
            rows = self.records.find(np.frombuffer(b"".join(names), np.uint8).reshape(len(names), 16))
            found = dict(zip(names, rows.tolist(), strict=True))
            for name, row in found.items():
                if name in written:
                    assert row > self.highest
                else:
                    assert row == self.rows[name]
            self.rows, self.highest = found, max([self.highest, *found.values()])

        @rule(names=NAMES)
        def remove(self, names):
            there = {token(name) for name in names} & self.expected.keys()
            assert self.records.remove(np.append(self.records.find(tokens(names)), [0, 2**62])) == len(there)
            for name in there:
                del self.expected[name]
            self.look(set())

        @rule(seed=st.integers(0, 9), dim=st.sampled_from([None, 4, 8]), partition=st.integers(1, 3), data=st.data())
        def replace(self, seed, dim, partition, data):
            """Some stay, under the rows they had, sealed anew."""
            names = [n for n in range(31) if token(n) in self.expected]
            names = data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
            if dim is not None:
                self.spec = CollectionSpec(SPEC.tenant, SPEC.name, dim, WIDTH)
            one = kept(self.records, names[:5], seed=seed, spec=self.spec, terms=terms_for(data, names[:5]))
            two = kept(self.records, names[5:], seed=seed, partition=partition, spec=self.spec)
            config = f"after {seed}".encode()
            self.records.replace([one, two], config, under=self.config, index_dim=dim)
            self.config, self.expected = config, of_batch(one) | of_batch(two)
            self.look(set())

        @rule(names=NAMES, old=st.sets(st.integers(1, 3)), partition=st.integers(1, 3), data=st.data())
        def reseal(self, names, old, partition, data):
            """Those in some partitions are sealed anew, others not."""
            names = [n for n in names if token(n) in self.expected]
            terms, (renumber, relist) = terms_for(data, names), data.draw(st.tuples(st.booleans(), st.booleans()))
            made = kept(self.records, names, partition=partition, seed=10, spec=self.spec, terms=terms)
            there = {token(n) for n in names if self.expected[token(n)][0] in old}
            count = self.records.reseal(made, old, under=self.config, renumber=renumber, relist=relist)
            assert count == len(there)
            self.expected |= {name: now for name, now in of_batch(made).items() if name in there}
            self.told = relist or (self.told and (renumber or not there))
            self.look(there if renumber else set())

        @rule()
        def reopen(self):
            self.records = self.open_store().open(SPEC.tenant, SPEC.name)

        @rule()
        def flush(self):
            self.records.flush()

        @rule(which=st.integers(0, 3))
        def stay_behind(self, which):
            """One who knows what there is now, and asks again much later."""
            here = self.followers[which % len(self.followers)].copy()
            here.follow(self.records)
            self.followers.append(here)

        @rule(predicate=PREDICATES, after=st.sampled_from([0, 10]), limit=st.sampled_from([None, 0, 3]))
        def filter(self, predicate, after, limit):
            for records in (self.records, self.reader):
                wanted = sorted(
                    row for name, row in self.rows.items() if row > after and holds(predicate, self.expected[name][1])
                )
                assert records.rows(predicate, after=after, limit=limit).tolist() == wanted[:limit]

        @invariant()
        def agrees(self):
            if not hasattr(self, "records"):
                return
            present = by_partition(self.records)
            for records in (self.records, self.reader):
                assert content(records) == self.expected
                assert records.count() == len(self.expected)
                assert records.partitions() == {partition: len(rows) for partition, rows in sorted(present.items())}
                assert records.config() == self.config
                assert records.generation() == self.records.generation()
            assert self.records.check() == []
            for follower in self.followers:
                now = follower.copy()
                now.follow(self.reader)
                if self.told:
                    assert now.partitions == present
                assert set().union(*now.partitions.values()) == set().union(*present.values())
                assert now.generation == self.records.generation()
                assert now.index_dim == self.spec.index_dim
                assert now.follow(self.records) is None

        def teardown(self):
            if hasattr(self, "stack"):
                self.stack.close()

    run_state_machine_as_test(
        Histories, settings=settings(max_examples=examples, stateful_step_count=12, deadline=None)
    )
