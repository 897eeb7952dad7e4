"""A writer in the database: what is swapped, moved, altered or replayed is never returned, and verify finds it."""

import contextlib
import copy

import numpy as np
import pytest

from encvec_store import errors, low_level
from encvec_store.engine import places
from tests.kits import oracle
from tests.stores.contract import EVERYTHING, QUIET

DIM = 8
N = 12
FIELDS = {"group": "blind", "n": "plain", "*": "sealed"}
HEADER = range(60)
"""Of an envelope: token 16, then format, scheme, name kind 2, revision 4, key version 4, noise nonce 16, binding 16."""


class Burglar:
    """Reads and writes the stored parts of one collection, past the store: subclassed for each backend."""

    PARTS = ("partition", "token", "index_vector", "vector", "payload", "terms")

    def rows(self):
        """Row numbers, ascending."""
        raise NotImplementedError

    def read(self, row, part):
        """Return a part: bytes, but an int for partition and a set of (field, kind, value) for terms."""
        raise NotImplementedError

    def write(self, row, parts):
        """Overwrite the parts of a row that a mapping names."""
        raise NotImplementedError

    def remove(self, row):
        """Delete a row."""
        raise NotImplementedError

    def move(self, row, other):
        """Move a row into the collection of another burglar."""
        raise NotImplementedError

    def config(self):
        """Return the sealed settings."""
        raise NotImplementedError

    def set_config(self, sealed):
        """Overwrite the sealed settings."""
        raise NotImplementedError

    def profile(self):
        """Return the sealed profile."""
        raise NotImplementedError

    def set_profile(self, sealed):
        """Overwrite it, or with None remove it."""
        raise NotImplementedError

    def steal(self, row):
        """Return a copy of every part of a row."""
        return {part: copy.deepcopy(self.read(row, part)) for part in self.PARTS}

    def restore(self, stolen):
        """Write rows back, {row: its parts as `steal` gave them}."""
        for row in stolen:
            self.write(row, {"token": row.to_bytes(16, "big")})  # two rows never have the same one
        for row, parts in stolen.items():
            self.write(row, parts)

    def swap(self, a, b, *parts):
        """Exchange parts of two rows."""
        of_a, of_b = ({part: self.read(row, part) for part in parts} for row in (a, b))
        if "token" in parts:
            self.write(a, {"token": bytes(16)})  # two rows never have the same one
        self.write(b, of_a)
        self.write(a, of_b)


def flipped(value, position):
    """Return bytes with one bit of one byte turned over."""
    changed = bytearray(value)
    changed[position] ^= 1 << (position % 8)
    return bytes(changed)


def swapped(*parts):
    return lambda burglar, a, b, stock: burglar.swap(a, b, *parts)


def copied(*parts):
    return lambda burglar, a, b, stock: burglar.write(b, {part: burglar.read(a, part) for part in parts})


def altered(part, change):
    return lambda burglar, a, b, stock: burglar.write(a, {part: change(burglar.read(a, part))})


def replayed(*parts):
    """Put parts of an older version of the same record back."""
    return lambda burglar, a, b, stock: burglar.write(a, {part: stock["older"][part] for part in parts})


def terms_of(change):
    def tamper(burglar, a, b, stock):
        burglar.write(a, {"terms": change(burglar.read(a, "terms"), burglar.read(b, "terms"))})

    return tamper


