"""Cells: pairs known in one of them break that one, and leave every other at chance."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from encvec_store.crypto.profile import fit
from encvec_store.crypto.schemes.sap import Sap
from encvec_store.crypto.schemes.sketch import Sketch
from encvec_store.leakage import ATTACKS, VIEWS, Case
from encvec_store.leakage.algebra import unit
from encvec_store.leakage.data import text_like

pytestmark = pytest.mark.leakage

DIM, K, CELLS, PAIRS = 40, 20, 3, 200
VECTORS, CORPUS = text_like(3000, DIM, seed=1)[0], text_like(3000, DIM, seed=2)[0]
TOKENS = np.random.default_rng(0).integers(0, 256, (len(VECTORS), 16), dtype=np.uint8)


def identified(ciphertexts, truth, known, known_vectors):
    """The most that any attack with pairs identifies of ciphertexts, among as many plaintexts."""
    stacked = np.concatenate([known, ciphertexts])
    pairs, best = np.arange(len(known)), 0.0
    case = Case(stacked, CORPUS, np.random.default_rng(0), 0.25, None, None, pairs, known_vectors)
    for attack in ATTACKS.values():
        if attack.holds != "pairs" or attack.name == "pairs-permutation":
            continue
        for name in attack.views:
            view = VIEWS[name](case)
            located = unit(attack.run(view, case)[len(known) :])
            named = (located @ unit(view.frame(truth)).T).argmax(axis=1)
            best = max(best, float((named == np.arange(len(truth))).mean()))
    return best


@pytest.mark.parametrize("name", ["sap", "sketch"])
def test_pairs_of_one_cell_say_nothing_of_another(name):
    profile = fit(VECTORS).profile(K)
    scheme = Sap(1.0, cells=CELLS) if name == "sap" else Sketch(beta=1.0, cells=CELLS).fitted(profile)
    keyed = scheme.keyed(bytes(range(32)), "", "leakage", DIM, profile)
    stored, of = keyed.encrypt(VECTORS, TOKENS)[0], keyed.cells_of(TOKENS)
    (mine, other) = (np.flatnonzero(of == cell) for cell in (0, 1))
    known, rest = mine[:PAIRS], mine[PAIRS : PAIRS + 500]
    there = other[:500]
    at_home = identified(stored[rest], VECTORS[rest], stored[known], VECTORS[known])
    abroad = identified(stored[there], VECTORS[there], stored[known], VECTORS[known])
    assert at_home > 0.6, "else the attack proves nothing"
    assert abroad <= 0.02, "chance is .002"
