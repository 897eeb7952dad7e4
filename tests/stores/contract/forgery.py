"""A writer in the store who plays with key versions and ids: `verify` finds it, and `get` returns the true record."""

import pytest

from encvec_store.engine import places
from tests.kits import oracle
from tests.stores.contract.opened import EVERYTHING, QUIET
from tests.stores.contract.replay import session_of

KEY_VERSION = slice(24, 28)
"""Place of the key version in an envelope."""
BOTH = pytest.mark.parametrize("scheme", [QUIET, "sealed"], ids=["sap", "sealed"])


def places_of(things, ids):
    return [int(row) for row in places(session_of(things), ids)]


def labelled(envelope, version):
    return envelope[: KEY_VERSION.start] + version.to_bytes(4, "big") + envelope[KEY_VERSION.stop :]


class ForgeryContract:
    """Mixed into a `StoreContract`."""

    def both_openings(self, place, things):
        yield things
        yield place.connect().collection("things", oversample=EVERYTHING)

    def damage(self, things):
        return {(damage.row, damage.id, damage.part) for damage in things.verify().damaged}

    @BOTH
    @pytest.mark.parametrize("state", ["enabled", "disabled"])
    def test_an_id_under_two_key_versions(self, place, keyset, make, state):
        """An older record, put back in the place of another, which was written under the new key version."""
        things = make()
        things.upsert(["id-0"], oracle.vectors(1), None, ["old"])
        burglar = place.burglar()
        older = burglar.steal(burglar.rows()[0])
        keyset.rotate()
        things.upsert(["id-0"], oracle.vectors(2)[1:], None, ["new"])
        things.upsert(["id-1"], oracle.vectors(1, seed=2), None, ["new"])
        row, forged = places_of(things, ["id-0", "id-1"])
        burglar.write(forged, older)
        if state == "disabled":
            keyset.disable(1)
        for each in self.both_openings(place, things):
            assert [record.document for record in each.get(["id-0"])] == ["new"]
            told = None if state == "disabled" else "id-0"
            assert self.damage(each) == {(row, "id-0", "id given twice"), (forged, told, "id given twice")}

    @BOTH
    def test_a_record_written_during_verify_is_not_given_twice(self, make):
        things = make()
        things.upsert(oracle.ids(3), oracle.vectors(3))
        written = []

        def write(done, total):
            if not written:
                written.append(things.upsert(oracle.ids(3), oracle.vectors(3, seed=1)))

        report = things.verify(progress=write)
        assert report.ok, report
        assert report.checked == 6, "each of them twice"

    def relabelled(self, place, things, version):
        burglar = place.burglar()
        row = places_of(things, ["id-0"])[0]
        parts = {part: labelled(burglar.read(row, part), version) for part in ("vector", "payload")}
        burglar.write(row, {**parts, "partition": version})
        return row

    @BOTH
    def test_a_record_labelled_with_a_disabled_key_version(self, place, keyset, make):
        """Its key is still there to check by: nothing is passed over as unreadable that is no record."""
        things = make()
        things.upsert(["kept"], oracle.vectors(1))
        keyset.rotate()
        things.upsert(["id-0"], oracle.vectors(1))
        keyset.disable(1)
        assert (things.verify().ok, things.verify().unreadable) == (True, 1)
        row = self.relabelled(place, things, 1)
        for each in self.both_openings(place, things):
            assert self.damage(each) == {(row, None, "payload")}
            assert each.verify().unreadable == 1

    @pytest.mark.parametrize("scheme", [QUIET], ids=["sap"])
    @pytest.mark.parametrize("rewritten", [False, True])
    def test_a_record_labelled_with_a_destroyed_key_version(self, place, keyset, make, rewritten):
        """It cannot be checked any more; but after a rewrite nothing can be left under that version."""
        things = make()
        things.upsert(["id-0"], oracle.vectors(1))
        keyset.rotate()
        things.upsert(oracle.ids(3), oracle.vectors(3))
        keyset.destroy(1)
        if rewritten:
            things.calibrate(oracle.vectors(300), target_recall=0.8)
        row = self.relabelled(place, things, 1)
        for each in self.both_openings(place, things):
            report = each.verify()
            assert report.unreadable == (0 if rewritten else 1)
            assert {(item.row, item.part) for item in report.damaged} == (
                {(row, "key version")} if rewritten else set()
            )

    @pytest.mark.parametrize("scheme", ["sealed"])
    def test_parts_of_dead_records_are_compared(self, place, keyset, make):
        """What can be seen without a key is looked at: two records under a destroyed version, their vectors swapped."""
        things = make()
        things.upsert(oracle.ids(2), oracle.vectors(2))
        keyset.rotate()
        things.upsert(["new"], oracle.vectors(1))
        keyset.destroy(1)
        assert things.verify().unreadable == 2
        burglar = place.burglar()
        a, b = burglar.rows()[:2]
        burglar.swap(a, b, "vector")
        assert self.damage(things) == {(a, None, "vector"), (b, None, "vector")}
