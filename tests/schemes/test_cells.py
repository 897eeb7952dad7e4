"""Cells: drawn by id alone, each under a rotation of its own, and together no different from the whole."""

import numpy as np
import pytest

from encvec_store.data import by_version, partition_of, partitions_of, version_of
from encvec_store.errors import SchemeError
from encvec_store.schemes import scheme
from encvec_store.schemes.cells import MAX_CELLS
from encvec_store.schemes.profile import fit
from encvec_store.schemes.sap import Sap
from tests.schemes.test_profile import points
from tests.schemes.test_sap import CONTEXT, ROOT, correlation, encrypt, tokens

DIM, K, CELLS = 40, 20, 7
SAMPLE = points(3000, DIM, decay=0.95)
PROFILE = fit(SAMPLE).profile(K)
NAMES = tokens(len(SAMPLE))
OTHERS = [("b", *CONTEXT[1:]), ("acme", "b", CONTEXT[2]), (*CONTEXT[:2], bytes(16))]


def keyed(spec, root=ROOT, context=CONTEXT):
    built = scheme(spec)
    if built.needs_profile:
        built = built.fitted(PROFILE)
    return built.keyed(root, context, DIM, PROFILE)


def sketches(rows):
    """What is rotated."""
    w = (rows - PROFILE.mean) @ (PROFILE.basis / np.sqrt(PROFILE.eigenvalues))
    return w / np.linalg.norm(w, axis=1, keepdims=True)


SPECS = [{"name": "sap", "beta": 0.0}, {"name": "sketch", "beta": 0.0}]
NOISY = [{"name": "sap", "beta": 2.0, "query_beta": 1.0}, {"name": "sketch", "beta": 3.6, "query_beta": 1.8}]


