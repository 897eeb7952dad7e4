"""The lab's positive controls: attacks break what must break, on built-in vectors, with fixed seeds."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from encvec_store.lab.leakage import ATTACKS, VIEWS, Case, Experiment, attack_arrays, run, subject, worst
from encvec_store.lab.leakage.algebra import ball, float32, haar, mutual, procrustes, raised, unit
from encvec_store.lab.leakage.attacks import BESIDE
from encvec_store.lab.leakage.attacks.graphs import matching
from encvec_store.lab.leakage.attacks.independent import fastica, match
from encvec_store.lab.leakage.data import text_like
from encvec_store.lab.leakage.metrics import hits
from encvec_store.lab.leakage.subjects import SUBJECTS

pytestmark = pytest.mark.leakage

DIM, K, N = 40, 20, 1000
VICTIM, CORPUS = text_like(3000, DIM, seed=1)[0], text_like(3000, DIM, seed=2)[0]


def identified(name, attack, view, adversary="disjoint", *, n=N, beta=1.2, k=K, pairs=20):
    """Worst of a trial: the share of records identified."""
    trial = Experiment(
        VICTIM,
        CORPUS,
        [(name, subject(name, DIM, k=k, beta=beta))],
        attacks=[attack],
        sizes=[n],
        keys=1,
        adversaries=[adversary],
        pairs=[pairs],
        views=[view],
    )
    (row,) = run(trial)
    assert row["ci_low"] <= row["identified"] <= row["ci_high"]
    return row["identified"]


@pytest.mark.parametrize(
    ("name", "attack", "view", "adversary"),
    [
        ("plain", "naive", "raw", "disjoint"),
        ("public-constant", "naive", "raw", "disjoint"),
        ("shuffle", "coordinates", "raw", "disjoint"),
        ("shuffle-sap", "coordinates", "raw", "disjoint"),
        ("haar", "pca-icp", "centred", "disjoint"),
        ("sap", "pca-icp", "centred", "disjoint"),
        ("sap", "profiles", "centred", "same"),
        ("foreign-statistics", "pca-icp", "public", "same"),
        ("half-whitening", "pca-icp", "recoloured", "same"),
        ("haar", "wasserstein-procrustes", "centred", "same"),
        ("sap", "mini-vec2vec", "centred", "same"),
        ("norm-kept", "components", "whitened", "same"),
    ],
    ids=str,
)
def test_breaks(name, attack, view, adversary):
    assert identified(name, attack, view, adversary) > 0.5


def test_whitening_without_noise_falls_to_independent_components():
    """Of 1,000 records they are too uncertain: there luck decides which keys fall."""
    assert identified("no-noise", "components", "whitened", "same", n=2900) > 0.5


@pytest.mark.parametrize(
    ("name", "attack", "view"),
    [
        ("shuffle-sap", "pairs-permutation", "raw"),
        ("sap", "pairs-rotation", "centred"),
        ("sap", "pairs-ridge", "centred"),
        ("sketch", "pairs-anchored", "sphere"),
    ],
    ids=str,
)
def test_pairs_break_everything(name, attack, view):
    """Some tens of known pairs are the end of each scheme of this family."""
    assert identified(name, attack, view, pairs=40) > 0.5


def test_many_records_under_a_key_break_a_sketch():
    """The finding that set the budgets: full whitening on the sphere, with noise, falls to independent components."""
    assert identified("sketch", "components", "sphere", "same", n=2500) > 0.5


def test_few_records_do_not_hide_from_who_has_the_texts():
    """A hundred or two under one key, among many more texts: their mutual similarities give them away."""
    assert identified("sketch", "cliques", "sphere", "same", n=150, beta=1.2) > 0.5


def test_naive_attack_proves_nothing():
    assert identified("haar", "naive", "raw") < 0.02


def test_few_records_under_a_key_stay_at_chance():
    """Who has other texts of the kind needs many records under one key; who has these very texts does not."""
    attacks = ["pca-icp", "components", "fobi"]
    trial = Experiment(
        VICTIM, CORPUS, [("sketch", subject("sketch", DIM, k=K, beta=3.5))], attacks, [100], 1, ["disjoint"]
    )
    rows = run(trial)
    assert len(rows) == 5
    for row in worst(rows):
        assert row["identified"] <= 0.08, row
        assert row["recall@10"]["100"] == 1.0


def test_arrays_alone_suffice():
    """A thief has arrays: no scheme, no key."""
    keyed = subject("sap", DIM, beta=1.0).keyed(3, VICTIM)
    (row, *_) = attack_arrays(keyed.store(VICTIM[:N]), VICTIM[:N], CORPUS, noise=0.25, attacks=["pca-icp"])
    assert row["identified"] > 0.5
    assert row["cosine_centered"] > 0.4


def test_sap_is_the_real_scheme():
    """Ciphertexts come from the scheme's own code: a rotation, a scale in [1/2, 2], noise of radius beta / 4."""
    keyed = subject("sap", DIM, beta=2.0).keyed(1, VICTIM)
    stored = keyed.store(VICTIM[:200])
    (asked,) = keyed.ask(VICTIM[:200])
    away = np.linalg.norm(stored - asked, axis=1)
    scale = np.linalg.norm(asked, axis=1)
    assert np.allclose(scale, scale[0], rtol=1e-5)
    assert (away <= 0.5 * scale * 1.0001).all()
    assert (away > 0.3 * scale).mean() > 0.9
    assert keyed.noise == 0.5


