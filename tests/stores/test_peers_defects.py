"""Defects that were seen in stores of this kind, a test each: the property that must hold here."""

import itertools

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import errors, low_level
from encvec_store.crypto import blobs, envelope
from encvec_store.schemes import cells, noise, sap, sketch
from encvec_store.schemes import fit_profile as fit
from tests.kits import oracle
from tests.stores.contract.tampering import flipped
from tests.stores.test_faiss import OpenedFaiss
from tests.stores.test_memory import OpenedMemory

DIM = 32


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


@pytest.fixture(params=["memory", "faiss"])
def place(request, keyset, tmp_path):
    return OpenedMemory(keyset) if request.param == "memory" else OpenedFaiss(keyset, tmp_path / "data")


@pytest.fixture
def store(place):
    store = place.connect()
    yield store
    store.close()


def test_1_scopes_of_keys_do_not_run_into_each_other(place, store):
    """("a", "b-c") and ("a-b", "c") are two scopes, whatever stands between the parts."""
    scopes = [
        ("a", "b-c"),
        ("a-b", "c"),
        ("a-b-c", "x"),
        ("", "a-b-c"),
        ("ab", "c"),
        ("a", "bc"),
        ("a/b", "c"),
        ("a", "b/c"),
    ]
    scopes += [("s\x01", "b"), ("s", "\x01b"), ("1", "11"), ("11", "1")]
    vector = oracle.vectors(1, DIM)
    index, terms = {}, {}
    for tenant, name in scopes:
        things = store.collection(
            name, dim=DIM, tenant=tenant, fields={"f": "blind"}, scheme={"name": "sap", "beta": 0.0}
        )
        things.upsert(["id"], vector, [{"f": "value"}])
        index[tenant, name] = things.index_vectors(["id"])[0]
        burglar = place.burglar(name, tenant)
        (row,) = burglar.rows()
        stolen = burglar.steal(row)
        terms[tenant, name] = (stolen["token"], *[value for _, _, value in stolen["terms"]])
    for a, b in itertools.combinations(scopes, 2):
        x, y = index[a], index[b]
        assert abs(x @ y) / np.linalg.norm(x) / np.linalg.norm(y) < 0.95, "two rotations"
        assert not set(terms[a]) & set(terms[b]), "no token in common"
    mine = place.burglar("b-c", "a")
    mine.move(mine.rows()[0], place.burglar("c", "a-b"))
    with pytest.raises(errors.AuthenticationError):
        list(store.collection("c", tenant="a-b").scroll())


def test_2_no_key_serves_two_purposes(keyset, monkeypatch):
    """Every cipher of a collection has a key that no other one has, in this and in any other collection."""
    keys: list[bytes] = []

    def recorded(kind):
        def make(key, *rest):
            keys.append(bytes(key))
            return kind(key, *rest)

        return make

    for module, name in itertools.product(
        (envelope, blobs, sap, sketch, noise, cells), ("AESGCM", "Pmac", "Keystream", "rotation")
    ):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, recorded(getattr(module, name)))
    keyset.rotate()
    spectrum = fit(oracle.vectors(1000, 20))
    for tenant, collection, metric in (("a", "x", "cosine"), ("a", "y", "ip"), ("b", "x", "l2")):
        store = ev.connect("memory:", keyset=keyset)
        things = store.collection(collection, 4, metric, "sap", tenant=tenant, fields={"f": "blind"})
        keyring = low_level.session(things).keyring
        for version in (1, 2):
            keyring.codec(version, low_level.session(things).config)
            keyring._blob_cipher(version)  # noqa: SLF001
            for k in (16, 17):
                profile = spectrum.profile(k)
                fitted = sketch.Sketch().fitted(profile)
                fitted.keyed(keyset.root(version), (tenant, collection, b""), profile.dim, profile)
            spread = sketch.Sketch(cells=3).fitted(profile)
            spread.keyed(keyset.root(version), (tenant, collection, b""), profile.dim, profile)
    assert len(keys) == 3 * 2 * (8 + 6 + 2 * 5 + 1 + 3 * 5), "of the records, of sap, of two sketches, of three cells"
    assert len(set(keys)) == len(keys)
    assert not {keyset.root(1), keyset.root(2)} & set(keys), "and none of them is a root"


