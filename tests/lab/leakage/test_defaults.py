"""What is attacked is what a collection is: with its parameters by default, or as a store holds it."""

import json

import numpy as np
import pytest

pytest.importorskip("scipy")

import encvec_store as ev
from encvec_store.cli.app import run as encvec
from encvec_store.errors import InputError
from encvec_store.lab.leakage import CONTROLS, Experiment, run, subject
from encvec_store.lab.leakage.data import text_like
from encvec_store.lab.leakage.metrics import scores
from encvec_store.lab.leakage.stored import read
from encvec_store.schemes import scheme

pytestmark = pytest.mark.leakage

DIM, N = 24, 5_200
VECTORS = text_like(N, DIM, seed=1)[0]
IDS = [str(i) for i in range(N)]
COARSE = {"name": "sap", "beta": 0.2}


@pytest.fixture
def keyset(monkeypatch):
    monkeypatch.setenv("LAB_KEYS", "")
    return ev.Keyset.create("env:LAB_KEYS")


@pytest.fixture
def home(keyset, tmp_path, monkeypatch):
    monkeypatch.setenv("ENCVEC_KEYS", "env:LAB_KEYS")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").mkdir()
    return tmp_path


def test_a_subject_is_what_a_collection_comes_to(keyset):
    """No table of the lab's own: dimensions, noise and candidates are those that a collection chose for itself."""
    with ev.connect("memory:", keyset=keyset, maintenance="inline") as store:
        things = store.collection("things", dim=DIM, scheme="sketch")
        things.upsert(IDS, VECTORS)
        stats = things.stats()
        vectors = np.stack([record.vector for record in things.scroll()])  # the simulation draws queries by position
    standing = subject("sketch", DIM).grown(N, vectors)
    parameters = {name: value for name, value in stats["scheme"].items() if name not in ("name", "profile")}
    assert dict(standing.parameters()) == parameters
    assert standing.oversample == stats["oversample"] > 10
    given = subject("sketch", DIM, k=20, beta=1.5).grown(N, VECTORS).parameters()
    assert (given["k"], given["beta"]) == (20, 1.5), "what is asked for stays"


def test_controls_take_what_a_sketch_has():
    sketch = subject("sketch", DIM).grown(N, VECTORS).parameters()
    for name in sorted(CONTROLS):
        found = subject(name, DIM, sample=VECTORS).parameters()
        assert found.get("k") in (None, sketch["k"]), name
        assert found.get("beta") in (0.0, scheme("sap").noise, sketch["beta"]), name
    with pytest.raises(InputError, match="needs k"):
        subject("norm-kept", DIM, beta=1.0)


def test_rows_say_how_many_candidates_the_owner_ranks():
    experiment = Experiment(VECTORS, VECTORS[::-1], [("sketch", subject("sketch", DIM))], ["naive"], [1000], 1)
    for row in run(experiment):
        assert (row["parameters"]["k"], row["candidates"]) == (
            DIM,
            10 * subject("sketch", DIM).grown(1000, VECTORS).oversample,
        )
        assert 0.9 < row["recall@10"][str(row["candidates"])] <= 1.0


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_collection_is_attacked_as_it_is_stored(keyset, metric):
    with ev.connect("memory:", keyset=keyset) as store:
        things = store.collection("things", dim=DIM, metric=metric, scheme={"name": "sap", "beta": 0.02, "cells": 2})
        things.upsert(IDS[:900], VECTORS[:900])
        keyset.rotate()
        things.upsert(IDS[900:1000], VECTORS[900:1000])
        stored = read(things, 5_000)
        records = list(things.scroll())
        held = things.index_vectors([record.id for record in records])
        assert len(np.unique(stored.partitions)) == stored.parameters()["cells"] == 4, "cells under two keys"
        assert {row.tobytes() for row in stored.index_vectors} == {row.tobytes() for row in held}
        rows = np.arange(1000)
        index_vectors, cells = stored.at_rest(rows)
        asked = stored.ask(stored.points[:50])
        best = scores(index_vectors, asked, cells).argmax(axis=1)
        assert np.mean(best == np.arange(50)) > 0.9, "points, index vectors, cells and queries go together"
        with pytest.raises(InputError, match="as it is"):
            stored.store(stored.points)


