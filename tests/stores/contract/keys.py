"""Key versions: rotated, disabled, destroyed, wrong."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import errors
from encvec_store.crypto import limits as crypto_limits
from encvec_store.sealing import limits
from tests.kits import oracle
from tests.kits.oracle import assert_hits
from tests.stores.contract.opened import DIM, EVERYTHING


class KeyContract:
    """What keys open, and what they no longer do."""

    def test_rotation(self, place, store, make, keyset):
        names, stored = oracle.ids(60), oracle.vectors(60)
        metadata = [{"n": i % 3} for i in range(60)]
        things = make(fields={"n": "blind"})
        things.upsert(names[:30], stored[:30], metadata[:30])
        assert keyset.rotate() == 2
        assert things.count({"n": 0}) == 10, "before anything is written under the new version"
        things.upsert(names[30:], stored[30:], metadata[30:])
        assert things.stats()["key_versions"] == {"1": 30, "2": 30}
        queries = oracle.vectors(4, seed=1)
        for query, hits in zip(queries, things.search(queries, k=60), strict=True):
            assert_hits(hits, "cosine", query, names, stored, 60)
        for where, n in (({"n": 1}, 20), ({"n": {"in": [0, 1]}}, 40), ({"n": {"ne": 1}}, 40)):
            assert things.count(where) == n
            assert len(things.search(queries[0], k=60, where=where)) == n
        assert [record.id for record in things.get(names)] == names
        assert things.verify().ok
        things.upsert(names[:10], stored[10:20], metadata[:10])
        assert things.stats()["key_versions"] == {"1": 20, "2": 40}, "an update moves the record to the primary"
        assert things.count() == 60
        np.testing.assert_array_equal(things.get(["id-0"])[0].vector, stored[10])
        assert things.delete(names[5:15]) == 10
        assert things.stats()["key_versions"] == {"1": 15, "2": 35}
        keyset.rotate()
        things.upsert(names, stored, metadata)
        assert things.stats()["key_versions"] == {"3": 60}
        for query, hits in zip(queries, things.search(queries, k=60), strict=True):
            assert_hits(hits, "cosine", query, names, stored, 60)
        store = place.reopen(store)
        assert store.collection("things").verify().ok
        store.close()

    def test_a_key_encrypts_so_much_and_no_more(self, place, store, make, keyset, monkeypatch, caplog):
        """The count is coarse, but exact for batches that are multiples of its step. It outlives the process."""
        monkeypatch.setattr(limits, "STEP", 4)
        for module in (limits, crypto_limits):
            monkeypatch.setattr(module, "MOST", 24)
        monkeypatch.setattr(crypto_limits, "WARN", 12)
        names, stored = oracle.ids(8), oracle.vectors(8)
        things = make()
        things.upsert(names, stored)
        assert not caplog.records
        other = place.connect(keyset)
        other.collection("things").upsert(names, stored)  # updates count, too
        assert "key version 1 of collection 'things' has encrypted 16 of at most 24 records: rotate" in caplog.text
        store = place.reopen(store)
        things = store.collection("things")
        things.upsert(names, stored)
        assert things.stats()["encrypted"] == {"1": 24}
        for some in (names[:1], names):
            with pytest.raises(errors.KeyExhaustedError, match=r"has encrypted 24 .* may encrypt 24: call keyset.rot"):
                things.upsert(some, -stored[: len(some)], [{"late": True}] * len(some))
        assert [record.metadata for record in things.get(names)] == [{}] * 8, "nothing was written"
        assert len(things.search(stored[0], k=8)) == 8
        assert things.delete(names[:1]) == 1
        keyset.rotate()
        things.upsert(names, stored)
        assert things.stats()["encrypted"] == {"1": 24, "2": 8}
        assert things.verify().ok
        store.close()
        other.close()

    def test_a_count_that_races(self, place, make, monkeypatch):
        """Every write changes the settings here, and those of others have to look again."""
        monkeypatch.setattr(limits, "STEP", 1)
        things = make()
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda i: things.upsert([i, -i - 1], oracle.vectors(2)), [0, 1, 2] * 3))
        assert things.stats()["encrypted"] == {"1": 18}
        assert things.count() == 6
        assert things.verify().ok

    def test_index_vectors_under_two_versions_share_nothing(self, store, keyset):
        things = store.collection("things", dim=64, scheme="sap")
        stored = oracle.vectors(50, 64)
        things.upsert(oracle.ids(50), stored)
        first = things.index_vectors(oracle.ids(50))
        keyset.rotate()
        things.upsert(oracle.ids(50), stored)
        second = things.index_vectors(oracle.ids(50))
        cosines = (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
        assert np.abs(cosines).max() < 0.6

    @pytest.fixture
    def mixed(self, make, keyset):
        """Half of 40 records under version 1, half under 2, which is the primary."""
        things = make(fields={"n": "blind", "p": "plain", "*": "sealed"})
        metadata = [{"n": i % 2, "p": i, "s": i % 2} for i in range(40)]
        things.upsert(oracle.ids(20), oracle.vectors(40)[:20], metadata[:20])
        things.search(np.ones(DIM))  # whatever is cached, is
        keyset.rotate()
        things.upsert(oracle.ids(20, 20), oracle.vectors(40)[20:], metadata[20:])
        things.search(np.ones(DIM))
        return things

    WHERES = (None, {"n": 1}, {"p": {"gte": 0}}, {"s": {"exists": True}})

    def check_only_newer(self, things):
        """The records of version 2 answer; those of version 1 do not, and break nothing."""
        names, stored = oracle.ids(20, 20), oracle.vectors(40)[20:]
        query = np.ones(DIM, np.float32)
        for where in self.WHERES:
            chosen = [i for i in range(20) if where != {"n": 1} or i % 2 == 1]
            hits = things.search(query, k=40, where=where)
            assert_hits(hits, "cosine", query, [names[i] for i in chosen], stored[chosen], 40)
            if where:
                assert things.count(where) == len(chosen)
            assert sorted(record.id for record in things.scroll(where)) == [names[i] for i in chosen]
        assert things.get(["id-0", "id-20"])[0].id == "id-20"
        assert len(things.get(oracle.ids(40))) == 20
        assert things.count() == 40, "they are there, if unreadable"
        report = things.verify()
        assert (report.unreadable, report.ok, report.checked) == (20, True, 40)
        assert things.stats()["key_versions"] == {"1": 20, "2": 20}

    def test_disabling_a_version(self, mixed, keyset):
        keyset.disable(1)
        self.check_only_newer(mixed)
        keyset.enable(1)
        assert len(mixed.search(np.ones(DIM), k=40)) == 40, "and back"
        assert len(mixed.get(oracle.ids(40))) == 40
        assert mixed.verify().unreadable == 0

    def test_destroying_a_version(self, mixed, keyset, place, store):
        """Crypto-erasure: unreadable for good, and the rest works on."""
        keyset.destroy(1)
        self.check_only_newer(mixed)
        assert mixed.delete(where={"p": {"lt": 22}}) == 2
        mixed.upsert(
            ["id-20", "id-21"], oracle.vectors(40)[20:22], [{"n": i % 2, "p": i, "s": i % 2} for i in (20, 21)]
        )
        mixed.upsert(["id-0"], oracle.vectors(1, seed=5), [{"n": 7}])
        assert mixed.get(["id-0"])[0].metadata == {"n": 7}
        assert mixed.delete(["id-0"]) == 1
        mixed.upsert(
            oracle.ids(20, 20), oracle.vectors(40)[20:], [{"n": i % 2, "p": i, "s": i % 2} for i in range(20, 40)]
        )
        store = place.reopen(store)
        self.check_only_newer(store.collection("things", oversample=EVERYTHING))
        store.close()

    def test_destroying_a_version_after_the_records_moved_on(self, mixed, keyset, place, store):
        mixed.upsert(oracle.ids(20), oracle.vectors(40)[:20])
        keyset.destroy(1)
        store = place.reopen(store)
        things = store.collection("things", oversample=EVERYTHING)
        assert len(things.search(np.ones(DIM), k=40)) == 40
        report = things.verify()
        assert (report.unreadable, report.ok) == (0, True)
        store.close()

    def test_opening_reseals_the_settings(self, make, keyset, place, store):
        """Opened once after a rotation, a collection outlives the older version even before anything is written."""
        make().upsert(["a"], oracle.vectors(1))
        keyset.rotate()
        store = place.reopen(store)
        store.collection("things")
        keyset.destroy(1)
        store = place.reopen(store)
        things = store.collection("things")
        assert things.search(np.ones(DIM)) == []
        things.upsert(["b"], oracle.vectors(1))
        assert [hit.id for hit in things.search(np.ones(DIM))] == ["b"]
        store.close()

    def test_settings_outlive_the_version_that_sealed_them(self, make, keyset, place, store):
        """Settings are sealed anew with the first write under a new primary."""
        things = make()
        things.upsert(["a"], oracle.vectors(1))
        keyset.rotate()
        things.upsert(["a"], oracle.vectors(1))
        keyset.destroy(1)
        store = place.reopen(store)
        assert store.collection("things").get(["a"])[0].id == "a"
        store.close()

    def test_updating_a_record_whose_version_is_disabled(self, mixed, keyset):
        """Disable, look whether anything breaks, enable again: an update made meanwhile replaces the record."""
        keyset.disable(1)
        mixed.upsert(["id-0"], oracle.vectors(1, seed=5), [{"n": 7}])
        keyset.enable(1)
        assert [record.metadata for record in mixed.get(["id-0"])] == [{"n": 7}]
        hits = mixed.search(np.ones(DIM), k=40)
        assert len(hits) == len({hit.id for hit in hits}) == mixed.count() == 40
        assert mixed.delete(["id-0"]) == 1
        assert mixed.get(["id-0"]) == []

    def test_deleting_a_record_whose_version_is_disabled(self, mixed, keyset):
        """A deletion that reports nothing and comes undone when the version is enabled would be a trap."""
        keyset.disable(1)
        assert mixed.delete(["id-0", "id-20"]) == 2
        keyset.enable(1)
        assert mixed.get(["id-0", "id-20"]) == []
        assert mixed.count() == 38

    def test_wrong_key(self, place, store, make):
        things = make()
        things.upsert(["a"], oracle.vectors(1))
        things.flush()
        stranger = place.connect(ev.Keyset.create("memory:"))
        with pytest.raises(errors.AuthenticationError, match="settings could not be authenticated"):
            stranger.collection("things")
        with pytest.raises(errors.AuthenticationError):
            stranger.collection("things", dim=DIM)
        assert place.collections(stranger, {""}) == [("", "things")]
        assert things.get(["a"])[0].id == "a", "nothing was harmed"
        assert things.verify().ok

    def test_a_keyset_that_lacks_the_version(self, place, store, make, keyset, monkeypatch):
        """A process that opened the keyset before a rotation learns that it is behind, and writes nothing."""
        monkeypatch.setenv("ENCVEC_TEST_KEYSET", keyset.export(unsafe_cleartext=True))
        old = place.connect(ev.Keyset.open("env:ENCVEC_TEST_KEYSET"))
        things = make()
        things.upsert(["a"], oracle.vectors(1), [{"by": "new"}])
        behind = old.collection("things")
        assert behind.get(["a"])[0].metadata == {"by": "new"}
        keyset.rotate()
        things.upsert(["a"], oracle.vectors(1), [{"by": "newer"}])
        for call in (
            lambda: behind.upsert(["a"], oracle.vectors(1), [{"by": "old"}]),
            lambda: behind.search(np.ones(DIM)),
            lambda: behind.get(["a"]),
            lambda: old.collection("things"),
        ):
            with pytest.raises(errors.KeyUnavailableError, match="version 2 is not in this keyset; was it rotated"):
                call()
        assert [record.metadata for record in things.scroll()] == [{"by": "newer"}]