def test_every_attack_runs_in_every_view_of_its_own():
    keyed = subject("shuffle-sap", DIM, beta=1.0).keyed(0, VICTIM)
    stored = keyed.store(VICTIM[:120])
    known = np.arange(30)
    groups = {name: (np.arange(120) % 7, np.arange(150) % 7) for name in BESIDE}
    rng = np.random.default_rng(0)
    case = Case(stored, CORPUS[:150], rng, keyed.noise, None, unit, known, VICTIM[:30], groups, (stored[:, ::-1],))
    for attack in ATTACKS.values():
        for name in attack.views:
            seen = VIEWS[name](case)
            located = attack.run(seen, case)
            assert located.shape == seen.frame(VICTIM[:120]).shape, (attack.name, name)
            assert np.isfinite(located).all(), (attack.name, name)


# ------------------------------------------------------------------------------------------ the parts


def test_procrustes_recovers_a_rotation():
    rng = np.random.default_rng(0)
    points, turn = rng.standard_normal((50, 8)).astype(np.float32), haar(8, rng)
    assert np.allclose(procrustes(points, points @ turn), turn, atol=1e-4)


def test_procrustes_survives_a_decomposition_that_does_not_converge(monkeypatch):
    rng = np.random.default_rng(0)
    points, turn, svd = rng.standard_normal((50, 8)).astype(np.float32), haar(8, rng), np.linalg.svd

    def fails_once(matrix):
        monkeypatch.setattr(np.linalg, "svd", svd)
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", fails_once)
    assert np.allclose(procrustes(points, points @ turn), turn, atol=1e-4)


def test_mutual_neighbours_find_the_same_points():
    rng = np.random.default_rng(0)
    points = unit(rng.standard_normal((200, 10)).astype(np.float32))
    order = rng.permutation(200)
    rows, columns, cosines = mutual(points, points[order])
    assert (order[columns] == rows).all()
    assert len(rows) > 150
    assert np.allclose(cosines, 1, atol=1e-5)


def test_independent_components_are_found_and_matched_under_a_rotation():
    rng = np.random.default_rng(0)
    sources = rng.exponential(1.0, (4000, 6)).astype(np.float32) ** (1 + 0.15 * np.arange(6, dtype=np.float32))
    sources = (sources - sources.mean(axis=0)) / sources.std(axis=0)
    left, right = haar(6, rng), haar(6, rng)
    mine, theirs = fastica(sources @ left, rng), fastica(sources @ right, rng)
    for side, turn in ((mine, left), (theirs, right)):
        side *= np.where(((sources @ turn @ side) ** 3).mean(axis=0) < 0, -1, 1).astype(np.float32)
    a, b = match(sources @ left @ mine, sources @ right @ theirs, rng)
    assert sorted(a) == sorted(b) == list(range(6))
    assert np.allclose(left @ mine[:, a] @ theirs[:, b].T, right, atol=0.15)


def test_classes_tell_which_component_is_which():
    """Turned around, these sources look the same, but for the class in which each is large."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, (2, 2000))
    large = np.stack([np.arange(8), 7 - np.arange(8)])
    one, other = (float32(rng.exponential(1.0, (2000, 8)) + large[side]) for side in classes)
    order = rng.permutation(8)
    for named, expected in ((classes[1], order), (1 - classes[1], 7 - order)):
        a, b = match(one[:, order], other, rng, (classes[0], named))
        assert (b[np.argsort(a)] == expected).all()


def test_graphs_are_matched_by_every_kind_of_edge():
    """Neither the nodes nor one kind of edges tells which is which; a graph of fewer nodes finds its part."""
    rng = np.random.default_rng(0)
    one, other = (np.triu(rng.integers(0, 2, (12, 12)).astype(float), 1) for _ in range(2))
    order = rng.permutation(12)
    part = order[:9]
    edges = [(side[np.ix_(part, part)], side) for side in (one, other)]
    found = matching([(a - 0.5, b - 0.5) for a, b in edges], np.zeros((9, 12)), rng)
    assert (found == part).all()


def test_densities_alone_match_components_that_are_independent():
    """The control of AK-ICA is what its authors assume: independent sources, each of another distribution."""
    rng = np.random.default_rng(0)
    vectors = (rng.exponential(1.0, (6000, 4)) ** (1 + 0.5 * np.arange(4))).astype(np.float32) @ haar(4, rng)
    stored = vectors[:3000] @ haar(4, rng)
    seen = VIEWS["whitened"](Case(stored, vectors[3000:], rng))
    located = ATTACKS["ak-ica"].run(seen, Case(stored, vectors[3000:], rng))
    assert hits(unit(located), unit(seen.frame(vectors[:3000])), np.arange(3000)).mean() > 0.1


def test_powers_are_those_of_numpy():
    values = np.random.default_rng(0).uniform(-1, 1, (20, 30)).astype(np.float32)
    for power in range(1, 10):
        assert raised(values, power).dtype == np.float32
        assert np.allclose(raised(values, power), values.astype(np.float64) ** power, rtol=1e-5)


def test_ball_is_uniform():
    lengths = np.linalg.norm(ball(20_000, 5, np.random.default_rng(0)), axis=1)
    assert lengths.max() <= 1
    assert abs((lengths**5).mean() - 0.5) < 0.01


def test_table_of_subjects_is_complete():
    for name in SUBJECTS:
        keyed = subject(name, DIM, k=K, beta=1.2).keyed(0, VICTIM)
        stored, cells = keyed.spread(VICTIM[:20])
        assert stored.shape == keyed.ask(VICTIM[:20])[0].shape
        assert cells.max() < len(keyed.ask(VICTIM[:1]))
