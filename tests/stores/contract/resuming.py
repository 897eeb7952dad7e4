"""A change of scheme that is stopped between its pages, or before its end, and goes on later."""

import contextlib
from unittest.mock import ANY

import pytest

from encvec_store import errors, low_level
from encvec_store.maintenance import changing
from encvec_store.sealing import limits
from encvec_store.storage import Blob
from tests.kits import oracle
from tests.stores.contract.sketch import DIM, SketchPlaces

SKETCH = {"name": "sketch", "k": 7, "beta": 0.5}
BOTH_WAYS = [("sap", "sealed"), ("sealed", SKETCH)]
PAGE = 15


class StoppedError(Exception):
    pass


def pages(things):
    """Return the names of the stored pages."""
    names = low_level.records(things).blobs("change.")
    return sorted((name for name in names if name != "change.plan"), key=lambda name: int(name.rpartition(".")[2]))


def stop_after(things, n, scheme):
    """Begin a change, and stop after n pages."""
    seen = []

    def stop(done, total):
        seen.append(done)
        if len(seen) == n:
            raise StoppedError

    with contextlib.suppress(StoppedError):
        things.change(scheme=scheme, progress=stop)
    assert len(seen) == n


def put(things, blobs):
    """Store blobs, as somebody without keys does: {name: content, or None to delete it}."""
    records = low_level.records(things)
    records.keep(drop=[name for name, content in blobs.items() if content is None])
    records.keep([(name, 0, Blob(1, content)) for name, content in blobs.items() if content is not None])


