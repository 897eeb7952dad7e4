"""Attacks begin with the files of a real store: they break a sketch, and under `sealed` have nothing to begin with."""

import numpy as np
import pytest

pytest.importorskip("scipy")

import encvec_store as ev
from encvec_store import low_level
from encvec_store.errors import InputError
from encvec_store.lab.leakage import ATTACKS, Holdings, attack_hauls, beginnings, guessed, hauls, stolen
from encvec_store.lab.leakage.data import text_like
from encvec_store.schemes import profile

pytestmark = pytest.mark.leakage

DIM, N, CLASSES, UPSERT = 40, 1_200, 20, 60
(VICTIM, MINE), (CORPUS, THEIRS) = (text_like(N, DIM, seed=seed, topics=CLASSES) for seed in (3, 4))
SKETCH = {"name": "sketch", "k": 32, "beta": 3.0}
TEXT = "words " * 40


def lengths(labels):
    """A long text for some classes."""
    return 1 + labels * 7 % CLASSES


def filled(store, what):
    things = store.collection("docs", DIM, scheme=what, fields={"topic": "plain", "secret": "blind"})
    for start in range(0, N, UPSERT):
        rows = range(start, start + UPSERT)
        things.upsert(
            [str(i) for i in rows],
            VICTIM[start : start + UPSERT],
            metadata=[{"topic": int(MINE[i]), "secret": f"s{MINE[i]}"} for i in rows],
            documents=[TEXT * int(lengths(MINE)[i]) for i in rows],
        )
    return things


def taken(url, things):
    """Return what is stolen, and where each of its records is in VICTIM."""
    haul = hauls(stolen(url))["docs"]
    at = {int(row): i for i, row in enumerate(low_level.places(things, [str(i) for i in range(N)]))}
    return haul, np.array([at[row] for row in haul.rows.tolist()])


@pytest.fixture(params=["files", "postgresql"])
def url(request, tmp_path):
    if request.param == "files":
        return f"faiss:{tmp_path}/store"
    return request.getfixturevalue("pg_place").url


def most(*given, **more):
    """Return the most that each attack names in any view."""
    rows = attack_hauls(*given, noise=SKETCH["beta"] / 4, **more)
    return {name: max(row["identified"] for row in rows if row["attack"] == name) for name in more["attacks"]}


def test_a_sketch_falls_to_what_its_files_hold(url, monkeypatch):
    monkeypatch.setattr(profile, "LEAST_RECORDS", 100)
    keyset = ev.Keyset.create("memory:")
    with ev.connect(url, keyset=keyset, maintenance="inline") as store:
        things = filled(store, SKETCH)
        first, places = taken(url, things)
        held = things.index_vectors([str(i) for i in places[:5]])
        assert np.allclose(held, first.vectors[:5], atol=1e-3)
        dumps = [first]
        for _ in range(2):
            keyset.rotate()
            things.rekey()
            dump, again = taken(url, things)
            assert (places == again).all(), "sealing anew keeps the order"
            dumps.append(dump)
        second = dumps[1]
    assert (places // UPSERT == np.arange(N) // UPSERT).all(), "writes come in their order, records of one do not"
    assert {line.amount for line in beginnings(stolen(url))} == {"can begin"}
    truth, labels = VICTIM[places], {"topic": THEIRS.tolist(), "secret": [f"s{one}" for one in THEIRS]}
    others = Holdings(CORPUS, labels, None, False, np.arange(20), truth[:20])
    best = most([first], others, truth, attacks=["pairs-expectation"])
    # Of 48 keys, two withstood it: .60 and .66. The lab reports the most over at least three keys.
    best["classes"] = max(most([dump], others, truth, attacks=["classes"])["classes"] for dump in dumps)
    sizes = np.zeros(N, np.int64)
    sizes[places] = first.sizes  # what the same texts come to
    same = Holdings(VICTIM, {"secret": MINE.tolist()}, sizes, ordered=True)
    best |= most([first, second], same, truth, attacks=["tokens", "sizes", "order", "snapshots"])
    assert min(best.values()) > 0.7, best
    mixed = Holdings(CORPUS, {"topic": np.random.default_rng(0).permutation(THEIRS).tolist()})
    assert most([first], mixed, truth, attacks=["classes"])["classes"] < 0.03
    with pytest.raises(InputError, match="one vector for each of 1200 records, got 5"):
        attack_hauls([first], mixed, truth[:5], noise=1.0)


def test_sealed_gives_no_attack_on_vectors_anything_to_begin_with(url):
    """What is left is order and sizes, for somebody who has the very same texts."""
    with ev.connect(url, keyset=ev.Keyset.create("memory:"), maintenance="manual") as store:
        things = filled(store, "sealed")
        haul, places = taken(url, things)
    lines = beginnings(stolen(url))
    assert {(line.amount, line.tells) for line in lines} == {("nothing to begin with", "there are no index vectors")}
    assert {name for line in lines for name in line.what.removeprefix("attacks: ").split(", ")} == set(ATTACKS)
    assert haul.vectors is None
    assert haul.plain["topic"] == [(MINE[place],) for place in places], "a field that was declared plain shows"
    assert len(set(haul.blind)) == CLASSES
    known = Holdings(VICTIM, {"topic": MINE.tolist()}, haul.sizes, True, np.arange(900), VICTIM[places[:900]])
    assert attack_hauls([haul, haul], known, VICTIM[places], noise=1.0) == []
    sizes, rng = np.zeros(N, np.int64), np.random.default_rng(0)
    sizes[places] = haul.sizes

    def named(**looks):
        return np.mean([(guessed(haul, sizes, rng, **looks) == places).mean() for _ in range(20)])

    assert named(ordered=False, sized=False) == pytest.approx(1 / N, abs=1 / N)
    assert named(ordered=True, sized=False) == pytest.approx(1 / UPSERT, rel=0.3)
    assert named(ordered=False, sized=True) == pytest.approx(len(set(haul.sizes)) / N, rel=0.3)
    assert named(ordered=True, sized=True) > 0.15