def test_3_formats_and_algorithms_stand_in_what_is_authenticated(place, store):
    """Data of another format, scheme, revision or key version is refused, never opened to a wrong vector."""
    things = store.collection("things", dim=DIM)
    vector = oracle.vectors(1, DIM)
    things.upsert(["a"], vector)
    burglar = place.burglar()
    (row,) = burglar.rows()
    for part in ("vector", "payload"):
        whole = burglar.read(row, part)
        for position in range(16, 28):  # format, scheme, name kind, revision, key version
            burglar.write(row, {part: flipped(whole, position)})
            with pytest.raises((errors.AuthenticationError, errors.KeyUnavailableError)):
                things.get(["a"])
        burglar.write(row, {part: whole})
    sealed = burglar.config()
    for position in range(21):  # format, key version, incarnation
        burglar.set_config(flipped(sealed, position))
        with pytest.raises((errors.AuthenticationError, errors.KeyUnavailableError)):
            place.connect().collection("things")
    burglar.set_config(sealed)
    np.testing.assert_array_equal(things.get(["a"])[0].vector, vector[0])


@pytest.mark.parametrize("scheme", ["sap", "sealed"])
def test_4_one_records_ciphertext_is_not_anothers(place, store, scheme):
    things = store.collection("things", dim=DIM, scheme=scheme)
    things.upsert(["a", "b"], oracle.vectors(2, DIM), [{"of": "a"}, {"of": "b"}])
    burglar = place.burglar()
    keyring = low_level.session(things).keyring
    token = keyring.tokens(["a"])[keyring.primary].tobytes()
    a, b = sorted(burglar.rows(), key=lambda row: burglar.read(row, "token") != token)
    for parts in (("vector",), ("payload",), ("vector", "payload", "index_vector")):
        before = burglar.steal(a)
        burglar.write(a, {part: burglar.read(b, part) for part in parts if part != "index_vector" or scheme == "sap"})
        try:
            found = things.get(["a"])
        except errors.AuthenticationError:
            found = []
        assert found == [], "refused, or not found: never b's data under a's name"
        with pytest.raises(errors.AuthenticationError):
            things.search(oracle.vectors(2, DIM)[1], k=2)
        assert not things.verify().ok
        burglar.write(a, {part: value for part, value in before.items() if part in parts and value})


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_5_writing_again_gives_nothing_to_average(store, metric):
    """A hundred upserts of one vector leave one ciphertext, with its noise in full."""
    things = store.collection("things", dim=DIM, metric=metric, max_norm=None if metric == "cosine" else 50.0)
    vector = oracle.vectors(1, DIM)
    seen = []
    for n in range(100):
        things.upsert(["a"], vector, [{"n": n}], [f"text {n}"])
        seen.append(things.index_vectors(["a"])[0])
    assert (np.array(seen) == seen[0]).all()


