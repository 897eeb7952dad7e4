"""One call sees the collection as of one moment: records are updated, and keys change, between two of its steps."""

import numpy as np
import pytest

from encvec_store import low_level
from encvec_store.engine import read
from encvec_store.maintenance import rewrite as rewriting
from tests.kits import oracle
from tests.stores.contract import DIM


class SnapshotsContract:
    """Uses the fixtures of `RacesContract`."""

    @pytest.fixture
    def rekey(self, pair, keyset):
        """Encrypts everything anew under a new primary."""
        _, theirs = pair

        def rekey():
            keyset.rotate()
            rewriting.rewrite(low_level.session(theirs), low_level.session(theirs).config)

        return rekey

    @pytest.fixture
    def in_pages(self, monkeypatch):
        monkeypatch.setattr(read, "_CHUNK", 10)

    @pytest.mark.parametrize("method", ["rows", "following"])
    def test_update_beside_the_filter_of_a_search(self, pair, interrupt, method):
        """Each record satisfies the filter before and after: all are found."""
        mine, theirs = pair
        if mine.index_vectors(["id-0"]).size:
            pytest.skip("its index reads the records itself")
        met = [{"n": 0}] * 6
        interrupt(mine, method, lambda: theirs.upsert(oracle.ids(6), oracle.vectors(6, seed=3), met), optional=True)
        hits = mine.search(np.ones(DIM), k=30, where={"n": 0})
        assert {hit.id for hit in hits} >= {f"id-{i}" for i in range(0, 30, 2)}

    @pytest.mark.parametrize("where", [{"n": {"in": [0, 1]}}, {"v": 1}], ids=["blind", "sealed"])
    @pytest.mark.parametrize("skip", [0, 1, 2], ids=["first page", "second page", "last page"])
    def test_update_in_the_middle_of_a_count(self, pair, interrupt, in_pages, where, skip):
        """Counted under its old row, it must not be counted under its new one as well."""
        mine, theirs = pair
        new = [{"n": 0, "v": 1}] * 15
        interrupt(mine, "payloads", lambda: theirs.upsert(oracle.ids(15), oracle.vectors(15), new), skip=skip)
        assert mine.count(where) == 30

    def test_update_in_the_middle_of_a_deletion_by_filter(self, pair, interrupt, in_pages):
        mine, theirs = pair
        new = [{"n": 0, "v": 1}] * 15
        interrupt(mine, "payloads", lambda: theirs.upsert(oracle.ids(15), oracle.vectors(15), new), skip=1)
        assert mine.delete(where={"v": 1}) == 30
        assert theirs.count() == 0

    @pytest.mark.parametrize("skip", [0, 1])
    def test_new_keys_in_the_middle_of_a_scroll(self, pair, interrupt, rekey, in_pages, skip):
        """Terms are other ones then: whoever lists the second page by the old ones finds nothing."""
        mine, _ = pair
        interrupt(mine, "rows", rekey, skip=skip)
        assert sorted(record.id for record in mine.scroll({"n": {"in": [0, 1]}})) == sorted(oracle.ids(30))

    def test_new_keys_in_the_middle_of_a_count(self, pair, interrupt, rekey):
        mine, _ = pair
        interrupt(mine, "rows", rekey)
        assert mine.count({"n": 0}) == 15

    def test_new_keys_in_the_middle_of_a_deletion(self, pair, interrupt, rekey):
        mine, theirs = pair
        interrupt(mine, "rows", rekey)
        assert mine.delete(where={"n": 0}) == 15
        assert theirs.count() == 15

    def test_new_keys_in_the_middle_of_calls_by_id(self, pair, interrupt, rekey):
        """Tokens are other ones then."""
        mine, theirs = pair
        interrupt(mine, "find", rekey)
        assert [record.id for record in mine.get(["id-0", "id-1"])] == ["id-0", "id-1"]
        interrupt(mine, "find", rekey)
        assert len(mine.index_vectors(["id-2"])) == 1
        interrupt(mine, "find", rekey)
        assert mine.delete(["id-0", "id-1"]) == 2
        assert theirs.count() == 28

    def test_a_deletion_beside_a_search_is_no_damage(self, pair, interrupt, caplog):
        """What was deleted between two reads has no bytes, or empty ones, in a copy. That is not a damaged copy."""
        mine, theirs = pair
        session, index = low_level.session(mine), low_level.session(mine).index
        forgotten = []

        class Emptied:
            def __getattr__(self, name):
                found = getattr(index, name)
                if name == "forget":
                    return lambda: forgotten.append(name)
                if name not in ("nearest", "vectors"):
                    return found

                def read(*args):
                    read = found(*args)
                    (read.vectors if name == "nearest" else read[1])[:1] = 0
                    rows = read.rows if name == "nearest" else read[0]
                    if len(rows):
                        theirs.delete([session.open_payloads(rows[:1])[1][0][0]])
                    return read

                return read

        if not hasattr(index, "vectors") or not session.config.index_dim:
            pytest.skip("its index keeps no copies")
        session.index = Emptied()
        try:
            hits = mine.search(np.ones(DIM), k=30)
        finally:
            session.index = index
        assert 0 < len({hit.id for hit in hits}) == len(hits) < 30
        assert not forgotten
        assert not caplog.records
