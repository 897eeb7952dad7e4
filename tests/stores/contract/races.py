"""What happens between two steps of one call: another opening writes, deletes, calibrates or rotates just then."""

import numpy as np
import pytest

from encvec_store import errors, low_level
from encvec_store.engine import ATTEMPTS
from encvec_store.engine.candidates import sealed
from encvec_store.maintenance import verify
from tests.kits import oracle
from tests.kits.oracle import assert_hits
from tests.stores.contract import DIM, EVERYTHING
from tests.stores.contract.rekeying import RekeyingContract
from tests.stores.contract.snapshots import SnapshotsContract


class Interposed:
    """Records or an index that runs `work` once, or so many times, right before (or after) a method does its own."""

    def __init__(self, backend, method, work, *, after=False, skip=0, times=1):
        self._backend, self._method, self._work, self._after, self._skip = backend, method, work, after, skip
        self._times = times

    @property
    def ran(self):
        return not self._times

    def stop(self):
        self._times = 0

    def __getattr__(self, name):
        found = getattr(self._backend, name)
        if name != self._method or self.ran:
            return found

        def call(*args, **kwargs):
            if self._skip:
                self._skip -= 1
                return found(*args, **kwargs)
            self._times -= 1
            if not self._after:
                self._work()
                return found(*args, **kwargs)
            result = found(*args, **kwargs)
            self._work()
            return result

        return call