class ResumingContract(SketchPlaces):
    """Uses the fixtures of `ChangingContract`."""

    @pytest.fixture
    def encrypted(self, monkeypatch):
        """Make pages small, and list how many records are encrypted by each step of a change."""
        monkeypatch.setattr(changing, "PAGE_ROWS", PAGE)
        monkeypatch.setattr(changing, "_FEW", 5)
        listed, real = [], changing.anew

        def anew(session, config, rows, *rest):
            listed.append(len(rows))
            return real(session, config, rows, *rest)

        monkeypatch.setattr(changing, "anew", anew)
        return listed

    def meanwhile(self, things, stored):
        """Update, delete and add records; return what is there then: {id: vector}."""
        names = oracle.ids(len(stored))
        expected = dict(zip(names, stored, strict=True))
        new = oracle.vectors(20, DIM, seed=5)
        changed = dict(zip([*names[::9][:8], *(f"new-{i}" for i in range(12))], new, strict=True))
        things.upsert(list(changed), new, [{"n": 1, "i": 1000}] * 20)
        things.update(names[1:4], metadata=[{"i": 2000}] * 3)
        things.delete(names[-6:])
        return {name: vector for name, vector in (expected | changed).items() if name not in names[-6:]}

    def has(self, things, expected):
        report = things.verify()
        assert report.ok, report
        assert {record.id for record in things.scroll()} == set(expected)
        for name, vector in list(expected.items())[::7]:
            (hit,) = things.search(vector, k=1)
            assert hit.id == name
        numbers = {name: int(name.rpartition("-")[2]) for name in expected}
        odd = {name for name, n in numbers.items() if "new" in name or n % 2 or n in range(0, 72, 9)}
        assert {record.id for record in things.scroll({"n": 1})} == odd

    @pytest.mark.parametrize(("old", "new"), [*BOTH_WAYS, ("sealed", "sap"), (SKETCH, "sealed")])
    def test_it_goes_on(self, both, encrypted, caplog, old, new):
        """Under the old scheme until then, with what was written meanwhile, and nothing is encrypted twice."""
        mine, theirs = both(old)
        stop_after(mine, 4, new)
        name = new if isinstance(new, str) else new["name"]
        note = (
            f"a change to {name} is not finished, 60 of 100 records are encrypted for it: unless another process is at"
            f' it, change(scheme="{name}") or `encvec scheme things {name}` goes on with it'
        )
        for things in (mine, theirs):
            assert things.stats()["change"] == {"to": name, "done": 4 * PAGE, "records": 100, "note": note}
            assert things.verify().notes == [note]
        theirs.maintain()
        assert f"collection 'things': {note}" in caplog.messages
        expected = self.meanwhile(theirs, oracle.vectors(100, DIM))
        for things in (mine, theirs):
            self.has(things, expected)
        done = theirs.stats()["change"]["done"]
        assert 0 < done < 4 * PAGE, "some are gone"
        encrypted.clear()
        told = []
        found = theirs.change(scheme=new, progress=lambda n, total: told.append((n, total)))
        assert (found.changed, found.scheme, found.records, found.resumed) == (True, name, len(expected), done)
        assert sum(encrypted) == len(expected) - done
        assert (sum(n for n, _ in told), {total for _, total in told}) == (len(expected), {len(expected)})
        for things in (mine, theirs):
            self.has(things, expected)
            assert things.stats()["change"] is None
            assert low_level.records(things).blobs("change.") == {}
            caplog.clear()
            things.maintain()
            assert "not finished" not in caplog.text

    @pytest.mark.parametrize(("old", "new"), BOTH_WAYS)
    def test_it_goes_on_from_before_the_end(self, both, encrypted, interrupt, old, new):
        def fail():
            raise errors.StoreUnreachableError("the disk is on fire")

        mine, theirs = both(old)
        interrupt(mine, "replace", fail)
        with pytest.raises(errors.StoreUnreachableError, match="on fire"):
            mine.change(scheme=new)
        self.works(theirs)
        encrypted.clear()
        assert mine.change(scheme=new).resumed + sum(encrypted) == 100
        assert sum(encrypted) <= 5, "the last few are encrypted in the last transaction"
        self.works(theirs)

    @pytest.mark.parametrize(("old", "new"), BOTH_WAYS)
    def test_others_write_while_pages_are_made(self, both, encrypted, old, new):
        """Also this session, and in the thread that makes the pages: nothing waits for it."""
        mine, theirs = both(old)
        expected, left = {}, [None] * 2

        def progress(done, total):
            if left:
                left.pop()
                things = theirs if left else mine
                expected.update(self.meanwhile(things, oracle.vectors(100, DIM)))
                self.has(mine, expected)

        found = mine.change(scheme=new, progress=progress)
        assert (left, found.records) == ([], len(expected))
        for things in (mine, theirs):
            self.has(things, expected)

    def test_more_is_written_before_the_end_than_it_takes(self, both, encrypted, interrupt):
        mine, theirs = both("sap")
        expected = {}
        interrupt(mine, "replace", lambda: expected.update(self.meanwhile(theirs, oracle.vectors(100, DIM))))
        mine.change(scheme="sealed")
        self.has(theirs, expected)
        assert max(encrypted) <= 20

    # ------------------------------------------------------------------------------------ begun again, given up

    def test_another_scheme(self, both, encrypted):
        mine, theirs = both("sap")
        stop_after(mine, 3, "sealed")
        before = pages(mine)
        stop_after(theirs, 2, {"name": "sap", "beta": 3})
        assert not set(before) & set(pages(mine))
        assert mine.stats()["change"] == {"to": "sap", "done": 2 * PAGE, "records": 100, "note": ANY}
        assert theirs.change(scheme="sealed").resumed == 0
        self.works(mine)
        assert low_level.records(mine).blobs("change.") == {}

    def test_given_up(self, both, encrypted):
        mine, theirs = both("sap")
        stop_after(mine, 3, "sealed")
        for scheme in ("magic", {"name": "sketch", "k": 99}):
            with pytest.raises(errors.SchemeError):
                theirs.change(scheme=scheme)
        assert len(pages(mine)) == 3, "what is refused changes nothing"
        assert not theirs.change(scheme="sap").changed
        assert low_level.records(mine).blobs("change.") == {}
        self.works(mine)

    @pytest.mark.parametrize("at", [("keep", 2), ("replace", 0)])
    def test_ended_by_another_meanwhile(self, both, encrypted, interrupt, at):
        """Both asked for the same, and have it."""
        mine, theirs = both("sap")
        interrupt(mine, at[0], lambda: theirs.change(scheme="sealed"), skip=at[1])
        found = mine.change(scheme="sealed")
        assert (found.before, found.scheme, found.changed, found.records) == ("sap", "sealed", True, 100)
        assert found.remains == low_level.records(mine).remains
        for things in (mine, theirs):
            assert things.stats()["scheme"]["name"] == "sealed"
            assert low_level.records(things).blobs("change.") == {}
            self.works(things)

    @pytest.mark.parametrize("scheme", ["sap", {"name": "sap", "beta": 3}])
    def test_given_up_or_replaced_by_another_meanwhile(self, both, encrypted, interrupt, scheme):
        mine, theirs = both("sap")
        interrupt(mine, "keep", lambda: theirs.change(scheme=scheme), skip=2)
        with pytest.raises(errors.StaleConfigError, match=r"call this again to begin anew|begin this change again"):
            mine.change(scheme="sealed")
        assert low_level.records(mine).blobs("change.") == {}
        self.works(mine)
        assert mine.change(scheme="sealed").records == 100
        self.works(theirs)

    @pytest.mark.parametrize("step", [1, 3])
    def test_two_begin_at_the_same_moment(self, both, encrypted, interrupt, step):
        mine, theirs = both("sap")
        interrupt(mine, "keep", lambda: stop_after(theirs, step, "sealed"))
        with pytest.raises(errors.StaleConfigError):
            mine.change(scheme="sealed")
        assert mine.change(scheme="sealed").resumed == step * PAGE
        self.works(theirs)

    def test_a_longer_record(self, both, encrypted):
        """The bound came from the longest record: a plan for it cannot end."""
        mine, theirs = both("sealed", metric="ip")
        stop_after(mine, 2, "sap")
        theirs.upsert(["long"], 9 * oracle.vectors(1, DIM))
        with pytest.raises(errors.NormError, match="records"):
            mine.change(scheme="sap")
        assert low_level.records(mine).blobs("change.") == {}
        assert mine.change(scheme="sap").records == 101

    def test_the_first_records(self, early, store, encrypted):
        things = store.collection("things", dim=DIM, scheme="sealed", metric="l2")
        low_level.records(things).replace = None  # it never comes so far
        with pytest.raises(TypeError):
            things.change(scheme="sap")
        del low_level.records(things).replace
        things.upsert(oracle.ids(100), oracle.vectors(100, DIM))
        assert things.change(scheme="sap").resumed == 0
        assert things.verify().ok

    # ------------------------------------------------------------------------------------ keys

    def test_a_new_key_version(self, both, encrypted, keyset):
        mine, theirs = both("sap")
        stop_after(mine, 3, "sealed")
        keyset.rotate()
        found = mine.stats()["change"]
        assert found == {"to": None, "done": 0, "records": 100, "note": ANY}
        assert "`encvec scheme things SCHEME` begins it again" in found["note"]
        assert "`encvec scheme things sap` gives it up" in found["note"]
        assert theirs.change(scheme="sealed").resumed == 0
        assert mine.stats()["key_versions"] == {"2": 100}
        keyset.destroy(1)
        self.works(mine)
        stop_after(mine, 3, "sap")
        keyset.rotate()
        theirs.rekey()
        assert low_level.records(mine).blobs("change.") == {}, "copies under the older key version"

    @pytest.mark.parametrize("old", ["sealed", "sap"])
    def test_records_sealed_anew_meanwhile(self, both, encrypted, keyset, old):
        mine, theirs = both(old)
        stop_after(mine, 3, SKETCH)
        keyset.rotate()
        stop_after(mine, 3, SKETCH)
        theirs.rekey()
        found = mine.change(scheme=SKETCH)
        assert found.resumed == (3 * PAGE if old == "sealed" else 0), "with index vectors, rekeying gives new rows"
        self.works(theirs)

    def test_keys_that_end_meanwhile(self, both, encrypted, keyset):
        """Records under a destroyed version are dropped, also those in pages; those under a disabled one stop it."""
        mine, theirs = both("sap")
        keyset.rotate()
        mine.upsert(oracle.ids(8), oracle.vectors(8, DIM), [{"n": i % 2, "i": i} for i in range(8)])
        stop_after(mine, 3, "sealed")
        keyset.disable(1)
        with pytest.raises(errors.KeyUnavailableError):
            mine.change(scheme="sealed")
        keyset.enable(1)
        stop_after(mine, 5, "sealed")
        keyset.disable(1)
        with pytest.raises(errors.KeyUnavailableError):
            mine.change(scheme="sealed")
        keyset.destroy(1)
        assert mine.change(scheme="sealed").records == 8
        assert {record.id for record in theirs.scroll()} == set(oracle.ids(8))
        assert theirs.verify().ok

    def test_noise_chosen_anew_meanwhile(self, both, encrypted):
        """Pages depend on where the change leads to, not on where it comes from."""
        mine, theirs = both("sap")
        stop_after(mine, 3, "sealed")
        theirs.calibrate(k=2, target_recall=0.5, max_candidates=100)
        assert mine.change(scheme="sealed").resumed == 3 * PAGE
        self.works(theirs)

    def test_encryptions_are_counted_before(self, both, encrypted, monkeypatch):
        monkeypatch.setattr(limits, "STEP", 1)
        mine, _ = both("sap")
        assert mine.stats()["encrypted"] == {"1": 100}
        for n in (1, 3):
            stop_after(mine, n, {"name": "sap", "beta": 3})
            assert mine.stats()["encrypted"]["1"] == 100 + sum(encrypted)
        mine.change(scheme={"name": "sap", "beta": 3})
        assert mine.stats()["encrypted"]["1"] >= 100 + sum(encrypted)
        self.works(mine)

    # ------------------------------------------------------------------------------------ forged

    @pytest.mark.parametrize(
        ("how", "late"),
        [
            ("altered", False),
            ("swapped", False),
            ("cut", False),
            ("another's", False),
            ("altered", True),
            ("gone", True),
        ],
    )
    def test_forged_pages(self, both, store, encrypted, interrupt, caplog, how, late):
        """They are made again."""
        mine, theirs = both("sap")
        stop_after(mine, 4, "sealed")
        records = low_level.records(theirs)
        first, second, *_ = names = pages(mine)
        content = {name: records.blob(name) for name in names}
        other = store.collection("other", dim=DIM, scheme="sap")
        other.upsert(oracle.ids(40), oracle.vectors(40, DIM))
        stop_after(other, 1, "sealed")

        def forge():
            forged = {
                "altered": {first: content[first][:-1] + bytes([content[first][-1] ^ 1])},
                "swapped": {first: content[second], second: content[first]},
                "cut": {first: content[first][:20], second: b""},
                "gone": {first: None},
                "another's": {first: low_level.records(other).blob(pages(other)[0])},
            }
            put(theirs, forged[how])

        if late:
            interrupt(mine, "replace", forge)
        else:
            forge()
        encrypted.clear()
        found = mine.change(scheme="sealed")
        wrong = 2 * PAGE if how in ("swapped", "cut") else PAGE
        assert found.resumed == 4 * PAGE - (0 if late else wrong)
        assert sum(encrypted) == 100 - 4 * PAGE + wrong
        assert "could not be authenticated" in caplog.text
        self.works(theirs)

    def test_a_forged_plan(self, both, encrypted):
        mine, theirs = both("sap")
        records = low_level.records(mine)
        for forged in (b"", b"nonsense" * 20):
            stop_after(mine, 2, "sealed")
            put(mine, {"change.plan": forged})
            assert mine.stats()["change"]["to"] is None
        assert theirs.change(scheme="sealed").resumed == 0
        assert records.blobs("change.") == {}
        self.works(mine)

    def test_a_plan_that_was_put_back(self, both, encrypted):
        """It is of older settings: nothing of it is used."""
        mine, theirs = both("sap")
        stop_after(mine, 4, "sealed")
        records = low_level.records(mine)
        kept = {name: records.blob(name) for name in records.blobs("change.")}
        mine.change(scheme="sealed")
        mine.change(scheme="sap")
        put(mine, kept)
        assert theirs.change(scheme="sealed").resumed == 0
        self.works(mine)
