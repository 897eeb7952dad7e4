"""Sealed collections whose graphs are small, and comparisons of every vector to check their answers."""

from __future__ import annotations

import contextlib
import gc
import itertools
from dataclasses import dataclass, field

import numpy as np

from encvec_store import low_level
from encvec_store.maintenance import rekey
from encvec_store.sealed_index import BUDGET, blocks, builder, filling, hnsw, index, listing, manifest, ondemand, shared
from tests.kits import oracle

DIM = 12


def small(monkeypatch):
    """Make graphs of a few records, so that a short life has everything that a long one has.

    What the test sets as `index_memory` ends with it.
    """
    monkeypatch.setattr(BUDGET, "_limit", BUDGET.limit)
    monkeypatch.setattr(index, "COARSE", 150)
    monkeypatch.setattr(rekey, "PAGE", 30)
    for module, name, value in ((builder, "FIRST", 60), (builder, "LAST", 10), (builder, "COARSE", 150)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(filling, "_FEW", 20)
    for module, name, value in ((blocks, "BLOCK", 200), (ondemand, "_ROWS", 20), (listing, "_LEAST", 1_000)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(listing, "_RUN", 1 << 60)
    monkeypatch.setattr(listing, "_MERGED", 1 << 60)
    monkeypatch.setattr(hnsw, "_NODE", 0)  # so that links are followed, though a scan were cheaper


def apart():
    """Have the next opening share nothing with earlier ones, as in another process."""
    gc.collect()
    shared._known.clear()


def index_of(things):
    """Return the sealed index in memory."""
    return low_level.lifecycle(things)._indexing._index.sealed


def vectors_of(n, seed, dim=DIM):
    """Return (n, dim) vectors. A seed is a number or a generator."""
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def costs_of(metric, query, vectors):
    """Return (n,) costs by definition, in double precision: smaller is nearer."""
    query, vectors = query.astype(np.float64), np.asarray(vectors, np.float64)
    if metric == "l2":
        return ((vectors - query) ** 2).sum(1)
    costs = -(vectors @ query)
    return costs / np.linalg.norm(vectors, axis=1) if metric == "cosine" else costs


def named_and_there(things):
    """Return the names of blobs of the index that manifests name, and of those that are in the store."""
    session = low_level.session(things)
    named = set()
    for version in session.keyring.live:
        found = manifest.read(session.records, session.keyring, version)
        if found is not None:
            named |= {manifest.name_of(version), *(segment.name for segment in found[0].segments)}
    return named, set(session.records.blobs("index."))


@dataclass
class Answers:
    """Compares answers with a comparison of every vector. No hit may be wrong; `missing` counts those not found."""

    metric: str
    asked: int = 0
    missing: int = 0
    stored: dict[str, np.ndarray] = field(default_factory=dict)
    """What must be there: {id: vector}."""

    def check(self, hits, query, k, stored=None):
        """Check the hits of one query."""
        stored = self.stored if stored is None else stored
        names = list(stored)
        assert len(hits) == len({hit.id for hit in hits}) == min(k, len(names))
        for hit in hits:
            np.testing.assert_array_equal(hit.vector, stored[hit.id])
        if names:
            best = np.argsort(costs_of(self.metric, query, np.array(list(stored.values()))))[:k]
            self.missing += len({names[i] for i in best} - {hit.id for hit in hits})
            self.asked += len(best)

    def search(self, things, queries, k=10, stored=None, **how):
        """Ask each query alone, and all of them together."""
        together = things.search(queries, k=k, include_vectors=True, **how)
        for query, hits in zip(queries, together, strict=True):
            self.check(hits, query, k, stored)
        self.check(things.search(queries[0], k=k, include_vectors=True, **how), queries[0], k, stored)

    def enough(self):
        """Check the recall."""
        assert self.asked
        assert self.missing <= 0.01 * self.asked, f"{self.missing} of {self.asked} are missing"


FIELDS = {"n": "blind", "*": "sealed"}
STEPS = [
    "write",
    "write",
    "write",
    "update",
    "update all",
    "change",
    "change found",
    "move",
    "delete",
    "delete half",
    "maintain",
    "purge",
    "reopen",
    "evict",
]


class History:
    """A random life of a collection in two processes, as far as the sealed index knows; answers are checked on the way.

    Args:
        connect: opens the store, with `maintenance` as given.
        keyset: its keys.
        metric: the collection's.
        seed: of the randomness.
    """

    def __init__(self, connect, keyset, metric, seed):
        self.connect, self.keyset, self.metric = connect, keyset, metric
        self.rng = np.random.default_rng(seed)
        self.answers = Answers(metric)
        self.stored = self.answers.stored
        self.versions: dict[str, int] = {}
        self.marks: dict[str, int] = {}
        """A number of each record that every write of it changes."""
        self.written: dict[str, int] = {}
        """Which write was the last one of each record."""
        self.opened = []

    def open(self):
        """Open two stores that share no memory."""
        for store, _ in self.opened:
            store.close()
        self.opened = []
        for how in ("inline", "manual"):
            apart()
            store = self.connect(maintenance=how)
            things = store.collection("things", dim=DIM, metric=self.metric, scheme="sealed", fields=FIELDS)
            self.opened.append((store, things))

    def live(self, steps):
        """Do so many steps."""
        self.open()
        for step in range(steps):
            who = int(self.rng.integers(2))
            what = self.rng.choice([*STEPS, "evict", "rotate", "disable", "rekey", "rekey a page"])
            self.step(self.opened[who][1], what, step, 200 if step == steps // 4 else 40)
            for _, each in self.opened:
                self.answers.search(each, vectors_of(2, self.rng))
            number = int(self.rng.integers(4))
            passing = {name: vector for name, vector in self.stored.items() if _number(name) == number}
            asked = self.opened[who][1]
            self.answers.search(asked, vectors_of(1, self.rng), stored=passing, where={"n": number})
            self.filtered(asked, self.stored)
        for store, things in self.opened:
            assert things.verify().ok
            assert things.count() == len(self.stored)
            store.close()
        self.answers.enough()

    def filtered(self, things, stored):
        """Search with a filter on what is sealed."""
        number = int(self.rng.integers(4))
        passing = {name: vector for name, vector in stored.items() if self.marks[name] >= number}
        where = {"mark": {"gte": number}}
        self.answers.search(things, vectors_of(1, self.rng), stored=passing, where=where)
        assert things.count(where) == len(passing)
        self.sorted(things, where, passing)
        self.picked(things, where, passing, stored)

    def sorted(self, things, where, passing):
        """Get a part of the records in an order."""
        offset, limit = self.rng.integers([3, 1], [10, 30]).tolist()
        found = things.get(where=where, order_by=["-mark", "n"], offset=offset, limit=limit)
        for record in found:
            np.testing.assert_array_equal(record.vector, passing[record.id])
            assert record.metadata == self.metadata(record.id)
        keys = sorted((-self.marks[name], _number(name), self.written[name]) for name in passing)
        got = [(-self.marks[name], _number(name), self.written[name]) for name in (record.id for record in found)]
        assert got == keys[offset : offset + limit]

    def picked(self, things, where, passing, stored):
        """Search with an offset and a threshold, groups or diversity, by a query or by examples."""
        query, examples, k = vectors_of(1, self.rng)[0], [[], []], 5
        if len(stored) > 5 and self.rng.integers(2):
            some = self.rng.choice(list(stored), 3, replace=False).tolist()
            examples = [some[:2], some[2:]]
            query = oracle.target(self.metric, *([stored[name] for name in side] for side in examples))
        names = [name for name in passing if name not in examples[0] + examples[1]]
        scores = oracle.exact(self.metric, query, np.array([passing[name] for name in names]).reshape(-1, DIM))
        order = np.argsort(scores if self.metric == "l2" else -scores)
        own, ranked = dict(zip(names, scores, strict=True)), [names[place] for place in order]
        how, pick = {"offset": int(self.rng.integers(4))}, self.rng.choice(["threshold", "groups", "diversity"])

        def ask(**how):
            if examples[0]:
                return things.recommend(*examples, where=where, **how)
            return things.search(query, where=where, **how)

        if pick == "threshold" and len(ranked) > 2:
            place = int(self.rng.integers(1, min(12, len(ranked))))
            how["threshold"] = float(own[ranked[place - 1]] + own[ranked[place]]) / 2
            ranked = ranked[:place]
        elif pick == "groups":
            field, size = str(self.rng.choice(["n", "mark"])), int(self.rng.integers(1, 3))
            how |= {"group_by": field, "group_size": size}
            of = {name: self.metadata(name)[field] for name in ranked}
            ranked = [
                name for i, name in enumerate(ranked) if [of[other] for other in ranked[:i]].count(of[name]) < size
            ]
        elif pick == "diversity":  # of the nearest that a search finds: these are compared elsewhere
            how |= {"diversity": 0.5, "pool": 15}
            pool = [hit.id for hit in ask(k=15)]
            ranked = oracle.diverse(self.metric, own, passing, pool, k + how["offset"], 0.5)
        hits, expected = ask(k=k, **how), ranked[how["offset"] :][:k]
        np.testing.assert_allclose([hit.score for hit in hits], [own[hit.id] for hit in hits], rtol=1e-6, atol=1e-6)
        costs = [hit.score if self.metric == "l2" else -hit.score for hit in hits]
        assert [hit.id for hit in hits] == expected if pick == "diversity" else costs == sorted(costs)
        assert len({hit.id for hit in hits}) == len(hits)
        assert len(hits) <= len(expected) if "threshold" in how else len(hits) == len(expected)
        self.answers.asked += len(expected)
        self.answers.missing += len(set(expected) - {hit.id for hit in hits})

    def step(self, things, what, step, crowd):
        """Do one step."""
        names = list(self.stored)
        match what:
            case "write":
                self.write(things, [f"{step}-{i}" for i in range(int(self.rng.integers(1, crowd + 1)))])
            case "update":
                self.write(things, self.some(names, 4))
            case "update all":
                self.write(things, names)
            case "change" | "change found" | "move":
                self.change(things, what, self.some(names, 3))
            case "delete" | "delete half":
                gone = self.some(names, 2 if what == "delete half" else 5)
                assert things.delete(gone) == len(gone)
                for name in gone:
                    del self.stored[name]
            case "maintain" | "purge":
                things.maintain(purge=what == "purge")
            case "reopen":
                self.open()
            case "evict":
                index_of(things).forget()
            case "rotate":
                self.keyset.rotate()
            case "rekey" | "rekey a page":
                self.rekey(things, most=None if what == "rekey" else 1)
            case "disable" if self.keyset.primary > 1:
                self.blink(things, int(self.rng.integers(1, self.keyset.primary)))

    def write(self, things, names):
        if names:
            vectors = vectors_of(len(names), self.rng)
            self.marks.update(zip(names, self.rng.integers(5, size=len(names)).tolist(), strict=True))
            things.upsert(names, vectors, [self.metadata(name) for name in names])
            self.stored.update(zip(names, vectors, strict=True))
            self.wrote(names)

    def metadata(self, name):
        return {"n": _number(name), "mark": self.marks[name], "text": f"{name} here"}

    def wrote(self, names):
        self.versions.update(dict.fromkeys(names, self.keyset.primary))
        self.written.update(dict.fromkeys(names, max(self.written.values(), default=0) + 1))

    def change(self, things, what, names):
        """Change metadata by ids or by a filter, or vectors, of records that are there."""
        if what == "change found":
            low, mark = self.rng.integers(5, size=2).tolist()
            names = [name for name in self.stored if self.marks[name] >= low]
            assert things.update(where={"mark": {"gte": low}}, metadata={"mark": mark}) == len(names)
            self.marks.update(dict.fromkeys(names, mark))
        elif what == "change":
            marks = self.rng.integers(5, size=len(names)).tolist()
            metadata = [{"mark": mark} for mark in marks]
            assert things.update([*names, "never"], metadata=[*metadata, {}]) == len(names)
            self.marks.update(zip(names, marks, strict=True))
        elif names:
            vectors = vectors_of(len(names), self.rng)
            assert things.update(names, vectors=vectors) == len(names)
            self.stored.update(zip(names, vectors, strict=True))
        self.wrote(names)

    def rekey(self, things, most):
        """Seal everything anew, or only some pages."""
        pages = itertools.count(1)

        def stop(done, total):
            if next(pages) == most:
                raise InterruptedError

        with contextlib.suppress(InterruptedError):
            assert things.rekey(progress=stop).done
        session, names = low_level.session(things), list(self.stored)
        for version, tokens in session.keyring.tokens(names).items():
            for name in np.array(names)[session.records.find(tokens) > 0].tolist():
                self.versions[name] = version

    def some(self, names, share):
        return self.rng.choice(names, size=-(-len(names) // share), replace=False).tolist() if names else []

    def blink(self, things, version):
        """Disable a key version for a moment: its records are not found until it is enabled again."""
        self.keyset.disable(version)
        readable = {name: vector for name, vector in self.stored.items() if self.versions[name] != version}
        self.answers.search(things, vectors_of(2, self.rng), stored=readable)
        self.filtered(things, readable)
        if self.rng.integers(2):
            things.maintain()
        self.keyset.enable(version)


def _number(name):
    return int(name.rpartition("-")[2]) % 4
