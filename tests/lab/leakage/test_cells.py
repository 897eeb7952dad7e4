"""Cells: pairs known in one of them break that one and leave the others at chance; each is attacked by itself."""

import json
from functools import cache

import numpy as np
import pytest

pytest.importorskip("scipy")

from encvec_store.cli.app import run as encvec
from encvec_store.errors import InputError
from encvec_store.lab.leakage import ATTACKS, Case, Experiment, Known, probe, probes, run, subject, worst
from encvec_store.lab.leakage.cells import LEAST, drawn, parts, ways
from encvec_store.lab.leakage.data import text_like
from encvec_store.lab.leakage.probes import Labels

pytestmark = pytest.mark.leakage

DIM, K, CELLS, N = 40, 20, 3, 3000
(VECTORS, TOPICS), (CORPUS, OTHERS) = text_like(3500, DIM, seed=1), text_like(3000, DIM, seed=2)
PAIRED = [name for name, attack in ATTACKS.items() if attack.holds == "pairs" and name != "pairs-permutation"]


@cache
def rows(name, beta, attacks, cells=CELLS, n=N, adversary="disjoint", views=None):
    trial = Experiment(VECTORS, CORPUS, [(name, subject(name, DIM, k=K, beta=beta, cells=cells))], attacks, [n], 1,
                       [adversary], [200], views=views)  # fmt: skip
    return run(trial)


def most(found, way):
    return max(row["identified"] for row in found if row["cells"] == way)


@pytest.mark.parametrize("name", ["sap", "sketch"])
def test_pairs_of_one_cell_say_nothing_of_another(name):
    n = 2000
    found = rows(name, 1.0, tuple(PAIRED), n=n)
    assert most(found, "with pairs") > 0.6, "else the attacks prove nothing"
    # expectation-maximisation goes on with the corpus alone, which tells something of any cell of `sap`
    gained = [row for row in found if name == "sketch" or row["attack"] != "pairs-expectation"]
    assert most(gained, "without pairs") <= 0.005, "chance is .0005"
    for row in found:
        assert row["chance"] == pytest.approx(1 / n)
        assert len(row["by_cell"]) == (1 if row["cells"] == "with pairs" else CELLS - 1)
    sizes = {row["cells"]: row["counted"] for row in found}
    assert sum(sizes.values()) == n - 200, "every record but the known ones is counted once"
    assert len(worst(found)) == 2, "what has pairs and what has none are two verdicts"


def test_each_cell_is_attacked_by_itself():
    """Two rotations at once are no rotation: whoever attacks them together proves nothing."""
    found = rows("sap", 0.4, ("pca-icp",), 2, 1500, "disjoint", ("centred",))
    assert most(found, "together") < 0.05
    assert most(found, "each") > 0.5
    assert {row["cells"] for row in found} == {"together", "each"}, "draws by a key cannot be told"
    (verdict,) = worst(found)
    assert verdict["cells"] == "each"


def test_the_honest_user_asks_all_cells():
    (one,), (other, *_) = (
        rows("sketch", 1.0, ("pca-icp",), cells, 1000, "disjoint", ("centred",)) for cells in (None, CELLS)
    )
    assert "cells" not in one
    one, cut = one["recall@10"], other["recall@10"]
    assert all(cut[count] == pytest.approx(one[count], abs=0.03) for count in one)
    assert one["100"] > 0.9


