"""Runs are told in rows, can be stopped and go on, and refuse what makes no sense; the command line on top."""

import json
import os
import signal
import sys

import numpy as np
import pytest

pytest.importorskip("scipy")

from encvec_store.cli.app import run as encvec
from encvec_store.errors import EncvecError, InputError
from encvec_store.lab.leakage import Experiment, run, subject, worst
from encvec_store.lab.leakage.data import text_like

pytestmark = pytest.mark.leakage

DIM = 24
VICTIM, CORPUS = text_like(400, DIM, seed=1)[0], text_like(300, DIM, seed=2)[0]


def trial(**changes):
    given = {"attacks": ["naive", "coordinates"], "sizes": [100], "keys": 2, "adversaries": ["disjoint", "same"]}
    given["subjects"] = [("shuffle", subject("shuffle", DIM))]
    return Experiment(VICTIM, CORPUS, **(given | changes))


def test_rows_are_json_and_complete():
    calls = []
    rows = run(trial(), progress=calls.append)
    assert len(rows) == len(calls) == trial().trials() == 8
    for row in json.loads(json.dumps(rows)):
        assert row.keys() >= {
            "subject", "parameters", "attack", "view", "adversary", "pairs", "corpus", "n", "key", "identified",
            "ci_low", "ci_high", "chance", "cosine", "cosine_centered", "candidates", "recall@10", "seconds",
            "versions",
        }  # fmt: skip
        assert row["chance"] == 0.01
        assert row["recall@10"] == {"10": 1.0, "50": 1.0, "100": 1.0}, "a shuffle without noise loses nothing"
    (first, second) = sorted(worst(rows), key=lambda row: row["adversary"])
    assert first["keys"] == second["keys"] == 2
    assert first["attack"] == "coordinates"
    assert first["identified"] >= first["identified_median"] > 0.5


def test_a_run_is_repeatable():
    assert timeless(run(trial(keys=1))) == timeless(run(trial(keys=1)))


def test_a_stopped_run_goes_on(tmp_path):
    out = tmp_path / "rows.jsonl"
    whole = run(trial(), out)
    lines = out.read_text().splitlines(keepends=True)
    assert len(lines) == len(whole) == 8
    out.write_text("".join(lines[:5]) + lines[5][:40])  # killed while a row was written
    assert len(run(trial(), out)) == 8
    assert [json.loads(line)["key"] for line in out.read_text().splitlines()] == [row["key"] for row in whole]
    assert len(run(trial(), out)) == 8, "nothing is tried twice"
    assert len(out.read_text().splitlines()) == 8


def timeless(rows):
    """Rows without their seconds, in an order of their own."""
    return sorted(json.dumps({k: v for k, v in row.items() if k != "seconds"}, sort_keys=True) for row in rows)


def test_processes_share_a_run(tmp_path):
    out = tmp_path / "rows.jsonl"
    given = {"attacks": ["coordinates", "pca-icp", "pairs-permutation"], "enough": 0.5}
    alone, calls = run(trial(**given)), []
    together = run(trial(**given), out, calls.append, jobs=2)
    assert timeless(together) == timeless(alone)
    assert len(calls) == trial(**given).trials()
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:3]))  # stopped
    assert timeless(run(trial(**given), out, jobs=2)) == timeless(alone)
    assert len(out.read_text().splitlines()) == len(lines)


class Deadly:
    """A subject whose process is killed, as by a system that runs out of memory; or that an error of ours stops."""

    oversample = 10

    def __init__(self, says=None):
        self.says = says

    def grown(self, records, sample):
        return self

    def parameters(self):
        return {}

    def keyed(self, key, profile):
        if self.says is not None:
            raise InputError(self.says)
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_process_that_ends_is_told(tmp_path):
    for victim, error, message in (
        (Deadly(), EncvecError, "was killed.*fewer jobs"),
        (Deadly("no"), InputError, "^no$"),
        (lambda: None, InputError, "jobs must be 1 .* pickled"),
    ):
        experiment = trial(subjects=[("deadly", victim)])
        with pytest.raises(error, match=message):
            run(experiment, jobs=2)


