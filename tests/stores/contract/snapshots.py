"""One call sees the collection as of one moment: records are updated, and keys change, between two of its steps."""

import numpy as np
import pytest

from encvec_store import errors, low_level
from encvec_store.engine import read, search
from encvec_store.engine.candidates import sealed
from encvec_store.maintenance import rewrite as rewriting
from encvec_store.sealed_index import filling
from encvec_store.sealed_index import index as following
from tests.kits import oracle
from tests.stores.contract import DIM


def _ids(found):
    return {item.id for item in found}


EVERY = {f"id-{i}" for i in range(30)}
RIGHT = {
    "get": lambda things: _ids(things.get(["id-0", "id-2"])) == {"id-0", "id-2"},
    "search": lambda things: _ids(things.search(np.ones(DIM), k=30)) == EVERY,
    "search, filtered by the store": lambda things: len(_ids(things.search(np.ones(DIM), k=30, where={"n": 0}))) == 15,
    "search, filtered here": lambda things: _ids(things.search(np.ones(DIM), k=30, where={"v": 1})) == EVERY,
    "count": lambda things: things.count({"v": 1}) == 30,
    "index_vectors": lambda things: len(things.index_vectors(["id-0", "id-2"])) == 2,
    "delete by filter": lambda things: things.delete(where={"v": 1}) == 30 and things.count() == 0,
    "delete by id": lambda things: things.delete(["id-0"]) == 1,
}
"""Calls, and whether their answers are right. The last ones delete."""
STEPS = (
    *("find", "rows", "payloads", "vectors", "index_vectors", "candidates"),
    *("nearest", "changes", "following", "current", "remove"),
)


class SnapshotsContract:
    """Uses the fixtures of `RacesContract`."""

    @pytest.fixture(params=["at once", "in pages"])
    def rekey(self, request, pair, keyset):
        """Encrypts everything anew under a new primary."""
        _, theirs = pair

        def rekey():
            keyset.rotate()
            if rekey.in_pages:
                theirs.rekey()
            else:
                rewriting.rewrite(low_level.session(theirs), low_level.session(theirs).config)

        rekey.in_pages = request.param == "in pages"

        return rekey

    @pytest.fixture
    def in_pages(self, monkeypatch):
        monkeypatch.setattr(read, "_CHUNK", 10)
        monkeypatch.setattr(filling, "_AT_ONCE", 10)

    @pytest.mark.parametrize("scheme", ["sealed"])  # the indexes of the others read the records themselves
    @pytest.mark.parametrize("method", ["rows", "following"])
    def test_update_beside_the_filter_of_a_search(self, pair, interrupt, method):
        """Each record satisfies the filter before and after: all are found."""
        mine, theirs = pair
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
        moves = low_level.session(mine).config.index_dim and rekey.in_pages  # then rows are new, as after an update
        interrupt(mine, "rows", rekey, skip=skip)
        found = [record.id for record in mine.scroll({"n": {"in": [0, 1]}})]
        assert sorted(set(found) if moves else found) == sorted(oracle.ids(30))

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

    def test_a_record_updated_before_every_look(self, pair, interrupt, monkeypatch):
        """Nobody can read it whole. That is an error, and never an answer without that record."""
        for module, name in (
            (read, "_LISTINGS"),
            (search, "_LOOKS"),
            (sealed, "_ATTEMPTS"),
            (following, "_ATTEMPTS"),
        ):
            monkeypatch.setattr(module, name, 2)
        mine, theirs = pair

        def work():
            theirs.upsert(["id-0"], oracle.vectors(1), [{"n": 0, "v": 1}], ["long " * 60])

        failed = 0
        for method in STEPS:
            theirs.upsert(oracle.ids(30), oracle.vectors(30), [{"n": i % 2, "v": 1} for i in range(30)])
            interrupted = interrupt(mine, method, work, times=1 << 30, optional=True)
            for name, right in RIGHT.items():
                work()
                try:
                    assert right(mine), (method, name)
                except errors.StoreUnreachableError as error:
                    failed += 1
                    assert "written to faster than it can be read" in str(error)  # noqa: PT017
            interrupted.stop()
        assert 5 < failed < len(STEPS) * len(RIGHT) / 2

    def test_a_scroll_goes_on_until_it_has_a_record_that_is_updated_again_and_again(self, pair, interrupt):
        mine, theirs = pair
        interrupt(mine, "payloads", lambda: theirs.upsert(["id-0"], oracle.vectors(1)), times=9)
        assert _ids(mine.scroll()) == EVERY

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
                    rows = read.rows if name == "nearest" else read[0]
                    if len(rows) and theirs.count() > 27:
                        (read.vectors if name == "nearest" else read[1])[:1] = 0
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