@pytest.mark.parametrize("spec", [*SPECS, *NOISY], ids=str)
def test_one_cell_is_none(spec):
    """The stored format of collections without cells is what it was: known answers hold that to its bytes."""
    rows = SAMPLE[:50]
    whole, one = keyed(spec), keyed(spec | {"cells": 1})
    for mine, theirs in zip(encrypt(whole, rows, NAMES[:50]), encrypt(one, rows, NAMES[:50]), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(whole.encrypt_queries(rows), one.encrypt_queries(rows))
    assert (one.cells, set(one.cells_of(NAMES))) == (1, {0})
    assert one.aligned(rows, NAMES[:50]) is rows


def test_sizes_are_those_of_a_fair_draw():
    """Multinomial: chi-square of six degrees of freedom, and neither far too large nor far too even."""
    squares = []
    for collection in map(str, range(40)):
        cells = keyed({"name": "sap", "cells": CELLS}, context=("acme", collection, b"")).cells_of(NAMES)
        assert cells.dtype == np.int64
        counts = np.bincount(cells, minlength=CELLS)
        assert counts.sum() == len(NAMES)
        expected = len(NAMES) / CELLS
        squares.append(((counts - expected) ** 2 / expected).sum())
    # the mean of 40 such has mean 6 and standard deviation sqrt(12 / 40)
    assert 6 - 4 * (12 / 40) ** 0.5 < np.mean(squares) < 6 + 4 * (12 / 40) ** 0.5
    assert max(squares) < 30


def test_cells_depend_on_the_id_and_the_key_alone():
    mine = keyed({"name": "sap", "cells": CELLS}).cells_of(NAMES)
    for same in (
        keyed({"name": "sap", "beta": 3.0, "cells": CELLS}),
        keyed({"name": "sketch", "beta": 3.6, "cells": CELLS}),
    ):
        np.testing.assert_array_equal(same.cells_of(NAMES), mine)
    np.testing.assert_array_equal(mine[:10], keyed({"name": "sap", "cells": CELLS}).cells_of(NAMES[:10]))
    for other in ({"root": bytes(32)}, *({"context": other} for other in OTHERS)):
        drawn = keyed({"name": "sap", "cells": CELLS}, **other).cells_of(NAMES)
        assert abs((drawn == mine).mean() - 1 / CELLS) < 0.03


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_together_they_are_the_whole(spec):
    """Without noise: products of queries and records are those without cells, each in its own cell."""
    whole, cells = keyed(spec), keyed(spec | {"cells": CELLS})
    records, queries = SAMPLE[:400], SAMPLE[400:430]
    of = cells.cells_of(NAMES[:400])
    stored, asked = encrypt(cells, records, NAMES[:400])[0], cells.encrypt_queries(queries)
    assert asked.shape == (CELLS, 30, stored.shape[1])
    products = np.einsum("nqk,nk->qn", asked[of], stored)
    expected = whole.encrypt_queries(queries)[0] @ encrypt(whole, records, NAMES[:400])[0].T
    if spec["name"] == "sap":  # whose scale is drawn anew
        products, expected = (part / np.abs(part).max() for part in (products, expected))
    np.testing.assert_allclose(products, expected, atol=3e-5)


@pytest.mark.parametrize("spec", NOISY, ids=str)
def test_noise_is_that_of_the_whole(spec):
    """Of the same size, deterministic, and of every record its own."""
    cells, rows = keyed(spec | {"cells": CELLS}), SAMPLE[:500]
    quiet = keyed(spec | {"cells": CELLS, "query_beta": 0.0})
    stored, nonces = encrypt(cells, rows, NAMES[:500])
    again = encrypt(quiet, rows[::-1], NAMES[:500][::-1])
    np.testing.assert_array_equal(again[1][::-1], nonces)
    np.testing.assert_allclose(again[0][::-1], stored, atol=1e-6)
    assert len(np.unique(nonces, axis=0)) == 500
    if spec["name"] == "sketch":
        np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-5)
        cosines = np.sum(cells.aligned(stored, NAMES[:500]) * sketches(rows), axis=1)
        square = (spec["beta"] / 4) ** 2 * K / (K + 2)  # mean square length of a point of the ball
        assert abs(cosines.mean() - (1 + square) ** -0.5) < 0.02
    noisy, plain = cells.encrypt_queries(rows[:40]), quiet.encrypt_queries(rows[:40])
    assert not np.allclose(noisy, plain, atol=0.05)
    np.testing.assert_array_equal(noisy, cells.encrypt_queries(rows[:40]))
    errors = noisy - plain
    assert abs(correlation(errors[0], errors[1])) < 0.1, "and of every cell its own"


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_no_two_cells_share_a_rotation(spec):
    """One vector under ids of all cells: without noise their ciphertexts are those of independent rotations."""
    cells = keyed(spec | {"cells": CELLS})
    of = cells.cells_of(NAMES)
    chosen = [int(np.flatnonzero(of == cell)[0]) for cell in range(CELLS)]
    turned = []
    for row in SAMPLE[:200]:
        stored = encrypt(cells, np.repeat(row[None], CELLS, axis=0), NAMES[chosen])[0]
        turned.append(stored / np.linalg.norm(stored, axis=1, keepdims=True))
    across = np.einsum("nck,ndk->cd", turned, turned) / len(turned)
    np.testing.assert_allclose(np.diag(across), 1, atol=1e-5)
    assert np.abs(across - np.diag(np.diag(across))).max() < 0.25
    # nor with the rotation without cells, nor with that of another number of cells
    alone = encrypt(keyed(spec), SAMPLE[:200], NAMES[:200])[0]
    more = encrypt(keyed(spec | {"cells": CELLS + 1}), SAMPLE[:200], NAMES[:200])[0]
    mine = encrypt(cells, SAMPLE[:200], NAMES[:200])[0]
    for other in (alone, more):
        cosines = np.sum(mine * other, axis=1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(other, axis=1)
        assert abs(cosines.mean()) < 0.25


def test_a_known_cell_tells_nothing_of_another():
    """Least squares from all plaintexts and ciphertexts of one cell, noiseless: perfect there, chance elsewhere."""
    cells = keyed({"name": "sketch", "beta": 0.0, "cells": 3})
    stored, of = encrypt(cells, SAMPLE, NAMES)[0], cells.cells_of(NAMES)
    w = sketches(SAMPLE)
    turn = np.linalg.lstsq(w[of == 0], stored[of == 0], rcond=None)[0]
    guesses = stored @ turn.T
    at_home = np.sum(guesses[of == 0] * w[of == 0], axis=1).mean()
    abroad = np.sum(guesses[of != 0] * w[of != 0], axis=1).mean()
    assert at_home > 0.999
    assert abs(abroad) < 0.1


def test_a_point_at_the_centre():
    cells = keyed({"name": "sketch", "beta": 0.0, "cells": CELLS})
    rows = np.repeat(PROFILE.mean[None], 20, axis=0)
    for out in (encrypt(cells, rows, NAMES[:20])[0], cells.encrypt_queries(rows[:2]).reshape(-1, K)):
        np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-5)
        assert np.abs(out @ out.T - np.eye(len(out))).max() < 0.9 or len(out) == 2 * CELLS