def test_what_is_broken_is_attacked_no_more(tmp_path):
    given = {"attacks": ["coordinates", "pca-icp", "cliques"], "keys": 1, "enough": 0.5}
    out = tmp_path / "rows.jsonl"
    rows = run(trial(**given), out)
    assert {(row["attack"], row["adversary"]) for row in rows} == {("coordinates", "disjoint"), ("coordinates", "same")}
    assert min(row["identified"] for row in rows) > 0.5
    assert len(run(trial(**given), out)) == len(rows), "nor by a run that goes on"
    held = {(row["attack"], row["adversary"]) for row in run(trial(**given | {"enough": None}))}
    assert held >= {("pca-icp", "disjoint"), ("pca-icp", "same"), ("cliques", "same")}
    assert ("cliques", "disjoint") not in held, "it finds the very same records only"


@pytest.mark.parametrize(
    "changes",
    [
        {"attacks": ["voodoo"]},
        {"adversaries": ["nobody"]},
        {"sizes": [401]},
        {"sizes": [9]},
        {"sizes": []},
        {"corpus": CORPUS[:, :3]},
        {"victim": np.full_like(VICTIM, np.nan)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_bad_input_is_refused(changes):
    given = {"victim": VICTIM, "corpus": CORPUS, "subjects": [], "sizes": [100]}
    with pytest.raises(InputError):
        Experiment(**(given | changes))


def test_unknown_subject_is_refused():
    with pytest.raises(InputError, match="sketch"):
        subject("voodoo", DIM)
    with pytest.raises(InputError, match="30"):
        subject("sketch", 40, k=30).keyed(0, VICTIM)


def test_command_line(tmp_path, capsys):
    np.save(tmp_path / "own.npy", np.concatenate([VICTIM, CORPUS]) * 3)
    arguments = [
        "leakage",
        "--jobs=1",
        "--data",
        str(tmp_path / "own.npy"),
        "-n",
        "200",
        "--trials",
        "1",
        "--attack",
        "coordinates",
    ]
    assert encvec([*arguments, "--subject", "shuffle"]) == 0, "a control that breaks is as it should be"
    shown, said = capsys.readouterr()
    assert "shuffle" in shown
    assert "coordinates, raw" in shown
    assert encvec([*arguments, "--subject", "shuffle", "--json"]) == 0
    *rows, about = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert about["properties"]["sentence"] in said
    assert {row["adversary"] for row in rows} == {"disjoint", "same"}
    assert rows[0]["corpus"] == "own"


def test_command_line_says_when_a_scheme_breaks(tmp_path, capsys):
    np.save(tmp_path / "own.npy", VICTIM)
    np.save(tmp_path / "corpus.npy", VICTIM[::-1])
    code = encvec(
        ["leakage", "--jobs=1", "--data", str(tmp_path / "own.npy"), "--corpus", str(tmp_path / "corpus.npy"),
         "--subject", "sap", "--beta", "0.4", "-n", "400", "--trials", "1", "--attack", "pca-icp",
         "--adversary", "disjoint"]
    )  # fmt: skip
    assert code == 1
    assert "pca-icp" in capsys.readouterr().out


def test_command_line_refuses(tmp_path, capsys):
    np.save(tmp_path / "zero.npy", np.zeros((100, 8)))
    assert encvec(["leakage", "--data", str(tmp_path / "zero.npy")]) == 2
    assert encvec(["leakage", "--corpus", str(tmp_path / "zero.npy")]) == 2
    assert encvec(["leakage", "--attack", "voodoo", "-n", "50"]) == 2
    assert "voodoo" in capsys.readouterr().err
    assert encvec(["leakage", "--list"]) == 0
    assert "components" in capsys.readouterr().out
