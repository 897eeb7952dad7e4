"""Records are sealed anew page by page, while others read and write, and whoever does it may be stopped."""

import contextlib

import numpy as np
import pytest

from encvec_store import errors, low_level
from encvec_store.maintenance import rekey as rekeying
from tests.kits import oracle
from tests.kits.synced import asked
from tests.stores.contract import DIM, EVERYTHING


class StoppedError(Exception):
    pass


def one_page(things):
    """Seal one page anew, and stop."""

    def stop(done, total):
        raise StoppedError

    with contextlib.suppress(StoppedError):
        things.rekey(progress=stop)


def filled(things, n=30):
    """Write records, each with a filter that half of them satisfy."""
    metadata = [{"n": i % 2, "v": 1} for i in range(n)]
    things.upsert(oracle.ids(n), oracle.vectors(n), metadata, ["long " * 60] * n)


class RekeyingContract:
    """Uses the fixtures of `RacesContract`."""

    @pytest.fixture
    def small_pages(self, monkeypatch):
        monkeypatch.setattr(rekeying, "PAGE", 4)

    def test_rekey(self, pair, keyset, small_pages):
        mine, theirs = pair
        session, names = low_level.session(mine), [*oracle.ids(30), "new"]
        rows = asked(mine, lambda records: records.rows())
        keyset.rotate()
        mine.upsert(["new"], -oracle.vectors(1), [{"n": 0, "v": 1}])
        told = []
        report = mine.rekey(progress=lambda done, total: told.append((done, total)))
        assert (report.sealed, report.version, report.left, report.segments, report.done) == (30, 2, {}, 0, True)
        assert [sum(done for done, _ in told), {total for _, total in told}] == [30, {30}]
        assert (report.remains == "") == (session.records.remains == "")
        if not session.config.index_dim:
            assert asked(mine, lambda records: records.rows())[:-1].tolist() == rows.tolist(), "rows keep their numbers"
        for things in pair:
            assert things.stats()["key_versions"] == {"2": 31}
            assert things.verify().ok
        before = asked(mine, lambda records: records.generation())
        assert theirs.rekey().sealed == 0
        assert asked(mine, lambda records: records.generation()) == before, "nothing was written"
        keyset.destroy(1)
        for things in pair:
            assert {record.id for record in things.scroll({"n": {"in": [0, 1]}})} == set(names)
            assert {hit.id for hit in things.search(np.ones(DIM), k=40)} == set(names)
            assert things.get(["id-3"])[0].metadata == {"n": 1, "v": 1}
            assert things.verify().ok
        assert mine.delete(["id-0"]) == 1

    def test_stopped_after_each_page(self, pair, keyset, small_pages):
        mine, theirs = pair
        keyset.rotate()
        moved = 0
        for _ in range(7):
            one_page(theirs)
            before, moved = moved, mine.stats()["key_versions"]["2"]
            assert before < moved <= before + 4
            assert {hit.id for hit in mine.search(np.ones(DIM), k=30)} == set(oracle.ids(30))
            assert mine.verify().ok
        mine.upsert(["id-29"], oracle.vectors(1), [{"n": 1, "v": 2}])
        assert mine.delete(["id-0", "id-28"]) == 2
        assert theirs.rekey().left == {}
        assert mine.stats()["key_versions"] == {"2": 28}

    def test_a_page_at_every_step_of_every_call(self, pair, keyset, interrupt, monkeypatch):
        """Each record is seen once, whatever key version it is under."""
        from tests.stores.contract.snapshots import RIGHT, STEPS

        monkeypatch.setattr(rekeying, "PAGE", 3)
        mine, theirs = pair
        moved = 0
        for method in STEPS:
            filled(theirs)
            keyset.rotate()
            interrupted = interrupt(mine, method, lambda: one_page(theirs), times=1 << 30, optional=True)
            for name, right in RIGHT.items():
                if mine.count() < 30:
                    filled(theirs)
                    keyset.rotate()
                assert right(mine), (method, name)
                moved += theirs.stats()["key_versions"].get(str(keyset.primary), 0)
            interrupted.stop()
            theirs.rekey()
        assert moved > 30, "nothing was sealed anew meanwhile"

    def test_between_two_looks_for_an_id(self, pair, keyset, interrupt):
        """It was under the older key version when the primary was asked for, and not any more afterwards."""
        mine, theirs = pair
        for call, right in (
            (lambda: [record.id for record in mine.get(["id-0", "id-1"])], ["id-0", "id-1"]),
            (lambda: len(mine.index_vectors(["id-2"])), 1),
            (lambda: mine.delete(["id-0", "id-1"]), 2),
        ):
            keyset.rotate()
            interrupt(mine, "find", theirs.rekey, skip=1)
            assert call() == right
            theirs.rekey()

    def test_updates_and_deletions_beside_a_page(self, pair, keyset, interrupt):
        """A page that was read before holds older records: none of them comes back."""
        mine, theirs = pair
        keyset.rotate()

        def meanwhile():
            theirs.upsert(["id-1"], -oracle.vectors(1), [{"n": 0, "v": 2}])
            theirs.delete(["id-2"])

        interrupt(mine, "reseal", meanwhile)
        assert mine.rekey().sealed == 28
        assert mine.get(["id-2"]) == []
        assert mine.get(["id-1"])[0].metadata == {"n": 0, "v": 2}
        assert mine.stats()["key_versions"] == {"2": 29}
        assert mine.verify().ok

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("method", ["rows_of", "current", "find", "reseal"])
    def test_two_at_once(self, pair, keyset, interrupt, small_pages, method, after):
        mine, theirs = pair
        keyset.rotate()
        sealed = []
        interrupt(mine, method, lambda: sealed.append(theirs.rekey().sealed), after=after, skip=2, on="records")
        assert mine.rekey().sealed + sum(sealed) == 30
        assert mine.stats()["key_versions"] == {"2": 30}
        assert {hit.id for hit in mine.search(np.ones(DIM), k=31)} == set(oracle.ids(30))
        assert mine.verify().ok

    def test_other_settings_meanwhile(self, pair, keyset, interrupt, small_pages):
        mine, theirs = pair
        keyset.rotate()
        interrupt(
            mine,
            "reseal",
            lambda: theirs.change(scheme="sap" if mine.stats()["scheme"]["name"] == "sealed" else "sealed"),
        )
        assert mine.rekey().left == {}
        assert mine.stats()["key_versions"] == {"2": 30}
        assert theirs.verify().ok

    def test_of_disabled_versions(self, pair, keyset):
        mine, _ = pair
        keyset.rotate()
        keyset.disable(1)
        report = mine.rekey()
        assert (report.sealed, report.left, report.done) == (0, {"1": 30}, False)
        keyset.enable(1)
        keyset.rotate()
        assert mine.rekey().done
        assert mine.stats()["key_versions"] == {"3": 30}

    def test_damage(self, place, pair, keyset):
        """It stays where it is, and stops nobody."""
        mine, _ = pair
        burglar = getattr(place, "burglar", None)
        if burglar is None:
            pytest.skip("nobody can write to it past the store")
        burglar = place.burglar()
        row = burglar.rows()[7]
        payload = bytearray(burglar.read(row, "payload"))
        payload[-1] ^= 1
        burglar.write(row, {"payload": bytes(payload)})
        keyset.rotate()
        with pytest.raises(errors.AuthenticationError, match=r"1 records could not be authenticated.*Run verify"):
            mine.rekey()
        assert place.connect().collection("things", oversample=EVERYTHING).stats()["key_versions"] == {"1": 1, "2": 29}

    def test_a_record_put_back_beside_its_newer_self(self, place, pair, keyset):
        mine, _ = pair
        if getattr(place, "burglar", None) is None:
            pytest.skip("nobody can write to it past the store")
        burglar, session = place.burglar(), low_level.session(mine)
        row = int(asked(mine, lambda records: records.rows())[3])
        stolen = burglar.steal(row)
        (name,) = [
            record.id
            for record in mine.scroll()
            if asked(mine, lambda records, id=record.id: records.find(session.keyring.tokens([id])[1]))[0] == row
        ]
        keyset.rotate()
        mine.upsert([name], -oracle.vectors(1))
        other = burglar.rows()[0]
        burglar.write(other, {"token": b"\0" * 16})
        burglar.restore({other: stolen})
        with pytest.raises(errors.AuthenticationError):
            mine.rekey()
        assert mine.stats()["key_versions"] == {"1": 1, "2": 29}
