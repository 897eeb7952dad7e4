"""Faces come back from plaintext embeddings and not from encrypted ones, and everything else works as before."""

import dataclasses
import json
import re

import numpy as np
import pytest

from benchmarks.faces import attack
from encvec_store.errors import InputError
from tests.benchmarks.faces.conftest import SETTINGS, experiment

pytestmark = [pytest.mark.leakage, pytest.mark.slow]

LAST = "search@300"


def accepted(results, subject, way=LAST, judge="fisherfaces"):
    return results["details"][subject][way][judge]["accepted"]


def test_faces_come_back_from_plaintext(done):
    _, results = done
    assert results["people"] == 20
    assert results["iterations"] == 300
    start = results["details"]["plaintext"]["search@0"]["fisherfaces"]
    assert start["cosine_stolen"] < results["details"]["plaintext"][LAST]["fisherfaces"]["cosine_stolen"]
    for way in ("search@100", LAST, "climb@30", "ridge"):
        row = results["details"]["plaintext"][way]["fisherfaces"]
        assert row["accepted_against_stolen"] >= 0.5, way
    assert results["accepted_at_far_1e-3"]["plaintext"] >= 0.5
    assert results["details"]["plaintext"][LAST]["fisherfaces"]["cosine_stolen"] > 0.8


@pytest.mark.parametrize("subject", [
    "encrypted", "encrypted_normalised", "wrong_key", "mapper", "aligned_0", "sap", "sap_normalised", "sap_mapper",
])  # fmt: skip
@pytest.mark.parametrize("way", ["search@100", LAST, "climb@30", "ridge"])
def test_from_ciphertexts_come_strangers(done, subject, way):
    _, results = done
    for judge in results["chance"]:
        row = results["details"][subject][way][judge]
        assert row["accepted"] <= 0.2, "a verifier of old takes one stranger in a hundred; keys are fresh each time"
    row, plain = (results["details"][name][way]["fisherfaces"] for name in (subject, "plaintext"))
    assert row["cosine_stolen"] < plain["cosine_stolen"] / 3


def test_another_model_sees_the_likeness_too(done):
    """It was never attacked: for it, too, only faces from plaintext are more alike than random ones."""
    _, results = done
    alike = {name: ways[LAST]["texture"]["cosine_stolen"] for name, ways in results["details"].items()}
    chance = results["chance"]["texture"]["cosine_stolen"]
    assert alike["plaintext"] > chance + 0.04
    for name in ("encrypted", "encrypted_normalised", "wrong_key", "aligned_0"):
        assert alike[name] < chance + 0.03


def test_known_pairs_help_the_thief(done):
    """The control: were alignment broken, ciphertexts would look safe against everything."""
    _, results = done
    found = {name: results["subjects"][name]["cosine"] for name in ("aligned_0", "aligned_10", "aligned_20")}
    assert found["aligned_20"] > found["aligned_10"] > found["aligned_0"]
    assert results["subjects"]["aligned_20"]["identified"] > 20 / results["data"]["stored"]


def test_real_index_vectors_were_attacked(done):
    made, results = done
    assert results["subjects"]["encrypted"]["name"] == "sketch"
    assert results["data"]["stored"] >= 5000
    targets, _ = made.subjects
    k = results["subjects"]["encrypted"]["k"]
    assert 16 <= k <= made.model.dim
    assert not targets["encrypted"][:, k:].any()
    assert np.abs(targets["encrypted"][:, :k]).min(axis=1).max() > 0


def test_a_stolen_sealed_store_has_nothing_to_begin_with(done):
    made, results = done
    told = {"name": "sealed", "records": results["data"]["stored"], "index_vectors": 0}
    assert results["subjects"]["sealed"] == told
    assert "nothing to begin with" in (made.folder / "page.html").read_text()
    assert "sealed" not in made.subjects[0], "there is no target to attack"


def test_tasks_are_those_of_plaintext(done):
    _, results = done
    names = {"identification", "verification", "clustering", "classification", "anomaly"}
    assert set(results["tasks"]) == names
    for found in results["tasks"].values():
        for figure, plain in found["plaintext"].items():
            assert plain == pytest.approx(found["encrypted"][figure], abs=0.005), figure
            assert plain == pytest.approx(found["sap"][figure], abs=0.005), figure
            assert plain == pytest.approx(found["sealed"][figure]), figure
    assert results["tasks"]["identification"]["plaintext"]["rank_1"] > 0.8


def test_nobody_stands_on_both_sides(done):
    made, _ = done
    parts, labels = made.parts, made.photographs.labels
    assert not set(labels[parts.own]) & set(labels[parts.victims])
    assert set(parts.targets) <= set(parts.victims)
    assert (labels[parts.targets] == labels[parts.other]).all()
    assert (parts.targets != parts.other).all()
    assert all(target not in rows for target, rows in zip(parts.targets, parts.others, strict=True))


def test_the_results_file_has_its_keys(done):
    made, results = done
    kept = json.loads((made.folder / "results.json").read_text())
    assert kept == json.loads(json.dumps(results))
    heads = {"plaintext", "encrypted", "encrypted_normalised", "wrong_key", "aligned_without_key", "chance"}
    assert set(kept["accepted_at_far_1e-3"]) == heads
    assert set(kept["second_model"]["accepted_at_far_1e-3"]) == heads
    assert {"seeds", "versions", "command", "people", "iterations", "tasks"} <= set(kept)


def test_the_page_stands_alone(done):
    made, results = done
    text = (made.folder / "page.html").read_text()
    assert not re.search(r"<script|https?://|src=\"(?!data:)", text)
    plain = round(20 * results["accepted_at_far_1e-3"]["plaintext"])
    assert f"{plain} of 20" in text
    assert "AT&amp;T Laboratories Cambridge" in text
    assert text.count("<img") > 60


def test_a_stopped_run_ends_as_one_that_was_not(done, tmp_path):
    made, _ = done
    targets = made.subjects[0]["plaintext"][:3]
    given = (made.model, made.generator, made.pool, targets)
    whole = attack.search(*given, 120, seed=5)
    attack.search(*given, 70, seed=5, state=tmp_path / "state.npz")
    trace = attack.search(*given, 120, seed=5, state=tmp_path / "state.npz")
    assert trace.iteration == 120
    np.testing.assert_array_equal(trace.latents, whole.latents)


def test_another_run_in_the_same_folder_is_refused(done):
    made, _ = done
    with pytest.raises(InputError, match="another run"):
        experiment(made.folder, dataclasses.replace(SETTINGS, seed=1)).open()


def test_more_people_than_there_are_is_refused(tmp_path):
    with pytest.raises(InputError, match="30 people"):
        experiment(tmp_path, dataclasses.replace(SETTINGS, people=30))
