"""A writer in the store who puts old things back, or brings them from another store under the same keyset."""

import itertools

import numpy as np
import pytest

from encvec_store import errors, low_level
from encvec_store.crypto import HEADER, PREFIX, TOKEN
from encvec_store.engine import places
from tests.kits import oracle
from tests.stores.contract import DIM, EVERYTHING, QUIET

N = 12
NOISE_NONCE = slice(TOKEN + 12, TOKEN + 28)


def session_of(things):
    return low_level.session(things) if hasattr(things, "_session") else low_level.session(things._of)  # noqa: SLF001


def writings(things):
    """Every way to change a collection."""
    yield lambda: things.upsert(["new"], oracle.vectors(1))
    yield lambda: things.upsert(oracle.ids(3), oracle.vectors(3))


def readings():
    yield lambda things: things.search(np.ones(DIM), k=3)
    yield lambda things: list(things.scroll())


class ReplayContract:
    """Mixed into a `StoreContract`."""

    @pytest.fixture
    def twin(self, place):
        """Another store under the same keyset."""
        other = place.another()
        yield other
        other.close()

    def refuses(self, things, before):
        """Writes raise, and change nothing: what is stored is what a thief put there."""
        for writing in writings(things):
            with pytest.raises(errors.AuthenticationError, match="settings"):
                writing()
        assert before() == before.stored

    def stored(self, burglar):
        """Return what reads all that is stored; what it was at first is its attribute."""

        def read():
            return [burglar.steal(row) for row in burglar.rows()]

        read.stored = read()
        return read

    @pytest.mark.parametrize("scheme", [QUIET, "sealed"], ids=["sap", "sealed"])
    @pytest.mark.parametrize(
        "after", [{}, {"metric": "l2", "max_norm": 50.0}, {"fields": {"n": "blind"}}], ids=["same", "metric", "policy"]
    )
    def test_settings_from_before_a_drop(self, place, store, make, after):
        """An open collection takes no settings of the one that had its name before; nor does a search."""
        make().upsert(oracle.ids(N), oracle.vectors(N))
        old = place.burglar().config()
        store.drop("things")
        things = make(**after)
        things.upsert(oracle.ids(N), oracle.vectors(N))
        burglar = place.burglar()
        before = self.stored(burglar)
        burglar.set_config(old)
        self.refuses(things, before)
        for reading in readings():
            # who has seen nothing may open the old ones: the records are under other keys
            with pytest.raises(errors.AuthenticationError):
                reading(place.connect().collection("things", oversample=EVERYTHING))
        for reading in (lambda things: things.get(["id-0"]), lambda things: things.index_vectors(["id-0"])):
            with pytest.raises((errors.AuthenticationError, errors.InputError, AssertionError)):
                assert reading(place.connect().collection("things"))

    @pytest.mark.parametrize("scheme", [QUIET], ids=["sap"])
    def test_settings_from_before_a_calibration(self, place, make):
        things = make()
        things.upsert(oracle.ids(N), oracle.vectors(N))
        burglar = place.burglar()
        old = burglar.config()
        things.calibrate(oracle.vectors(300), target_recall=0.8)
        before = self.stored(burglar)
        burglar.set_config(old)
        self.refuses(things, before)
        assert not things.verify().ok

    @pytest.mark.parametrize("scheme", ["sealed"])
    def test_settings_from_before_a_rotation(self, place, make, keyset):
        """No record was rewritten, but the settings were: older ones are refused all the same."""
        things = make()
        things.upsert(oracle.ids(N), oracle.vectors(N))
        burglar = place.burglar()
        old = burglar.config()
        keyset.rotate()
        things.upsert(["later"], oracle.vectors(1))
        before = self.stored(burglar)
        burglar.set_config(old)
        self.refuses(things, before)
        with pytest.raises(errors.AuthenticationError, match="older settings were put back"):
            place.connect().collection("things", oversample=EVERYTHING)
        assert burglar.config() == old, "nothing was written over them"

    @pytest.mark.parametrize("scheme", [QUIET, "sealed"], ids=["sap", "sealed"])
    def test_settings_of_another_store(self, place, make, twin):
        things = make()
        things.upsert(oracle.ids(N), oracle.vectors(N))
        theirs = twin.connect().collection("things", dim=DIM, scheme=QUIET)
        theirs.upsert(oracle.ids(N), oracle.vectors(N))
        burglar = place.burglar()
        before = self.stored(burglar)
        burglar.set_config(twin.burglar().config())
        self.refuses(things, before)

    @pytest.mark.parametrize("parts", [("vector", "payload"), None], ids=["parts", "whole"])
    def test_a_record_of_another_store(self, place, store, scheme, make, twin, parts):
        """The same name, id, vector and keyset: it does not open here."""
        things = make()
        theirs = twin.connect().collection("things", dim=DIM, scheme=scheme, oversample=EVERYTHING)
        for each in (things, theirs):
            each.upsert(oracle.ids(N), oracle.vectors(N))
        mine, other = place.burglar(), twin.burglar()
        row, from_row = (int(places(session_of(each), ["id-0"])[0]) for each in (things, theirs))
        stolen = other.steal(from_row)
        mine.write(row, {part: stolen[part] for part in parts or mine.PARTS})
        for each in (things, place.connect().collection("things", oversample=EVERYTHING)):
            with pytest.raises(errors.AuthenticationError):
                each.search(np.ones(DIM), k=N)
            with pytest.raises(errors.AuthenticationError):
                list(each.scroll())
            assert not each.verify().ok

    def test_all_records_of_another_store(self, place, scheme, make, twin):
        things = make()
        theirs = twin.connect().collection("things", dim=DIM, scheme=scheme, oversample=EVERYTHING)
        for each in (things, theirs):
            each.upsert(oracle.ids(N), oracle.vectors(N))
        mine, other = place.burglar(), twin.burglar()
        for row, from_row in zip(mine.rows(), other.rows(), strict=True):
            mine.write(row, {**other.steal(from_row), "terms": set()})
        for each in (things, place.connect().collection("things", oversample=EVERYTHING)):
            with pytest.raises(errors.AuthenticationError):
                each.search(np.ones(DIM), k=N)
            with pytest.raises(errors.AuthenticationError):
                list(each.scroll())
            assert each.get(["id-0"]) == [], "not even its name is known here"

    def test_two_stores_share_no_bytes(self, place, scheme, make, twin):
        """Nothing links the same record in two stores: token, index vector, header, envelopes, terms."""
        fields = {"n": "blind"}
        things = make(fields=fields)
        theirs = twin.connect().collection("things", dim=DIM, scheme=scheme, fields=fields)
        for each in (things, theirs):
            each.upsert(oracle.ids(N), oracle.vectors(N), [{"n": 1}] * N)
        mine, other = place.burglar(), twin.burglar()
        for part in ("token", "index_vector", "terms"):
            here = [mine.read(row, part) for row in mine.rows()]
            there = [other.read(row, part) for row in other.rows()]
            pairs = itertools.product(here, there)
            assert not any(one == two for one, two in pairs if one), part
        for part in ("vector", "payload"):
            here = {mine.read(row, part)[TOKEN + 12 : PREFIX] for row in mine.rows()}
            there = {other.read(row, part)[TOKEN + 12 : PREFIX] for row in other.rows()}
            assert not here & there, "noise nonces and bindings"

    @pytest.mark.parametrize("scheme", [QUIET], ids=["sap"])
    @pytest.mark.parametrize("metric", ["cosine", "l2"])
    def test_many_writes_of_one_vector_have_one_index_vector(self, place, make, metric):
        """Else their noise would average out: alone, in batches, beside others, whatever the signs of zeros are."""
        rng = np.random.default_rng(0)
        largest = 1e30 if metric == "cosine" else 9e29
        bound = {} if metric == "cosine" else {"max_norm": largest}
        things = make(metric=metric, **bound)
        vector = np.array([0.0, 0.5, -1.25, 0.0, 3e-3, 7.0, 0.0, -0.1], np.float32)
        burglar, seen = place.burglar(), set()
        for write in range(200):
            signs = np.where((vector == 0) & (rng.random(DIM) < 0.5), -1.0, 1.0).astype(np.float32)
            others = rng.standard_normal((int(rng.integers(0, 40)), DIM)).astype(np.float32)
            if write % 3 == 1:
                extreme = largest if write % 2 else 1e-30
                others = np.concatenate([others, np.full((1, DIM), extreme / DIM, np.float32)])
            at = int(rng.integers(0, len(others) + 1))
            ids = [f"other-{i}" for i in range(len(others))]
            ids.insert(at, "same")
            things.upsert(ids, np.insert(others, at, vector * signs, axis=0))
            row = int(places(session_of(things), ["same"])[0])
            seen.add((burglar.read(row, "index_vector"), burglar.read(row, "vector")[NOISE_NONCE]))
        assert len(seen) == 1

    @pytest.mark.parametrize("scheme", ["sealed"])
    def test_snapshots_do_not_tell_whether_a_vector_changed(self, place, make):
        """Two dumps around an update that changed nothing, and one that changed the vector: the same to a thief."""
        n = 60
        things = make()
        stored, changed = oracle.vectors(n), oracle.vectors(n, seed=1)
        changed[: n // 2] = stored[: n // 2]  # the first half is written again as it was
        metadata, documents = [{"n": i % 2} for i in range(n)], ["some text"] * n
        things.upsert(oracle.ids(n), stored, metadata, documents)
        before = self.by_token(place)
        things.upsert(oracle.ids(n), changed, metadata, documents)
        after = self.by_token(place)
        assert set(before) == set(after)
        keyring = session_of(things).keyring
        tokens = [token.tobytes() for token in keyring.tokens(oracle.ids(n))[keyring.primary]]
        for part in ("partition", "index_vector", "terms"):
            assert all(before[token][part] == after[token][part] for token in tokens), part
        for part in ("vector", "payload"):
            assert len({len(each[token][part]) for each in (before, after) for token in tokens}) == 1, "sizes"
            same = np.array(
                [
                    np.frombuffer(before[token][part], np.uint8) == np.frombuffer(after[token][part], np.uint8)
                    for token in tokens
                ]
            )
            unchanged, moved = same[: n // 2], same[n // 2 :]
            np.testing.assert_array_equal(unchanged.all(axis=0), moved.all(axis=0), "bytes that stay")
            drawn = ~unchanged.all(axis=0)
            assert drawn[TOKEN + 12 : PREFIX].all(), "noise nonce and binding are new each time"
            for half in (unchanged, moved):
                assert half[:, drawn].mean() < 3 / 256, "the rest is random"

    def by_token(self, place):
        burglar = place.burglar()
        stolen = [burglar.steal(row) for row in burglar.rows()]
        return {item["token"]: item for item in stolen}

    def test_rows_do_not_tell_the_order_of_a_batch(self, place, make):
        """Rows within a batch are numbered at random."""
        things = make(scheme="sealed")
        n = 200
        things.upsert(oracle.ids(n), oracle.vectors(n))
        order = [record.id for record in things.scroll(include_vectors=False)]
        assert sorted(order) == sorted(oracle.ids(n))
        positions = np.array([int(id.partition("-")[2]) for id in order])
        assert abs(np.corrcoef(positions, np.arange(n))[0, 1]) < 0.35, "five standard deviations"

    def test_payloads_are_padded(self, place, make):
        """Short texts have one size, and long ones few."""
        things = make(scheme="sealed")
        texts = ["x" * n for n in range(0, 150, 10)]
        things.upsert(oracle.ids(len(texts)), oracle.vectors(len(texts)), None, texts)
        burglar = place.burglar()
        assert {len(burglar.read(row, "payload")) for row in burglar.rows()} == {TOKEN + HEADER + 12 + 256 + 16}