def test_command_line_attacks_a_collection(home, keyset, capsys):
    with ev.connect(f"faiss://{home / 'store'}", keyset=keyset, maintenance="inline") as store:
        store.collection("weak", dim=DIM, scheme=COARSE).upsert(IDS[:1200], VECTORS[:1200])
        store.collection("new", dim=DIM).upsert(IDS[:100], VECTORS[:100])
        store.collection("usual", dim=DIM, scheme="sketch").upsert(IDS, VECTORS)
        usual = store.collection("usual").stats()
    options = ["-n", "500", "--trials", "1", "--attack", "pca-icp", "--adversary", "same", "--json"]
    assert encvec(["leakage", "--collection", "weak", *options]) == 1, "its records are named"
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert max(row["identified"] for row in rows) > 0.5
    assert {(row["subject"], row["corpus"], row["parameters"]["beta"]) for row in rows} == {
        ("sap", "collection weak", 0.2)
    }
    code = encvec(["leakage", "--collection", "usual", *options, "--html", "page.html"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == int(max(row["identified"] for row in rows) > 0.01)
    for row in rows:
        assert row["parameters"]["beta"] == usual["scheme"]["beta"]
        assert row["candidates"] == min(500, 10 * usual["oversample"])
    assert "--collection usual" in (home / "page.html").read_text()
    assert encvec(["leakage", "--collection", "new", *options[:-1], "--html", "new.html"]) == 0
    assert "nothing to attack" in capsys.readouterr().err
    assert "a stolen copy of 100 stored records gives nothing beyond sizes" in (home / "new.html").read_text()
    assert encvec(["leakage", "--store", f"faiss://{home / 'store'}", "--html", "store.html"]) == 0
    told = (home / "store.html").read_text()
    assert "a stolen copy of 100 stored records gives nothing beyond sizes" in told, "of the collection that is sealed"
    assert "geometry: neighbours, clusters" in told, "of the others"
    capsys.readouterr()
    np.save("other.npy", VECTORS[:300])
    assert encvec(["leakage", "--collection", "weak", "--corpus", "other.npy", *options]) == 1
    np.save("wide.npy", np.ones((50, DIM + 1)))
    assert encvec(["leakage", "--collection", "weak", "--corpus", "wide.npy", *options]) == 2
    for more in (["--beta", "1"], ["--probes"], ["--data", "other.npy"], ["--subject", "sap"]):
        assert encvec(["leakage", "--collection", "weak", *more]) == 2, more


def test_command_line_says_what_is_sealed(home, capsys):
    np.save("few.npy", VECTORS[:400])
    page = ["--html", "page.html", "--out", "rows.jsonl"]
    code = encvec(["leakage", "--jobs=1", "--data", "few.npy", "--quick", "--attack", "pca-icp", "--json", *page])
    printed = capsys.readouterr()
    rows = [row for line in printed.out.splitlines() if "attack" in (row := json.loads(line))]
    assert code == int(max(row["identified"] for row in rows) > 0.01)
    assert {row["subject"] for row in rows} == {"sketch", "sap"}
    assert "attacking sketch and sap: under sealed, the default, a store has no index vectors" in printed.err
    assert "still sealed" in printed.err
    text = (home / "page.html").read_text()
    assert "a stolen copy of 200 stored records gives nothing beyond sizes and counts" in text
    kept = [json.loads(line) for line in (home / "rows.jsonl").read_text().splitlines()]
    (copied,) = (row for row in kept if "copied" in row)
    (order,) = (row for row in kept if row.get("subject") == "sealed")
    assert (copied["records"], copied["index_vectors"], copied["plain"]) == (200, 0, False), "a real store was read"
    assert order["chance"] == 0.01, "two writes of a hundred"
    assert order["identified"] < 0.05


def test_a_few_vectors_give_the_profile_of_many_like_them():
    few, many = subject("sketch", DIM).grown(5000, VECTORS[:2000]), subject("sketch", DIM).grown(5000, VECTORS)
    assert few.parameters() == many.parameters()
    values = np.linalg.eigvalsh(np.cov(VECTORS[:2000], rowvar=False, bias=True))[::-1]
    held = few.profile.eigenvalues
    assert np.allclose(held, values[: len(held)], rtol=0.01), "each vector counts as often as another"