@pytest.mark.parametrize("way", ["together", "each", "told", "with pairs", "without pairs"])
def test_every_record_is_counted_once_and_pairs_never(way):
    rng = np.random.default_rng(0)
    cells, sorts = np.sort(rng.integers(0, 4, 200))[rng.permutation(200)], None
    if way == "told":

        def sorts(vectors):
            return np.zeros(len(vectors), np.int64)

    paired = "pairs" in way
    known = drawn(cells, 20, rng) if paired else np.zeros(0, np.intp)
    case = Case(np.arange(200, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32), CORPUS[:50, :2], rng,
                pairs=known, pair_vectors=CORPUS[:20, :2])  # fmt: skip
    counted = []
    for part in parts(way, case, cells, sorts):
        assert (part.case.ciphertexts[:, 0] == part.rows).all(), "rows say which record each ciphertext is"
        assert (part.rows[part.case.pairs] == known).all()
        assert np.isin(part.rows[part.counted], part.among).all()
        counted += part.rows[part.counted].tolist()
    expected = set(range(200)) - set(known.tolist())
    if paired:
        assert len(set(cells[known])) == 1
        home = set(np.flatnonzero(cells == cells[known[0]]).tolist())
        expected &= home if way == "with pairs" else set(range(200)) - home
    assert sorted(counted) == sorted(expected)


def test_ways_are_those_of_the_parameters():
    assert ways({"beta": 2.0}, paired=False) == ways({"cells": 1}, paired=True) == ("",)
    assert ways({"cells": 2}, paired=True) == ("with pairs", "without pairs")
    small = np.zeros(100, np.int64)
    small[: LEAST - 1] = 1
    assert len(drawn(small, 500, np.random.default_rng(0))) == (100 - LEAST + 1) // 2, "at most half of a cell"


def test_cells_too_small_to_attack_are_not_identified():
    n = 130
    sizes = np.bincount(subject("sap", DIM, cells=12).keyed(0, VECTORS).spread(VECTORS[:n])[1])
    small = sizes < LEAST
    assert 0 < small.sum() < len(sizes) == 12
    each = [row for row in rows("sap", 2.0, ("pca-icp",), 12, n) if row["cells"] == "each"]
    assert each
    for row in each:
        assert row["counted"] == n
        assert not np.array(row["by_cell"])[small].any()


# ------------------------------------------------------------------------------------------ by content


def test_cells_by_content_break_for_whoever_knows_what_lies_in_them():
    """A cell of one topic has another covariance than the whole: whitening by somebody else's statistics."""
    found = rows("content-cells", 0.4, ("pca-icp",), 4, 2000, "same", ("public",))
    assert most(found, "told") > 0.5
    assert most(rows("sketch", 0.4, ("pca-icp",), 4, 2000, "same", ("recoloured",)), "each") < 0.05
    told = [row for row in found if row["cells"] == "told"]
    assert all(row["chance"] == pytest.approx(4 / 2000) for row in told), "he looks among the cell's records"


@cache
def leaked(name, cells):
    experiment = Experiment(VECTORS, CORPUS, [(name, subject(name, DIM, k=K, beta=5.0, cells=cells))], sizes=[N],
                            keys=1)  # fmt: skip
    found = probe(experiment, Known(labels=(TOPICS, OTHERS)), only=["cells", "attributes-known"])
    return {row["probe"]: row for row in found}


def test_content_shows_in_cells_and_draws_by_key_tell_nothing():
    told, blind = leaked("content-cells", 8), leaked("sketch", 8)
    assert told["cells"]["value"] > told["cells"]["null"] + 0.2
    assert told["cells"]["details"]["named"] > told["cells"]["details"]["named_null"] + 0.1
    assert blind["cells"]["value"] <= blind["cells"]["null"] + 0.005
    assert blind["cells"]["chance"] < blind["cells"]["null"], "cells that tell nothing agree a little with anything"
    assert leaked("sketch", None).keys() == {"attributes-known"}, "one rotation has no cells to tell of"


def test_the_page_says_what_cells_tell():
    from tests.lab.leakage.test_probing import page_of

    text = page_of(list(leaked("content-cells", 8).values())).text
    assert "What does its cell tell of a record?" in text
    assert "Which records share a cell shows. It tells" in text


def test_neighbours_are_sought_within_cells():
    """Inner products of two cells mean nothing, those of one do, and what is known of some tells of the others."""
    found = leaked("sketch", 2)["attributes-known"]
    assert found["value"] > found["null"] + 0.05


