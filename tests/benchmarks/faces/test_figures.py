"""docs/faces.md prints the figures of benchmarks/faces/results.json, and no others."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.faces.__main__ import _command, arguments
from benchmarks.faces.tables import OLIVETTI, RESULTS, blocks

ROOT = Path(__file__).resolve().parents[3]
RESULT = json.loads(RESULTS.read_text(encoding="utf-8"))
SMALL = json.loads(OLIVETTI.read_text(encoding="utf-8"))
BLOCKS = blocks(RESULT, SMALL)
FIGURES = re.compile(r"^\|.*\d%.*\|$", re.MULTILINE)


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def unwrapped(text):
    """Return a text whose lines may be broken elsewhere."""
    return " ".join(text.split())


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_the_page_prints_what_was_measured(name):
    assert unwrapped(BLOCKS[name]) in unwrapped(page("docs/faces.md")), (
        "paste what `python -m benchmarks.faces.tables` prints"
    )


def test_no_table_of_the_page_tells_anything_else():
    lines = {line for block in BLOCKS.values() for line in block.splitlines()}
    assert set(FIGURES.findall(page("docs/faces.md"))) <= lines


def test_the_results_are_those_of_a_full_run():
    heads = {"plaintext", "encrypted", "encrypted_normalised", "wrong_key", "aligned_without_key", "chance"}
    assert set(RESULT["accepted_at_far_1e-3"]) == set(RESULT["second_model"]["accepted_at_far_1e-3"]) == heads
    assert RESULT["command"] == _command(arguments(["--full", "--lfw", "x"])) == "ENCVEC_LFW=DIR make faces ARGS=--full"
    assert RESULT["settings"]["iterations"] == [400, 2000]
    assert RESULT["people"] >= 20
    assert "preliminary" not in RESULT
    assert RESULT["text"]["figures"]["plaintext"]["intent_accuracy"] > 0.5


def test_every_part_stands_under_every_scheme():
    """Of the Olivetti faces; a part that was not run has no row, and `blocks` fails."""
    command = SMALL["command"].replace("olivetti-64", "benchmarks/data/olivetti-64")
    assert command in unwrapped(page("docs/faces.md"))
    assert SMALL["settings"]["iterations"] == [400, 2000]
    assert SMALL["subjects"]["sealed"]["index_vectors"] == 0
    for found in SMALL["tasks"].values():
        assert set(found) == {"plaintext", "sealed", "encrypted", "sap"}
        assert found["sealed"] == pytest.approx(found["plaintext"])


def test_a_command_names_what_was_asked_and_no_folder(monkeypatch):
    monkeypatch.delenv("ENCVEC_LFW", raising=False)
    assert _command(arguments(["--iterations", "20", "--people", "5", "--out", "/x"])) == (
        'make faces ARGS="--iterations 20 --people 5"'
    )