def test_6_the_noise_is_a_property_of_what_is_stored(place, store):
    """Whoever opens with another beta is told; a new beta comes by encrypting anew; old rows are never unreadable."""
    things = store.collection("things", dim=DIM, scheme={"name": "sap", "beta": 2.5})
    vectors = oracle.vectors(300, DIM)
    things.upsert(oracle.ids(300), vectors)
    with pytest.raises(errors.ConfigMismatchError, match=r"scheme is sap\(beta=2.5"):
        store.collection("things", scheme={"name": "sap", "beta": 1.0})
    again = place.connect().collection("things")
    assert again.stats()["scheme"]["beta"] == 2.5
    before = things.index_vectors(oracle.ids(300))
    found = things.calibrate(target_recall=0.8)
    assert found.beta != 2.5
    for reader in (again, place.connect().collection("things")):
        assert reader.stats()["scheme"]["beta"] == found.beta
        np.testing.assert_array_equal([record.vector for record in reader.get(oracle.ids(300))], vectors)
        assert reader.search(vectors[7], k=30)[0].id == "id-7"
    after = things.index_vectors(oracle.ids(300))
    cosines = (before * after).sum(axis=1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    assert np.abs(cosines).max() < 0.8, "another beta is another rotation: the difference cancels nothing"


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("scheme", ["sap", "sealed"])
def test_7_no_vector_that_breaks_the_key_or_the_search(store, metric, scheme):
    things = store.collection(
        "things", dim=DIM, metric=metric, scheme=scheme, max_norm=None if metric == "cosine" else 2.0
    )
    good = np.full((1, DIM), 0.1)
    for bad in (np.nan, np.inf, -np.inf, 1e300):
        wrong = np.vstack([good, good])
        wrong[1, 3] = bad
        with pytest.raises(errors.NonFiniteError):
            things.upsert(["a", "b"], wrong)
        with pytest.raises(errors.NonFiniteError):
            things.search(wrong)
    for bad in (np.empty((1, 0)), np.ones((1, DIM - 1)), np.ones((1, DIM + 1)), [[]]):
        with pytest.raises(errors.ShapeError):
            things.upsert(["a"], bad)
        with pytest.raises(errors.ShapeError):
            things.search(bad)
    assert things.count() == 0


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_7_no_chosen_vector_outshines_the_noise(store, metric):
    """Long vectors with one large coordinate each would show the map of a scheme that keeps lengths."""
    things = store.collection("things", DIM, metric, "sap", max_norm=None if metric == "cosine" else 1000.0)
    chosen = np.diag(np.linspace(1, 1000, DIM)).astype(np.float32)
    things.upsert(oracle.ids(DIM), chosen)
    lengths = np.linalg.norm(things.index_vectors(oracle.ids(DIM)), axis=1)
    assert lengths.max() / lengths.min() < 2.5, "the lengths of ciphertexts say nothing of the vectors'"
    if metric != "cosine":
        with pytest.raises(errors.NormError, match="max_norm 1000"):
            things.upsert(["a"], 1.1 * chosen[-1:])


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("beta", [0.0, 2.0, 8.0])
def test_8_scores_are_those_of_the_plaintext(store, metric, beta):
    """Whatever the noise: thresholds keep their meaning."""
    things = store.collection(
        "things", dim=DIM, metric=metric, scheme={"name": "sap", "beta": beta, "query_beta": beta / 2}
    )
    names, vectors, query = oracle.ids(50), oracle.vectors(50, DIM), oracle.vectors(1, DIM, seed=1)[0]
    things.upsert(names, vectors)
    exact = dict(zip(names, oracle.exact(metric, query, vectors), strict=True))
    hits = things.search(query, k=50)
    assert len(hits) == 50
    np.testing.assert_allclose([hit.score for hit in hits], [exact[hit.id] for hit in hits], rtol=1e-9, atol=1e-12)
    if metric == "cosine":
        assert things.search(vectors[3], k=50)[0].score == pytest.approx(1, abs=1e-12)


def test_12_a_collection_opened_twice_loses_nothing(place, store):
    """Neither opening forgets the calibration, nor overwrites the other's records or index."""
    mine = store.collection("things", dim=16, scheme="sap", oversample=50)
    vectors = oracle.vectors(400, 16)
    mine.upsert(oracle.ids(200), vectors[:200])
    other = place.connect()
    theirs = other.collection("things", dim=16)
    found = mine.calibrate(target_recall=0.9, max_candidates=200)
    theirs.upsert(oracle.ids(200, 200), vectors[200:])
    mine.flush()
    theirs.flush()
    for things in (mine, theirs, place.connect().collection("things", dim=16, scheme="sap")):
        assert things.stats()["calibration"] == found.to_dict()
        assert things.count() == 400
        assert {things.search(vector, k=20)[0].id for vector in vectors[198:202]} == set(oracle.ids(4, 198))
        assert things.verify().ok
    other.close()


def test_12_small_collections_need_no_training(store):
    """From the first record on searches are index searches, exact where there is little."""
    things = store.collection("things", dim=DIM, scheme={"name": "sap", "beta": 1.0})
    vectors = oracle.vectors(20, DIM)
    for n in range(20):
        things.upsert([f"id-{n}"], vectors[n : n + 1])
        hits = things.search(vectors[n], k=20)
        assert hits[0].id == f"id-{n}"
        assert len(hits) == n + 1