class RacesContract(SnapshotsContract, RekeyingContract):
    """Mixed into a `StoreContract`."""

    OF_INDEX = ("nearest", "candidates", "vectors")

    @pytest.fixture
    def pair(self, place, make):
        """The same collection twice: `mine` is interrupted, `theirs` interrupts."""
        mine = make(fields={"n": "blind", "*": "sealed"})
        # documents too long to come along with candidates: payloads are read by themselves
        metadata = [{"n": i % 2, "v": 1} for i in range(30)]
        mine.upsert(oracle.ids(30), oracle.vectors(30), metadata, ["long " * 60] * 30)
        mine.search(np.ones(DIM))
        theirs = place.connect().collection("things", oversample=EVERYTHING)
        return mine, theirs

    @pytest.fixture
    def interrupt(self):
        seen = []

        def interrupt(things, method, work, **how):
            session = low_level.session(things)
            if method == "nearest" and not hasattr(session.index, method):
                method = "candidates"  # envelopes are read by themselves, then
            of = "index" if how.pop("on", None) != "records" and method in self.OF_INDEX else "records"
            if not hasattr(getattr(session, of), method):
                of = "records"  # an index without copies of envelopes
            optional = how.pop("optional", False)
            interposed = Interposed(getattr(session, of), method, work, **how)
            seen.append((session, of, interposed, optional))
            setattr(session, of, interposed)
            return interposed

        yield interrupt
        for session, of, interposed, optional in seen:
            setattr(session, of, interposed._backend)  # noqa: SLF001  # noqa: SLF001
            assert optional or interposed.ran, "the interruption never came"

    def test_update_in_the_middle_of_get(self, pair, interrupt):
        """The record was there all the time: it is found, and whole."""
        mine, theirs = pair
        new = oracle.vectors(1, seed=3)
        for method, v in (("payloads", 2), ("vectors", 3)):
            interrupt(mine, method, lambda v=v: theirs.upsert(["id-0"], new * v, [{"v": v}]))
            (record,) = mine.get(["id-0"])
            assert (record.id, record.metadata) == ("id-0", {"v": v})
            np.testing.assert_array_equal(record.vector, new[0] * v)

    def test_deletion_in_the_middle_of_get(self, pair, interrupt):
        mine, theirs = pair
        for method, id in (("payloads", "id-0"), ("vectors", "id-1")):
            interrupt(mine, method, lambda id=id: theirs.delete([id]))
            assert [record.id for record in mine.get([id, "id-2"])] == ["id-2"]

    def test_update_in_the_middle_of_delete(self, pair, interrupt):
        mine, theirs = pair
        interrupt(mine, "remove", lambda: theirs.upsert(["id-0"], oracle.vectors(1), [{"v": 2}]))
        assert mine.delete(["id-0", "id-1"]) == 2
        assert theirs.get(["id-0", "id-1"]) == []
        assert theirs.count() == 28

    @pytest.mark.parametrize("method", ["vectors", "payloads"])
    @pytest.mark.parametrize(
        "where", [None, {"n": 0}, {"n": 0, "v": {"ne": 2}}], ids=["all", "filtered", "filtered here too"]
    )
    def test_writes_in_the_middle_of_search(self, pair, interrupt, method, where, monkeypatch):
        monkeypatch.setattr(sealed, "_SHORT", 0)  # otherwise one read brings all that an answer needs
        mine, theirs = pair
        indexed = bool(mine.index_vectors(["id-0"]).size)
        # where the filter is checked before the search, candidates come with their vectors
        whole = method == "vectors" and (where is None or "v" not in where or not indexed)
        new = oracle.vectors(6, seed=3)

        def work():
            theirs.upsert(oracle.ids(6), new, [{"n": 0}] * 6)
            theirs.delete(["id-6", "id-7"])

        method = ("nearest" if indexed else "current") if whole else method
        interrupt(mine, method, work, after=whole)
        stored = oracle.vectors(30)
        stored[:6] = new
        names = [f"id-{i}" for i in range(30) if i not in (6, 7) and (not where or i < 6 or i % 2 == 0)]
        query = np.ones(DIM, np.float32)
        hits = mine.search(query, k=30, where=where, include_vectors=True)
        assert_hits(hits, "cosine", query, names, stored[[int(name[3:]) for name in names]], 30)
        for hit in hits:
            np.testing.assert_array_equal(hit.vector, stored[int(hit.id[3:])])

    @pytest.mark.parametrize("scheme", ["sealed"])  # the others read payloads by a statement of their own
    def test_a_write_after_the_only_read_of_a_search(self, pair, interrupt):
        mine, theirs = pair
        interrupt(mine, "current", lambda: theirs.delete(oracle.ids(6)), after=True)
        for names in (oracle.ids(30), oracle.ids(24, 6)):  # all before the write, then all after it
            query = np.ones(DIM, np.float32)
            hits = mine.search(query, k=30, include_vectors=True)
            assert_hits(hits, "cosine", query, names, oracle.vectors(30)[[int(name[3:]) for name in names]], 30)

    @pytest.mark.parametrize("method", ["vectors", "payloads", "index_vectors"])
    def test_writes_in_the_middle_of_verify(self, pair, interrupt, method):
        mine, theirs = pair
        if method == "index_vectors" and not mine.index_vectors(["id-0"]).size:
            pytest.skip("no index vectors")

        def work():
            theirs.upsert(["id-0"], oracle.vectors(1, seed=3))
            theirs.delete(["id-1"])

        interrupt(mine, method, work, on="records")
        report = mine.verify()
        assert report.ok, report

    def test_rotation_and_update_in_the_middle_of_an_upsert(self, pair, interrupt, keyset):
        """Encrypted under the old primary, to be written after the new one's record: exactly one must be left."""
        mine, theirs = pair

        def work():
            keyset.rotate()
            theirs.upsert(["id-0"], oracle.vectors(1, seed=4), [{"v": 2}])

        interrupt(mine, "put", work)
        mine.upsert(["id-0"], oracle.vectors(1, seed=5), [{"v": 3}])
        assert mine.count() == 30
        for things in pair:
            (record,) = things.get(["id-0"])
            assert record.metadata == {"v": 3}
            assert len({hit.id for hit in things.search(np.ones(DIM), k=30)}) == 30
            assert things.verify().ok

    @pytest.mark.parametrize("method", ["payloads", "put"])
    @pytest.mark.parametrize("given", [{"ids": ["id-0", "id-1"]}, {"where": {"v": 1}}], ids=["ids", "where"])
    def test_writes_in_the_middle_of_an_update(self, pair, interrupt, keyset, method, given):
        """A newer vector is not lost, what was deleted does not come back, and the update is applied to what is new."""
        mine, theirs = pair

        def work():
            keyset.rotate()
            theirs.upsert(["id-0"], oracle.vectors(1, seed=4), [{"v": 1, "new": True}])
            theirs.delete(["id-1"])

        interrupt(mine, method, work)
        assert mine.update(**given, metadata={"w": 2}) == (1 if "ids" in given else 29)
        for things in pair:
            (record,) = things.get(["id-0", "id-1"])
            assert record.metadata == {"v": 1, "new": True, "w": 2}
            np.testing.assert_array_equal(record.vector, oracle.vectors(1, seed=4)[0])
            assert things.count() == 29
            assert things.verify().ok

    @pytest.mark.parametrize("metric", ["ip", "l2"])
    def test_two_first_writes(self, place, make, metric, interrupt):
        """Whose batch comes first sets max_norm; the other takes it over, or is refused. Sealed vectors have none."""
        unit = np.eye(DIM, dtype=np.float32)
        for factor, fits in ((1.0, True), (3.0, False)):
            mine = make(f"things {factor}", metric=metric)
            theirs = place.connect().collection(f"things {factor}", oversample=EVERYTHING)
            interrupt(mine, "put", lambda theirs=theirs: theirs.upsert(["b"], unit[:1]))
            bounded = mine.stats()["scheme"]["name"] != "sealed"
            fits |= not bounded
            if fits:
                mine.upsert(["a"], unit[:1] * factor)
            else:
                with pytest.raises(errors.NormError, match=r"norm 3, above the collection's max_norm 1\.25"):
                    mine.upsert(["a"], unit[:1] * factor)
            for things in (mine, theirs):
                assert things.stats()["max_norm"] == (1.25 if bounded else None)
                assert sorted(record.id for record in things.scroll()) == (["a", "b"] if fits else ["b"])
                assert things.verify().ok

    # Calibration rewrites every record under a new revision.

    @pytest.fixture
    def noisy(self, place, store):
        """As `pair`, but 400 records in 16 dimensions under sap without noise, few candidates."""
        mine = store.collection("things", dim=16, scheme={"name": "sap", "beta": 0.0}, oversample=3)
        mine.upsert(oracle.ids(400), oracle.vectors(400, 16), [{"n": i} for i in range(400)], ["long " * 60] * 400)
        mine.search(np.ones(16))
        return mine, place.connect().collection("things")

    @pytest.fixture(params=["theirs", "mine"])
    def calibrate(self, noisy, request):
        """By the other opening, or by another thread of this one."""
        things = noisy[request.param == "theirs"]
        return lambda: things.calibrate(target_recall=0.9, max_candidates=60)

    @pytest.mark.parametrize("method", ["nearest", "candidates", "vectors", "payloads"])
    def test_calibration_in_the_middle_of_search(self, noisy, interrupt, calibrate, method):
        """A query encrypted under the old scheme must not rank the new index vectors."""
        mine, _ = noisy
        interrupt(mine, method, calibrate)
        stored, query = oracle.vectors(400, 16), oracle.vectors(1, 16, seed=1)[0]
        # where the filter is checked here, candidates and their vectors are read one after the other
        where = {"n": {"gte": 0}} if method in ("candidates", "vectors") else None
        hits = mine.search(query, k=10, where=where)
        order, _ = oracle.nearest("cosine", query, stored, 10)
        assert len(hits) == 10
        assert len({f"id-{i}" for i in order} & {hit.id for hit in hits}) >= 4

    def test_calibrations_without_end_in_the_middle_of_searches(self, noisy, interrupt):
        """Every candidate is gone each time: that is no empty collection, and is not answered as if it were."""
        mine, theirs = noisy
        interrupt(mine, "nearest", lambda: theirs.calibrate(target_recall=0.9, max_candidates=60), times=ATTEMPTS)
        with pytest.raises(errors.StaleConfigError, match="rewritten under other settings"):
            mine.search(oracle.vectors(1, 16, seed=1)[0], k=10)
        assert len(mine.search(oracle.vectors(1, 16, seed=1)[0], k=10)) == 10

    def test_calibration_in_the_middle_of_an_upsert(self, noisy, interrupt, calibrate):
        mine, theirs = noisy
        interrupt(mine, "put", calibrate)
        mine.upsert(["id-0", "new"], oracle.vectors(2, 16, seed=3), [{"n": -1}] * 2)
        for things in noisy:
            assert things.count() == 401
            assert [record.metadata for record in things.get(["new", "id-0"])] == [{"n": -1}] * 2
            assert things.verify().ok
        assert theirs.stats()["scheme"]["beta"] > 0

    @pytest.mark.parametrize("method", ["payloads", "remove"])
    @pytest.mark.parametrize("given", [{"ids": ["id-0", "id-1"]}, {"where": {"n": {"lt": 2}}}], ids=["ids", "where"])
    def test_calibration_in_the_middle_of_a_deletion(self, noisy, interrupt, calibrate, method, given):
        """Everything has other bytes then; still they go."""
        mine, theirs = noisy
        interrupt(mine, "remove" if "ids" in given else method, calibrate)
        assert mine.delete(**given) == 2
        assert theirs.get(["id-0", "id-1"]) == []
        assert theirs.count() == 398

    @pytest.mark.parametrize("method", ["find", "payloads", "vectors"])
    def test_calibration_in_the_middle_of_get(self, noisy, interrupt, calibrate, method):
        mine, _ = noisy
        interrupt(mine, method, calibrate)
        records = mine.get(["id-3", "id-399"])
        assert [record.metadata for record in records] == [{"n": 3}, {"n": 399}]
        np.testing.assert_array_equal(records[0].vector, oracle.vectors(400, 16)[3])

    @pytest.mark.parametrize("method", ["rows", "payloads", "vectors"])
    def test_calibration_in_the_middle_of_a_scroll(self, noisy, interrupt, calibrate, method):
        """Everything was written anew, so records may come twice, but all of them come."""
        mine, _ = noisy
        interrupt(mine, method, calibrate)
        assert {record.id for record in mine.scroll()} == set(oracle.ids(400))

    def test_calibration_in_the_middle_of_verify(self, noisy, interrupt, calibrate, monkeypatch):
        monkeypatch.setattr(verify, "_CHUNK", 100)
        mine, _ = noisy
        for method, skip in (("vectors", 0), ("payloads", 1), ("index_vectors", 2), ("rows", 1)):
            interrupt(mine, method, calibrate, skip=skip, on="records")
            report = mine.verify()
            assert report.ok, report

    def test_calibration_and_then_a_write_in_the_middle_of_verify(self, noisy, interrupt):
        """What looked damaged is looked at again, and is then written under our eyes again."""
        mine, theirs = noisy
        interrupt(mine, "rows", lambda: theirs.calibrate(target_recall=0.9, max_candidates=60))
        interrupt(mine, "payloads", lambda: theirs.delete(["id-1"]), skip=1)
        report = mine.verify()
        assert report.ok, report

    @pytest.mark.parametrize("method", ["vectors", "replace"])
    def test_calibration_in_the_middle_of_a_calibration(self, noisy, interrupt, method):
        """The first to commit wins; the other says so, and has changed nothing."""
        mine, theirs = noisy
        interrupt(mine, method, lambda: theirs.calibrate(target_recall=0.8, max_candidates=100))
        with pytest.raises(errors.StaleConfigError, match="settings were changed"):
            mine.calibrate(target_recall=0.95, max_candidates=50)
        for things in noisy:
            assert things.stats()["calibration"]["target_recall"] == 0.8
            assert things.verify().ok

    def test_calibration_broken_off(self, noisy):
        """By an error, or by the user: the collection is as it was."""
        mine, theirs = noisy
        before = mine.index_vectors(oracle.ids(400))

        def stop(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            mine.calibrate(target_recall=0.9, max_candidates=60, progress=stop)
        for things in noisy:
            np.testing.assert_array_equal(things.index_vectors(oracle.ids(400)), before)
            assert things.stats()["calibration"] is None
            assert things.search(np.ones(16), k=3)
            assert things.verify().ok
        mine.upsert(["new"], oracle.vectors(1, 16))
        assert theirs.count() == 401
