"""The scheme of a collection changed in place, on every store: all records stay, and nothing of the old scheme."""

import gc
import logging
import weakref
from unittest.mock import ANY

import numpy as np
import pytest

from encvec_store import errors, low_level
from encvec_store.engine.candidates import sealed
from encvec_store.maintenance import changing, indexing
from tests.kits import oracle
from tests.kits.oracle import assert_hits
from tests.kits.sealed import small
from tests.stores.contract import EVERYTHING, QUIET
from tests.stores.contract.resuming import SKETCH, ResumingContract
from tests.stores.contract.sketch import DIM, LEAST, QUERY

N = 100
DOCUMENTS = [f"text {i} " * 60 for i in range(N)]
METADATA = [{"n": i % 2, "i": i} for i in range(N)]
WIDTHS = {"sealed": 0, "sap": {"cosine": DIM, "ip": DIM + 1, "l2": DIM + 2}, "sketch": 7}


def states(things):
    """Return what is stored of each record but its bytes: (row, token, terms, id, metadata, document, vector)."""
    records = low_level.records(things)
    return [
        (row, token, terms, one.id, one.metadata, one.document, one.vector.tobytes())
        for (row, _, token, terms), one in zip(records.audit(records.rows()), things.scroll(), strict=True)
    ]


class ChangingContract(ResumingContract):
    """Mixed into a `StoreContract`."""

    @pytest.fixture
    def both(self, early, place, store):
        """Return a function that makes a collection of 100 records, open twice."""

        def both(scheme, **given):
            given = {"fields": {"n": "blind", "*": "sealed"}, "oversample": EVERYTHING, **given}
            mine = store.collection("things", dim=DIM, scheme=scheme, **given)
            mine.upsert(oracle.ids(N), oracle.vectors(N, DIM), METADATA, DOCUMENTS)
            return mine, place.connect().collection("things", oversample=EVERYTHING)

        return both

    def works(self, things, metric="cosine", stored=None):
        stored = oracle.vectors(N, DIM) if stored is None else stored
        names = oracle.ids(len(stored))
        for hits, query in zip(things.search(stored[:3], k=7), stored, strict=False):
            assert_hits(hits, metric, query, names, stored, 7)
        hits = things.search(QUERY, k=10, where={"n": 1})
        assert_hits(hits, metric, QUERY, names[1::2], stored[1::2], 10)
        report = things.verify()
        assert report.ok, report

    def holds(self, place, things, scheme, metric="cosine"):
        """Check that the store has what a scheme needs, and nothing else."""
        assert things.stats()["scheme"]["name"] == scheme
        blobs = set(low_level.records(things).blobs(""))
        assert {name for name in blobs if not name.startswith("index.")} == (
            {"profile"} if scheme == "sketch" else set()
        )
        assert scheme == "sealed" or not any(name.startswith("index.") for name in blobs)
        width = WIDTHS[scheme] if scheme != "sap" else WIDTHS["sap"][metric]
        assert things.index_vectors(oracle.ids(3)).shape == (3, width)
        burglar = place.burglar()
        kept = {len(burglar.read(row, "index_vector")) for row in burglar.rows()}
        assert kept in ({4 * width}, {2 * width}), "index vectors of another scheme"

    @pytest.mark.parametrize(("metric", "precision"), [("cosine", "single"), ("l2", "half"), ("ip", "single")])
    def test_there_and_back(self, both, place, metric, precision):
        mine, theirs = both(QUIET, metric=metric, precision=precision)
        before, now, total = states(mine), "sap", []
        stored = np.array([np.frombuffer(vector, np.float32) for *_, vector in before])
        stored = stored[np.argsort([metadata["i"] for *_, metadata, _, _ in before])]
        mine.search(QUERY)
        for scheme in ("sealed", "sap", SKETCH, "sealed", SKETCH, "sap"):
            name = scheme if isinstance(scheme, str) else scheme["name"]
            found = mine.change(scheme=scheme, progress=lambda n, all: total.append(n))
            assert (found.before, found.scheme, found.changed, found.records) == (now, name, True, N)
            assert found.remains == low_level.records(mine).remains
            now = name
            for things in (theirs, mine):
                self.works(things, metric, stored)
                assert states(things) == before
            self.holds(place, mine, name, metric)
            theirs.upsert(["more"], stored[:1], [{"n": 5}])
            assert mine.delete(where={"n": 5}) == 1
        assert sum(total) == 6 * N

    def test_an_index_is_built_and_dropped(self, both, place, monkeypatch):
        """As the mode says, here at once; in the store too, where it lasts."""
        small(monkeypatch)
        monkeypatch.setattr(indexing, "FIRST", 60)
        mine, theirs = both(QUIET)
        lasts = place.connect()._connection.lasting  # noqa: SLF001
        for _ in range(2):
            assert mine.stats()["sealed_index"] is None
            mine.change(scheme="sealed")
            assert mine.stats()["sealed_index"]["rows"] == N
            assert any(low_level.records(mine).blobs("index.")) == lasts
            for things in (theirs, mine):
                self.works(things)
            theirs.flush()
            held = [weakref.ref(low_level.lifecycle(each)._indexing._index.sealed) for each in (mine, theirs)]  # noqa: SLF001
            theirs.change(scheme=SKETCH)
            self.works(mine)
            self.holds(place, mine, "sketch")
            self.works(theirs)
            gc.collect()
            assert [index() for index in held] == [None, None], "opened vectors stay in memory"
            mine.change(scheme="sap")
            self.works(theirs)

    def test_segments_that_came_too_late_are_dropped(self, both, store, interrupt, monkeypatch):
        """Another process stored them when the scheme had just been changed."""
        small(monkeypatch)
        mine, theirs = both("sealed")
        interrupt(theirs, "keep", lambda: mine.change(scheme="sap"), skip=1, optional=True)
        theirs.maintain()
        mine.maintain()
        assert low_level.records(mine).blobs("index.") == {}
        self.works(mine)

    def test_the_scheme_that_it_has(self, both):
        mine, _ = both(QUIET)
        before = low_level.records(mine).generation()
        for scheme in ("sap", QUIET):
            found = mine.change(scheme=scheme)
            assert (found.changed, found.before, found.scheme, found.remains) == (False, "sap", "sap", "")
        assert low_level.records(mine).generation() == before
        assert mine.change(scheme={"name": "sap", "beta": 2}).changed, "with another parameter"
        assert mine.stats()["scheme"]["beta"] == 2

    def test_an_opening_keeps_what_is_stored(self, both, place, store):
        mine, _ = both("sap")
        mine.change(scheme="sealed")
        assert store.collection("things").stats()["scheme"]["name"] == "sealed"
        assert place.connect().collection("things", scheme="sealed").count() == N
        with pytest.raises(errors.ConfigMismatchError, match=r"scheme is sealed.*call change\(scheme=\.\.\.\)"):
            store.collection("things", scheme="sap")

    def test_few_records_wait_for_a_profile(self, early, place, store):
        mine = store.collection("things", dim=DIM, scheme="sap", oversample=EVERYTHING)
        stored = oracle.vectors(LEAST, DIM)
        mine.upsert(oracle.ids(LEAST - 1), stored[:-1])
        mine.change(scheme="sketch")
        assert mine.stats()["profile"]["state"] == "sealed"
        self.check(mine, LEAST - 1, stored[:-1])
        mine.upsert(oracle.ids(1, LEAST - 1), stored[-1:])
        assert mine.stats()["profile"]["state"] == "sketch"
        self.check(mine, LEAST, stored)

    def test_no_records(self, early, store):
        things = store.collection("things", dim=DIM, scheme="sealed", metric="l2", oversample=EVERYTHING)
        for scheme in ("sap", "sketch", "sealed", "sap"):
            assert things.change(scheme=scheme).records == 0
            assert things.stats()["max_norm"] is None
        things.upsert(oracle.ids(N), oracle.vectors(N, DIM))
        assert_hits(things.search(QUERY, k=5), "l2", QUERY, oracle.ids(N), oracle.vectors(N, DIM), 5)

    def test_lengths(self, both, place):
        """`sealed` takes any length; what is lifted needs a bound, which comes from the records or is checked."""
        mine, theirs = both("sealed", metric="l2")
        longest = float(np.linalg.norm(oracle.vectors(N, DIM), axis=1).max())
        assert mine.stats()["max_norm"] is None
        for scheme in ("sap", SKETCH):
            with pytest.raises(errors.NormError, match=r"max_norm must be at least .*the longest record, got 1"):
                mine.change(scheme=scheme, max_norm=1)
        assert mine.stats()["scheme"]["name"] == "sealed"
        mine.change(scheme="sap")
        assert mine.stats()["max_norm"] == pytest.approx(1.25 * longest, rel=1e-6)
        with pytest.raises(errors.NormError):
            theirs.upsert(["long"], 9 * oracle.vectors(1, DIM))
        mine.change(scheme="sealed", max_norm=1000)
        theirs.upsert(["long"], 9 * oracle.vectors(1, DIM))
        mine.change(scheme="sap")
        assert mine.stats()["max_norm"] == 1000
        assert theirs.search(9 * oracle.vectors(1, DIM)[0], k=1)[0].id == "long"
        with pytest.raises(errors.InputError, match="max_norm is set together with another scheme"):
            mine.change(scheme="sap", max_norm=2000)

    def test_a_longer_record_that_comes_meanwhile(self, both, interrupt):
        mine, theirs = both("sealed", metric="ip")
        interrupt(mine, "replace", lambda: theirs.upsert(["long"], 9 * oracle.vectors(1, DIM)))
        with pytest.raises(errors.NormError, match="records"):
            mine.change(scheme="sap")
        assert theirs.verify().ok
        assert mine.change(scheme="sap").records == N + 1

    def test_refused(self, both, caplog):
        """Nothing is written, and no revision is used up."""
        mine, theirs = both("sealed")
        before = low_level.records(mine).generation()
        for given, error, message in (
            ({"scheme": "magic"}, errors.SchemeError, "scheme must be one of sap, sealed, sketch"),
            ({"scheme": {"name": "sap", "k": 3}}, errors.SchemeError, "does not take 'k'"),
            ({"scheme": {"name": "sketch", "k": 99}}, errors.SchemeError, "k must be at most 16"),
            ({"scheme": "sap", "max_norm": 3}, errors.InputError, "max_norm has no meaning under cosine"),
        ):
            with pytest.raises(error, match=message):
                mine.change(**given)
        assert low_level.records(mine).generation() == before
        self.works(theirs)

    def test_a_sketch_of_vectors_in_one_direction(self, early, store):
        things = store.collection("things", dim=DIM, scheme="sealed")
        things.upsert(oracle.ids(N), np.repeat(oracle.vectors(1, DIM), N, axis=0))
        with pytest.raises(errors.ProfileError):
            things.change(scheme="sketch")
        assert things.stats()["scheme"]["name"] == "sealed"

    def test_candidates_that_a_fit_chose_go_with_it(self, early, store):
        things = store.collection("things", dim=DIM, scheme={"name": "sketch", "beta": 8.0}, oversample=1)
        things.upsert(oracle.ids(N), oracle.vectors(N, DIM))
        assert things.stats()["oversample"] > 1
        things.change(scheme="sealed")
        stats = things.stats()
        assert (stats["oversample"], stats["calibration"], stats["profile"]) == (None, None, None)
        assert low_level.session(things).config.oversample == 1, "for a server-ranked scheme to come"

    def test_noise_that_hides_what_is_near_is_told(self, early, store, caplog):
        things = store.collection("things", dim=DIM, scheme="sealed", oversample=1, metric="l2")
        far = np.full((1, DIM), 40, np.float32)
        things.upsert(oracle.ids(600), oracle.vectors(600, DIM) + far)
        with caplog.at_level(logging.WARNING, "encvec_store"):
            things.change(scheme={"name": "sap", "beta": 4})
        assert "the noise of sap is large beside the distances of these vectors" in caplog.text

    def test_a_new_key_version_is_used(self, both, keyset):
        mine, theirs = both("sap")
        keyset.rotate()
        mine.change(scheme="sealed")
        assert mine.stats()["key_versions"] == {"2": N}
        keyset.destroy(1)
        for things in (mine, theirs):
            self.works(things)

    # ------------------------------------------------------------------------------------ broken off, raced

    @pytest.mark.parametrize(
        ("old", "new"), [("sap", "sealed"), ("sealed", "sap"), ("sealed", SKETCH), (SKETCH, "sealed")]
    )
    def test_broken_off(self, both, place, monkeypatch, old, new):
        monkeypatch.setattr(changing, "PAGE_ROWS", 30)
        mine, theirs = both(old)
        before, seen = states(mine), []

        def stop(done, total):
            seen.append(done)
            if sum(seen) > 50:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            mine.change(scheme=new, progress=stop)
        for things in (mine, theirs):
            assert states(things) == before
            self.works(things)
        assert low_level.records(mine).blobs("profile") == ({} if isinstance(old, str) else {"profile": ANY})
        found = mine.change(scheme=new)
        assert found.resumed == sum(seen)
        self.holds(place, mine, found.scheme)
        self.works(theirs)

    def test_the_store_fails(self, both, interrupt):
        def fail():
            raise errors.StoreUnreachableError("the disk is on fire")

        mine, theirs = both("sap")
        for method in ("keep", "current", "replace"):
            interrupt(mine, method, fail)
            with pytest.raises(errors.StoreUnreachableError, match="on fire"):
                mine.change(scheme="sealed")
            self.works(theirs)
        mine.change(scheme="sealed")
        self.works(theirs)

    def test_two_changes_at_once(self, both, interrupt):
        mine, theirs = both("sap")
        interrupt(mine, "replace", lambda: theirs.change(scheme="sealed"))
        with pytest.raises(errors.StaleConfigError):
            mine.change(scheme=SKETCH)
        for things in (mine, theirs):
            assert things.stats()["scheme"]["name"] == "sealed"
            self.works(things)

    def test_a_write_when_the_scheme_has_just_been_changed(self, both, interrupt):
        mine, theirs = both("sap")
        for scheme in ("sealed", SKETCH, "sealed", "sap"):
            interrupt(mine, "put", lambda scheme=scheme: theirs.change(scheme=scheme))
            mine.upsert(["id-7"], oracle.vectors(N, DIM)[7:8], METADATA[7:8], DOCUMENTS[7:8])
            self.works(mine)

    @pytest.mark.parametrize("where", [None, {"n": 1}, {"i": {"gte": 0}}], ids=["all", "in the store", "filtered here"])
    @pytest.mark.parametrize("method", ["nearest", "candidates", "current", "changes", "vectors", "payloads"])
    def test_a_change_in_the_middle_of_a_search(self, both, interrupt, monkeypatch, method, where):
        monkeypatch.setattr(sealed, "_SHORT", 0)
        mine, theirs = both("sap")
        stored, odd = oracle.vectors(N, DIM), where == {"n": 1}
        for scheme in ("sealed", SKETCH, "sealed", "sap"):
            mine.search(QUERY)
            interrupt(mine, method, lambda scheme=scheme: theirs.change(scheme=scheme), optional=True)
            hits = mine.search(QUERY, k=10, where=where)
            names, those = (oracle.ids(N)[1::2], stored[1::2]) if odd else (oracle.ids(N), stored)
            assert_hits(hits, "cosine", QUERY, names, those, 10)

    @pytest.mark.parametrize("reads", [0, 1])
    def test_a_change_in_the_middle_of_the_opening(self, both, place, monkeypatch, reads):
        """The store says how many coordinates there are, and the settings of which scheme: two reads."""
        mine, _ = both("sap")
        cls, schemes = type(low_level.records(mine)), iter(("sealed", "sap", SKETCH))
        real = cls.config

        def config(records):
            left.append(None)
            if len(left) <= reads:
                return real(records)
            monkeypatch.setattr(cls, "config", real)
            mine.change(scheme=next(schemes))
            return real(records)

        for _ in range(3):
            left = list[None]()
            monkeypatch.setattr(cls, "config", config)
            self.works(place.connect().collection("things", oversample=EVERYTHING))