def test_queries_that_were_logged_join_cells():
    keyed = subject("sketch", DIM, k=K, beta=2.0, cells=3).keyed(0, VECTORS)
    few, many = (probes.joining(keyed, VECTORS[:500], VECTORS[500 : 500 + count]) for count in (5, 60))
    assert many["joined"] > 0.97, "as many queries as there are dimensions do"
    assert many["null"] + 0.05 < few["joined"] < 0.9
    assert abs(many["chance"]) < 0.1
    assert many["one_cell"] < 0.95, "noise is left"


def test_own_records_give_the_map_of_every_cell():
    keyed = subject("sap", DIM, beta=0.4, cells=2).keyed(0, VECTORS)
    own = text_like(2000, DIM, seed=3)[0]
    assert probes.chosen_plaintext(keyed, VECTORS[:300], own=own)["identified"] > 0.5


def test_apart_keeps_cells_apart():
    cells: Labels = np.array([0, 7, 0, 7])
    points = np.arange(8, dtype=np.float32).reshape(4, 2)
    out = probes.apart(points, cells)
    assert out.shape == (4, 6)
    assert (out[0] @ out[1], out[2] @ out[3]) == (0, 0)
    assert np.allclose(out[0, :3], [-2, -2, 1])
    assert probes.apart(points, np.zeros(4, np.int64)) is points


# ------------------------------------------------------------------------------------------ outside


def test_the_page_tells_cells_with_pairs_from_those_without():
    from tests.lab.leakage.test_probing import page_of
    from tests.lab.leakage.test_report import row

    with_, without = ({"cells": f"with{out} pairs", "pairs": 100, "counted": 300} for out in ("", "out"))
    text = page_of([row(identified=0.61, **with_), row(identified=0.0033, **without)]).text
    assert (
        "100 pairs, 61.0% (pca-icp, centred, the cell with the pairs); 0.33% (pca-icp, centred, the other cells)"
        in text
    )
    assert "With 100 known pairs in one cell: 61.0% of its other records" in text
    only = page_of([row(identified=0.0033, **without), row(identified=0.0033, **without | {"pairs": 200})]).text
    assert "Up to 200 pairs in one cell: at most 0.33% of records in other cells" in only
    with pytest.raises(InputError):
        page_of([row(**with_ | {"counted": 0})])


def test_what_knows_of_no_cells_refuses_them():
    for name in ("haar", "plain"):
        with pytest.raises(InputError, match="no cells"):
            subject(name, DIM, cells=3)


def test_command_line_and_page(tmp_path, capsys):
    from tests.lab.leakage.test_report import Page

    data, html, out = tmp_path / "own.npy", tmp_path / "page.html", tmp_path / "rows.jsonl"
    np.save(data, VECTORS[:1600])
    arguments = ["leakage", "--jobs=1", "--data", str(data), "--subject", "sap", "--cells", "2", "--beta", "0.4",
                 "-n", "800", "--trials", "1", "--attack", "pairs-rotation", "--attack", "pca-icp",
                 "--adversary", "disjoint", "--pairs", "20", "--pairs", "150", "--out", str(out),
                 "--html", str(html)]  # fmt: skip
    encvec(arguments)
    shown = capsys.readouterr().out
    assert "with pairs" in shown
    assert "without pairs" in shown
    page = Page(html.read_text())
    for words in ("each cell by itself", "the other cells", "known pairs of one cell", "cells=2",
                  "Up to 150 pairs in one cell: at most", "● all other cells"):  # fmt: skip
        assert words in page.text
    kept = [json.loads(line) for line in out.read_text().splitlines()]
    encvec([*arguments, "--json"])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()][:-1] == kept, "nothing was tried twice"
    assert encvec(["leakage", "--subject", "haar", "--cells", "2", "-n", "100"]) == 2