def test_nothing_to_encrypt():
    for spec in NOISY:
        cells = keyed(spec | {"cells": CELLS})
        width = DIM if spec["name"] == "sap" else K
        assert encrypt(cells, SAMPLE[:0], NAMES[:0])[0].shape == (0, width)
        assert cells.encrypt_queries(SAMPLE[:0]).shape == (CELLS, 0, width)
        with pytest.raises(SchemeError, match="sealed record"):
            cells.decrypt(np.zeros((1, width), np.float32), NAMES[:1])


def test_rotations_above_the_dense_ones():
    wide = Sap(0.0, cells=2).keyed(ROOT, CONTEXT, 1030)
    rows = np.eye(1030, dtype=np.float32)[:6]
    stored, of = encrypt(wide, rows, NAMES[:6])[0], wide.cells_of(NAMES[:6])
    asked = wide.encrypt_queries(rows)
    products = np.array([asked[cell, i] @ stored[i] for i, cell in enumerate(of)])
    np.testing.assert_allclose(products, products[0], rtol=1e-4)
    assert set(of) == {0, 1}


@pytest.mark.parametrize("cells", [0, -1, True, 1.5, "2", MAX_CELLS + 1])
@pytest.mark.parametrize("name", ["sap", "sketch"])
def test_bad_numbers(name, cells):
    with pytest.raises(SchemeError, match=f"{name}: cells must be an integer from 1 to {MAX_CELLS}"):
        scheme({"name": name, "cells": cells})


def test_parameters():
    """Without cells they are what they were, so that settings that were stored stay the same."""
    assert scheme("sap").parameters() == scheme({"name": "sap", "cells": 1}).parameters() == {
        "beta": 2.0, "query_beta": 0.0
    }  # fmt: skip
    assert scheme({"name": "sap", "cells": 4}).parameters()["cells"] == 4
    assert "cells" not in scheme("sketch").parameters()
    one = scheme({"name": "sketch", "cells": 1})
    assert one.parameters()["cells"] == 1, "asked for: no more are taken by themselves"
    for spec in ({"name": "sap", "cells": 4}, {"name": "sketch", "cells": 4}):
        again = scheme({"name": spec["name"], **scheme(spec).parameters()})
        assert again == scheme(spec)
        assert scheme(spec).accepts(again)
        assert not scheme(spec | {"cells": 5}).accepts(again)
    assert scheme({"name": "sketch", "cells": 4}).accepts(scheme("sketch"))


def test_partitions():
    """One number for a key version and a cell; without cells it is the version, as it was."""
    assert partition_of(7) == 7
    for version in (1, 2**32 - 1):
        for cell in (0, 1, MAX_CELLS - 1):
            number = partition_of(version, cell)
            assert version_of(number) == version
            assert partitions_of(version, np.array([cell])) == [number]
            assert 0 < number < 2**44
    assert by_version({partition_of(2, 1): 5, partition_of(1): 3, partition_of(2): 4}) == {1: 3, 2: 9}
