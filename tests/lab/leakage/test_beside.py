"""What stands beside index vectors breaks a sketch: classes, tokens, sizes, order, snapshots, a few pairs."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from encvec_store.errors import InputError
from encvec_store.lab.leakage import Experiment, run, subject
from encvec_store.lab.leakage.attacks import BESIDE
from encvec_store.lab.leakage.data import text_like

pytestmark = pytest.mark.leakage

DIM, K, N, CLASSES = 40, 32, 1_500, 20
(VICTIM, MINE), (CORPUS, THEIRS) = (text_like(2_500, DIM, seed=seed, topics=CLASSES) for seed in (3, 4))
ATTACKS = ("classes", "tokens", "sizes", "order", "snapshots", "pairs-expectation")


def named(adversary, attacks=ATTACKS, labels=(MINE, THEIRS), view="sphere", **changes):
    """Return the rows of a sketch by attack."""
    sizes = None if labels is None else tuple(256 + 16 * (side * 7 % CLASSES) for side in labels)
    given = {"sizes": (N,), "keys": 1, "pairs": (15,), "upsert": 50, "dumps": 4, "views": (view,)}
    given |= {"labels": labels, "sizes_shown": sizes, "adversaries": (adversary,)} | changes
    what = [("sketch", subject("sketch", DIM, k=K, beta=3.5))]
    return {row["attack"]: row for row in run(Experiment(VICTIM, CORPUS, what, attacks, **given))}


def test_what_stands_beside_index_vectors_breaks_a_sketch():
    """Its noise hides it from whoever has index vectors alone, also with the very same texts."""
    same, others = named("same", ("components", *ATTACKS)), named("disjoint", ("components", *ATTACKS))
    for row in (same.pop("components"), others.pop("components")):
        assert row["identified"] < 0.01, row
    assert same.keys() == set(ATTACKS)
    assert others.keys() == set(ATTACKS) - {"sizes", "order"}
    for row in same.values():
        assert row["identified"] > 0.7, row
    assert all(others[name]["identified"] > 0.7 for name in ("classes", "pairs-expectation")), others
    assert others["tokens"]["identified"] > 0.15, "a blind field that other texts have too"
    assert {row["beside"] for row in same.values() if "beside" in row} == set(BESIDE)
    assert (same["classes"]["chance"], same["tokens"]["chance"]) == (CLASSES / N, 1 / N)
    assert (same["order"]["chance"], same["snapshots"]["chance"]) == (N / 50 / N, 1 / N)


def test_what_tells_nothing_gains_nothing():
    """Classes that have nothing to do with the vectors, one dump, and one upsert of everything."""
    wrong = np.random.default_rng(0).permutation(MINE)
    found = named("disjoint", ("classes", "tokens"), (wrong, THEIRS))
    assert max(row["identified"] for row in found.values()) < 0.02, found
    found = named("same", ("order", "snapshots"), upsert=N, dumps=1)
    assert found.keys() == {"order"}
    assert found["order"]["identified"] < 0.02
    assert named("same", ("classes", "tokens", "sizes"), labels=None) == {}


def test_cells_do_not_hide_classes():
    what = [("sketch", subject("sketch", DIM, k=K, beta=2.0, cells=3))]
    labelled = Experiment(
        VICTIM, CORPUS, what, ("classes", "snapshots"), (N,), 1, ("disjoint",), labels=(MINE, THEIRS), views=("sphere",)
    )
    found = {(row["attack"], row["cells"]): row["identified"] for row in run(labelled)}
    assert found.keys() == {("classes", "together"), ("classes", "each")}, "cells of two keys do not belong together"
    assert found["classes", "each"] > 0.5 > 0.1 > found["classes", "together"]


@pytest.mark.parametrize(
    "changes", [{"labels": (MINE[:-1], THEIRS)}, {"upsert": 0}, {"dumps": 0}], ids=lambda given: next(iter(given))
)
def test_refused(changes):
    with pytest.raises(InputError):
        named("same", **changes)
