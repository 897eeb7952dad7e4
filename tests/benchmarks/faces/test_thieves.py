"""Today's attackers name embeddings of faces under sap, and have nothing to begin with under sealed."""

import json

import numpy as np
import pytest

pytest.importorskip("scipy")

from benchmarks.faces import thieves
from benchmarks.faces.mapping import Mapper
from benchmarks.faces.thieves import KNOWN, Holdings, attempts, rows
from encvec_store.lab.leakage.algebra import unit
from encvec_store.lab.leakage.data import text_like
from encvec_store.lab.leakage.metrics import mean_cosine

pytestmark = pytest.mark.leakage

N, DIM = 700, 24


def holdings():
    vectors = text_like(N, DIM, seed=5)[0]
    rng = np.random.default_rng(6)
    known = rng.permutation(N)[:400]
    others = unit(vectors[known] + np.float32(0.05) * rng.standard_normal((400, DIM), np.float32))
    return Holdings(vectors, np.arange(N), others, known)


def test_attackers_have_rows_and_a_sealed_store_gives_nothing():
    sealed, wrong, *others = rows(holdings(), [{"name": "sap", "beta": 1.0}])
    assert (sealed["scheme"], sealed["n"], sealed["index_vectors"]) == ("sealed", N, 0)
    assert wrong["mapped_identified"] < 0.05, "without an alignment a mapper gives strangers"
    assert abs(wrong["cosine_centered"]) < 0.3
    found = {row["what"]: row for row in others}
    assert len(found) == 6
    for what in ("a plain field shows the person", "50 known pairs, other photographs"):
        assert found[what]["identified"] > 0.5, what
        assert found[what]["cosine_centered"] > 0.5, what
    json.dumps([sealed, wrong, *others])


def test_people_of_whom_the_thief_has_nothing_are_rebuilt_with_the_others():
    held, guests = holdings(), text_like(8, DIM, seed=5)[0]
    (row, guess), *others = attempts(held.joined(guests), {"name": "sap", "beta": 1.0}, [KNOWN.format(50)])
    assert not others, "only what was asked for"
    assert row["n"] == len(guess) == N + 8
    assert mean_cosine(guess[N:], guests) > 0.8


def test_a_mapper_learns_what_is_not_linear():
    points = unit(np.random.default_rng(0).standard_normal((1_500, 6)).astype(np.float32))
    targets = unit(np.concatenate([np.abs(points), np.sign(points)], axis=1).astype(np.float32))
    guess = Mapper(points[:1_200], targets[:1_200])(points[1_200:])
    line, *_ = np.linalg.lstsq(points[:1_200], targets[:1_200], rcond=None)
    assert mean_cosine(guess, targets[1_200:]) > mean_cosine(points[1_200:] @ line, targets[1_200:]) + 0.02


def test_the_first_photograph_of_each_person_is_stored(tmp_path):
    names = np.array(["b", "a", "b", "b", "b", "b", "c"])
    np.savez(tmp_path / "faces.npz", emb=np.eye(7, dtype=np.float16), name=names)
    held = thieves.load(tmp_path / "faces.npz")
    assert held.people.tolist() == [1, 0, 2]
    assert held.vectors.argmax(axis=1).tolist() == [0, 1, 6]
    assert held.own.argmax(axis=1).tolist() == [2, 3, 4], "at most three others of each"
    assert len(thieves.load(tmp_path / "faces.npz", 1).vectors) == 1