TAMPERS = {
    "vectors swapped": swapped("vector"),
    "payloads swapped": swapped("payload"),
    "vectors and payloads swapped": swapped("vector", "payload"),
    "tokens swapped": swapped("token"),
    "all but tokens swapped": swapped("vector", "payload", "index_vector", "terms"),
    "terms swapped": swapped("terms"),
    "vector copied": copied("vector"),
    "payload copied": copied("payload"),
    "record copied over another": copied("vector", "payload", "index_vector", "terms"),
    "token altered": altered("token", lambda token: flipped(token, 3)),
    "partition altered to a live one": altered("partition", lambda partition: 2),
    "partition altered to a disabled one": altered("partition", lambda partition: 1),
    "partition altered to an unknown one": altered("partition", lambda partition: 77),
    "terms dropped": terms_of(lambda mine, theirs: set()),
    "terms added": terms_of(lambda mine, theirs: mine | theirs),
    "terms of another": terms_of(lambda mine, theirs: theirs),
    "number altered": terms_of(lambda mine, _: {(f, k, v + 1 if k == "number" else v) for f, k, v in mine}),
    "field renamed": terms_of(lambda mine, _: {(f and "m", k, v) for f, k, v in mine}),
    "payload emptied": altered("payload", lambda _: b""),
    "payload cut short": altered("payload", lambda payload: payload[:-1]),
    "payload cut in the header": altered("payload", lambda payload: payload[:22]),
    "payload extended": altered("payload", lambda payload: payload + b"\0"),
    "vector zeroed": altered("vector", lambda vector: bytes(len(vector))),
    "older vector": replayed("vector"),
    "older payload": replayed("payload"),
    "older vector and index vector": replayed("vector", "index_vector"),
    "older payload and index vector": replayed("payload", "index_vector"),
}
INDEXED = {
    "index vectors swapped": swapped("index_vector"),
    "index vectors and vectors swapped": swapped("index_vector", "vector"),
    "index vector copied": copied("index_vector"),
    "older index vector": replayed("index_vector"),
    "index vector zeroed": altered("index_vector", lambda vector: bytes(len(vector))),
    "index vector nan": altered("index_vector", lambda vector: np.full(len(vector) // 4, np.nan, "<f4").tobytes()),
}
SAMPLED = [*HEADER, 60, 64, 71, 72, 79, 103, -17, -16, -1]
"""Byte positions of an envelope: every one of the header, then some of nonce, ciphertext and tag."""


class TamperingContract:
    """Mixed into a `StoreContract`."""

    @pytest.fixture
    def stock(self, place, store, make, keyset):
        """Twelve records under version 3 of three (1 is disabled), each written twice, an older one, the burglar."""
        keyset.rotate()
        keyset.rotate()
        keyset.disable(1)
        things = make(fields=FIELDS)
        stored, other = oracle.vectors(N), oracle.vectors(N, seed=5)
        metadata = [{"group": f"g{i % 3}", "n": i, "note": f"note {i}"} for i in range(N)]
        documents = [f"text {i}" for i in range(N)]
        # all of them: where a sketch is fitted, it is fitted before anything is stolen
        things.upsert(oracle.ids(N), other, [{"group": "old", "n": -1}] * N, ["old"] * N)
        burglar = place.burglar()
        row = int(places(low_level.session(things), ["id-0"])[0])
        older = burglar.steal(row)
        for i in range(N):  # one by one: rows of one upsert have no order, and tests name the first ones
            things.upsert([f"id-{i}"], stored[i : i + 1], [metadata[i]], [documents[i]])
        truth = {f"id-{i}": (stored[i], metadata[i], documents[i]) for i in range(N)}
        assert burglar.rows()[0] > row
        return {"things": things, "burglar": burglar, "truth": truth, "older": older, "place": place, "old": other[0]}

    @contextlib.contextmanager
    def openings(self, stock):
        """Yield the collection as it was open all the time, and opened anew."""
        with stock["place"].another_opening() as anew:
            yield stock["things"], anew.collection("things", oversample=EVERYTHING)

    def check_never_wrong(self, stock, openings):
        """Every way of reading gives an error, or true records only. Returns how many readings were refused."""
        truth, refused = stock["truth"], 0
        query = np.ones(DIM, np.float32)
        for things in openings:
            readings = [
                lambda t=things: t.search(query, k=N, include_vectors=True),
                lambda t=things: t.search(
                    query, k=N, where={"group": {"in": ["g0", "g1", "g2"]}}, include_vectors=True
                ),
                lambda t=things: t.search(query, k=N, where={"n": {"gte": 0}}, include_vectors=True),
                lambda t=things: t.search(query, k=N, where={"note": {"exists": True}}, include_vectors=True),
                lambda t=things: t.search(np.stack([query, -query]), k=3, include_vectors=True)[1],
                lambda t=things: t.get(list(truth)),
                lambda t=things: list({record.id: record for record in t.scroll()}.values()),  # one may come twice
                *[lambda t=things, id=id: t.get([id]) for id in list(truth)[:3]],
                *[lambda t=things, i=i: t.search(truth[f"id-{i}"][0], k=1, include_vectors=True) for i in range(3)],
            ]
            for reading in readings:
                try:
                    found = reading()
                except errors.AuthenticationError:
                    refused += 1
                    continue
                assert len({record.id for record in found}) == len(found)
                for record in found:
                    vector, metadata, document = truth[record.id]
                    assert np.array_equal(record.vector, vector), record.id
                    assert (record.metadata, record.document) == (metadata, document)
        return refused

    def check_found(self, openings):
        """Verify reports damage, whether the collection was open or not."""
        for things in openings:
            report = things.verify()
            assert not report.ok, report
            assert report.to_dict()["ok"] is False

    def check_tampers(self, stock, tampers, subtests):
        """Nothing wrong comes out, whatever was done, and verify finds it. Each is undone before the next."""
        stock["things"].search(np.ones(DIM))  # its index is of before; that of the collection opened anew, of after
        burglar = stock["burglar"]
        a, b = burglar.rows()[:2]
        stolen = {row: burglar.steal(row) for row in (a, b)}
        for name, tamper in tampers.items():
            with subtests.test(name):
                tamper(burglar, a, b, stock)
                with self.openings(stock) as openings:
                    self.check_never_wrong(stock, openings)
                    self.check_found(openings)
            burglar.restore(stolen)
        with self.openings(stock) as openings:
            assert self.check_never_wrong(stock, openings) == 0
            assert all(things.verify().ok for things in openings)

    def test_tampering(self, stock, subtests):
        self.check_tampers(stock, TAMPERS, subtests)

    @pytest.mark.parametrize("scheme", [QUIET], ids=["sap"])
    def test_tampering_with_index_vectors(self, stock, subtests):
        """They decide who is a candidate, nothing more."""
        self.check_tampers(stock, INDEXED, subtests)

    @pytest.mark.parametrize("part", ["vector", "payload"])
    def test_any_byte_of_an_envelope(self, stock, part):
        burglar = stock["burglar"]
        row = burglar.rows()[0]
        whole = burglar.read(row, part)
        things = stock["place"].connect().collection("things", oversample=EVERYTHING)
        for position in SAMPLED:
            burglar.write(row, {part: flipped(whole, position)})
            with pytest.raises((errors.AuthenticationError, errors.KeyUnavailableError)):
                things.get(["id-0"])
            with pytest.raises((errors.AuthenticationError, errors.KeyUnavailableError)):
                stock["things"].search(np.ones(DIM), k=N, where={"n": {"gte": 0}})
            assert not things.verify().ok, position
        assert things.get(["id-1"])[0].id == "id-1", "the others can be had"
        burglar.write(row, {part: whole})
        assert stock["things"].verify().ok
        assert len(stock["things"].search(np.ones(DIM), k=N)) == N

    def test_the_token_of_an_envelope_is_authenticated(self, stock):
        """Both envelopes of a record relabelled alike: nothing in the plaintext need be looked at to refuse them."""
        burglar, things = stock["burglar"], stock["things"]
        a, b = burglar.rows()[:2]
        whole = burglar.steal(a)
        relabelled = {part: burglar.read(b, "token") + whole[part][16:] for part in ("vector", "payload")}
        burglar.write(a, relabelled)
        with pytest.raises(errors.AuthenticationError):
            things.get(["id-0"], include_vectors=False)
        with pytest.raises(errors.AuthenticationError):
            low_level.session(things).open_vectors(np.array([a]))
        with pytest.raises(errors.AuthenticationError):
            things.search(np.ones(DIM), k=N)
        burglar.write(a, whole)
        assert things.verify().ok

    @pytest.mark.parametrize("scheme", [QUIET], ids=["sap"])
    def test_any_byte_of_an_index_vector(self, stock):
        burglar = stock["burglar"]
        row = burglar.rows()[0]
        whole = burglar.read(row, "index_vector")
        for position in range(0, len(whole), 3):
            burglar.write(row, {"index_vector": flipped(whole, position)})
            assert not stock["things"].verify().ok, position
        burglar.write(row, {"index_vector": whole})
        assert stock["things"].verify().ok

    def test_what_verify_says(self, stock):
        burglar = stock["burglar"]
        rows = burglar.rows()
        burglar.swap(rows[0], rows[1], "vector")
        burglar.write(rows[2], {"payload": flipped(burglar.read(rows[2], "payload"), 80)})
        burglar.write(rows[3], {"terms": set()})
        burglar.write(rows[4], {"token": bytes(16)})
        report = stock["things"].verify()
        assert report.checked == N
        assert {(damage.row, damage.id, damage.part) for damage in report.damaged} == {
            (rows[0], "id-0", "vector"),
            (rows[1], "id-1", "vector"),
            (rows[2], None, "payload"),
            (rows[3], "id-3", "filter terms"),
            (rows[4], "id-4", "record token"),
        }

    @pytest.mark.parametrize(
        "place_of", [("things", "other"), ("others", "")], ids=["other tenant", "other collection"]
    )
    def test_a_row_moved_elsewhere(self, stock, store, scheme, place_of):
        name, tenant = place_of
        elsewhere = store.collection(name, dim=DIM, scheme=scheme, fields=FIELDS, tenant=tenant, oversample=EVERYTHING)
        # the vectors of the other collection's first write: a sketch of them has as many dimensions
        elsewhere.upsert(["mine", *oracle.ids(N - 1, 100)], oracle.vectors(N, seed=5), [{"n": 1}] * N)
        burglar = stock["burglar"]
        burglar.move(burglar.rows()[0], stock["place"].burglar(name, tenant))
        for things in (elsewhere, stock["place"].connect().collection(name, tenant=tenant, oversample=EVERYTHING)):
            with pytest.raises(errors.AuthenticationError):
                things.search(np.ones(DIM), k=5, where={"n": {"exists": True}})
            with pytest.raises(errors.AuthenticationError):
                list(things.scroll())
            assert things.get(["id-0"]) == []
            assert things.get(["mine"])[0].id == "mine"
            assert not things.verify().ok
        assert stock["things"].get(["id-0"]) == []
        with self.openings(stock) as openings:
            assert self.check_never_wrong(stock, openings) == 0

    def test_settings_of_another_collection(self, stock, store, scheme):
        store.collection("others", dim=DIM, scheme=scheme, fields={"group": "plain"})
        stock["burglar"].set_config(stock["place"].burglar("others").config())
        with pytest.raises(errors.AuthenticationError, match="settings could not be authenticated"):
            stock["place"].connect().collection("things")

    def test_any_byte_of_the_settings(self, stock):
        burglar = stock["burglar"]
        whole, anew = burglar.config(), stock["place"].connect()
        for position in [*range(36), len(whole) // 2, len(whole) - 1]:
            burglar.set_config(flipped(whole, position))
            with pytest.raises((errors.AuthenticationError, errors.KeyUnavailableError)):
                anew.collection("things")
        for cut in (b"", whole[:4], whole[:17], whole[:-1], whole + b"\0"):
            burglar.set_config(cut)
            with pytest.raises(errors.AuthenticationError):
                anew.collection("things")
        burglar.set_config(whole)
        assert anew.collection("things").count() == N

    @pytest.mark.parametrize("scheme", [QUIET], ids=["sap"])
    def test_settings_from_before_a_calibration(self, stock, store):
        """The noise cannot be turned back under the records: they name the revision they were made under."""
        burglar = stock["burglar"]
        before = burglar.config()
        stock["things"].calibrate(oracle.vectors(300), target_recall=0.8)
        burglar.set_config(before)
        with pytest.raises(errors.AuthenticationError, match="older settings were put back"):
            stock["place"].connect().collection("things", oversample=EVERYTHING)
        things = stock["things"]
        assert not things.verify().ok

    @pytest.mark.timeout(30)
    def test_a_list_of_rows_that_never_ends(self, stock, monkeypatch):
        """A damaged index may give the same rows again and again: that is an error, not a wait."""
        things = stock["things"]
        backend = low_level.session(things).records
        first = backend.rows()[:3]
        monkeypatch.setattr(type(backend), "rows", lambda *_, **__: first)
        for reading in (lambda: list(things.scroll()), things.verify):
            with pytest.raises(errors.StoreUnreachableError, match="out of order"):
                reading()
        monkeypatch.setattr(type(backend), "rows", lambda *_, **__: first[[0, 1, 1]])
        for reading in (lambda: things.count({"note": 1}), lambda: things.delete(where={"note": 1})):
            with pytest.raises(errors.StoreUnreachableError, match="out of order"):
                reading()

    @pytest.mark.parametrize("scheme", [QUIET], ids=["sap"])
    def test_a_vector_of_another_length_from_an_older_write(self, stock):
        """Which the metric cannot tell from the newer, but `get` can."""
        things, burglar = stock["things"], stock["burglar"]
        vector = oracle.vectors(1)
        things.upsert(["id-0"], vector)
        row = burglar.rows()[-1]
        older = burglar.read(row, "vector")
        things.upsert(["id-0"], 2 * vector)
        burglar.write(burglar.rows()[-1], {"vector": older})
        with pytest.raises(errors.AuthenticationError):
            things.get(["id-0"])

    # What is not found without a manifest, so that nobody believes otherwise.

    def test_not_found_a_record_taken_away(self, stock):
        burglar = stock["burglar"]
        burglar.remove(burglar.rows()[0])
        assert stock["things"].get(["id-0"]) == []
        assert stock["place"].connect().collection("things").get(["id-0"]) == []

    def test_not_found_a_whole_record_rolled_back(self, stock):
        """Every part of one record's own older version: authentic, in its place, and old."""
        burglar = stock["burglar"]
        burglar.write(burglar.rows()[0], stock["older"])
        (record,) = stock["place"].connect().collection("things").get(["id-0"])
        assert record.document == "old"
        np.testing.assert_array_equal(record.vector, stock["old"])
        assert stock["things"].verify().ok
