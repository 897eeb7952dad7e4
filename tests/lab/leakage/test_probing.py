"""Probes say what they must of controls and of the default, as rows that go on, on the command line, in the page."""

import json
from functools import cache

import numpy as np
import pytest

pytest.importorskip("scipy")

from encvec_store.cli.app import run as encvec
from encvec_store.errors import InputError
from encvec_store.lab.leakage import PROBES, Experiment, Known, probe, run, subject, worst_probes
from encvec_store.lab.leakage.algebra import unit
from encvec_store.lab.leakage.data import text_like
from encvec_store.lab.leakage.findings import leaks, part

pytestmark = pytest.mark.leakage

DIM, K, N = 40, 20, 400
(VICTIM, TOPICS), (CORPUS, OTHERS) = text_like(800, DIM, seed=1), text_like(1500, DIM, seed=2)
BRIEF = {"sizes": [N], "keys": 1, "name": "texts", "views": ("raw", "centred", "sphere")}
LABELS = Known(labels=(TOPICS, OTHERS))


def trial(name, beta=0.0, **changes):
    subjects = [(name, subject(name, DIM, k=K, beta=beta))]
    return Experiment(VICTIM, CORPUS, subjects, **(BRIEF | changes))


@cache
def found(name, beta=0.0, only=None):
    """Probe -> row."""
    return {row["probe"]: row for row in probe(trial(name, beta), LABELS, only=only)}


def test_rows_are_json_and_complete():
    rows = json.loads(json.dumps(list(found("plain").values())))
    assert {row["probe"] for row in rows} == set(PROBES) - {"identities", "accuracy", "cells", "joining"}, (
        "nobody is known, and there are no cells"
    )
    for row in rows:
        assert row.keys() == {
            "subject", "parameters", "probe", "corpus", "n", "key", "measure", "value", "chance", "null", "details",
            "seconds", "versions",
        }  # fmt: skip
        assert -1e-9 <= row["chance"] <= 1
        assert row["null"] >= row["chance"] - 1e-9


@pytest.mark.parametrize("name", ["haar", "plain", "shuffle"])
def test_new_keys_link_what_only_turns(name):
    row = found(name)["linkage"]
    assert row["value"] > 0.9 > row["null"] + 0.5
    assert row["details"]["rank_1"] > 0.9


@pytest.mark.parametrize("name", ["plain", "shuffle"])
def test_what_keeps_coordinates_tells_topics_and_members(name):
    rows = found(name)
    assert rows["attributes"]["value"] > rows["attributes"]["null"] + 0.3
    assert rows["membership"]["value"] > 0.95


def test_the_default_stays_where_luck_is():
    """With the noise of its floor; but who knows some records' topics reads others' from their neighbourhood."""
    rows = found("sketch", 5.0)
    assert rows["linkage"]["value"] <= rows["linkage"]["null"] + 0.05
    assert len(rows["linkage"]["details"]["tried"]) == 6, "the maximum over all linkers"
    assert rows["membership"]["value"] <= rows["membership"]["null"] + 0.02
    assert rows["attributes"]["value"] <= rows["attributes"]["null"] + 0.02
    assert rows["norms"]["value"] <= rows["norms"]["null"]
    assert rows["attributes-known"]["value"] > rows["attributes-known"]["null"] + 0.1


def test_fresh_noise_averages_out_and_own_records_give_the_map():
    rows = found("shuffle-sap", 2.5, ("averaging", "chosen-plaintext"))
    assert rows["averaging"]["value"] > rows["averaging"]["null"] + 0.1
    assert rows["chosen-plaintext"]["value"] > 0.6
    assert rows["chosen-plaintext"]["details"]["length"] == 100, "norms that drown the noise are let in"
    ours = found("sketch", 5.0, ("chosen-plaintext",))["chosen-plaintext"]
    assert ours["details"]["length"] == 1, "a store puts what it is given on the sphere"
    assert ours["value"] > ours["null"], "even so, who has own records stored learns something of the map"


def test_lengths_tell_where_they_are_kept():
    (row,) = probe(trial("norm-kept", 0.5), only=["norms"])
    assert row["value"] > row["null"] + 0.1


def people(count=400, pictures=3):
    """Vectors of people, one of each enrolled, and their other pictures."""
    rng = np.random.default_rng(0)
    faces = np.repeat(VICTIM[:count], pictures, axis=0)
    faces = unit(faces + 0.06 * rng.standard_normal(faces.shape).astype(np.float32))
    ids, first = np.repeat(np.arange(count), pictures), np.arange(count * pictures) % pictures == 0
    return faces[first], faces[~first], Known(identities=(ids[first], ids[~first]))


def test_identities():
    enrolled, others, known = people()
    subjects = [("plain", subject("plain", DIM)), ("sketch", subject("sketch", DIM, k=K, beta=5.0))]
    trials = Experiment(enrolled, others, subjects, sizes=[len(enrolled)], keys=1, candidates=[10, len(enrolled)])
    rows = {(r["subject"], r["probe"]): r for r in probe(trials, known, only=["identities", "accuracy"])}
    caught = rows["plain", "identities"]
    assert caught["value"] > 0.8
    assert caught["value"] == pytest.approx(caught["details"]["unprotected"], abs=0.03)
    held = rows["sketch", "identities"]
    assert held["value"] <= held["null"]
    assert held["chance"] == 1 / len(enrolled)
    rates = rows["sketch", "accuracy"]
    details = rates["details"]
    assert rates["value"] == rates["null"] == details["plain"]["eer"], "re-rank of all is what the originals give"
    assert details["ciphertexts"]["eer"] > details["plain"]["eer"] + 0.02
    assert details["reranked"]["10"]["rank_1"] < details["reranked"][str(len(enrolled))]["rank_1"]


def test_rows_go_on_beside_those_of_attacks(tmp_path):
    out = tmp_path / "rows.jsonl"
    cheap = ["averaging", "norms"]
    mixed = trial("shuffle", attacks=["naive", "coordinates"], keys=2, adversaries=["disjoint"])
    attacks = run(mixed, out)
    whole = probe(mixed, out=out, only=cheap)
    assert (len(attacks), len(whole)) == (4, 4)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:6]) + lines[6][:40])  # killed while a row was written
    calls = []
    again = probe(mixed, out=out, only=cheap, progress=calls.append)
    assert len(calls) == 4
    assert [(row["probe"], row["key"], row["value"]) for row in again] == [
        (row["probe"], row["key"], row["value"]) for row in whole
    ]
    assert len(run(mixed, out)) == len(attacks), "attacks do not stumble over probes"
    assert len(out.read_text().splitlines()) == 8
    (averaged, lengths) = worst_probes(again)
    assert averaged["keys"] == lengths["keys"] == 2
    assert lengths["value"] >= lengths["median"]


def test_what_no_attack_can_look_at_is_left_out():
    """`coordinates` compares as many coordinates as the vectors have; a sketch has fewer."""
    blind = trial("sketch", 5.0, attacks=["coordinates"])
    assert [row["probe"] for row in probe(blind, LABELS, only=["membership", "attributes", "norms"])] == ["norms"]


@pytest.mark.parametrize(
    ("known", "only"),
    [(Known(), ["voodoo"]), (Known(labels=(TOPICS, OTHERS[1:])), None), (Known(identities=(OTHERS, TOPICS)), None)],
    ids=["probe", "labels", "identities"],
)
def test_bad_input_is_refused(known, only):
    with pytest.raises(InputError):
        probe(trial("plain"), known, only=only)


def test_findings_are_called_by_their_distance_from_luck():
    def level(value, null=0.5):
        row = {**found("plain")["membership"], "value": value, "null": null, "chance": 0.5}
        ((finding,), _) = part([json.dumps(row)])
        return finding.level, finding.sentence()

    assert level(0.49)[0] == level(0.5)[0] == "chance"
    assert [level(value)[0] for value in (0.51, 0.6, 0.9)] == ["little", "leaks", "broken"]
    assert "could only guess" in level(0.5)[1]
    assert "90.0% of cases" in level(0.9)[1]


def test_findings_of_keys_stand_together():
    rows = [{**found("haar")["linkage"], "key": key, "value": value} for key, value in enumerate((0.5, 0.7, 0.6))]
    findings, rest = part([*map(json.dumps, rows), json.dumps({"attack": "naive"}), '{"probe": 1', "", None])
    assert len(rest) == 4
    (one,) = leaks(findings)
    assert (one.worst("linkage").key, one.bounds("linkage"), one.control) == (1, (0.5, 0.7), True)
    assert "match: D_sys 0.700 of 1" in one.worst("linkage").sentence()


def test_command_line(tmp_path, capsys):
    from tests.lab.leakage.test_report import Page

    data, labels, html, out = (tmp_path / name for name in ("own.npy", "labels.npy", "report.html", "rows.jsonl"))
    np.save(data, np.concatenate([VICTIM[:300], CORPUS[:300]]))
    np.save(labels, np.array([f"topic {topic}" for topic in [*TOPICS[:300], *OTHERS[:300]]]))
    arguments = ["leakage", "--jobs=1", "--data", str(data), "--labels", str(labels), "--probes", "--subject",
                 "shuffle", "-n", "200", "--trials", "1", "--attack", "coordinates", "--out", str(out)]  # fmt: skip
    assert encvec([*arguments, "--html", str(html)]) == 0
    shown = capsys.readouterr().out
    for word in ("linkage", "d_sys", "membership", "attributes-known", "by luck"):
        assert word in shown
    page = Page(html.read_text())
    assert "Linkable, renewable, member or not" in page.text
    assert "Stolen under two keys" in page.text
    kept = [json.loads(line) for line in out.read_text().splitlines()]
    linked = next(row for row in kept if row.get("probe") == "linkage")
    assert {linked["value"], linked["null"]} <= set(page.values)
    assert encvec([*arguments, "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()][:-1] == kept, "nothing was tried twice"


def test_command_line_with_people(tmp_path, capsys):
    enrolled, others, known = people(200)
    for name, content in (("a", enrolled), ("b", others), ("who", np.concatenate(known.identities))):
        np.save(tmp_path / f"{name}.npy", content)
    a, b, who, html = (str(tmp_path / name) for name in ("a.npy", "b.npy", "who.npy", "report.html"))
    assert encvec(["leakage", "--jobs=1", "--data", a, "--corpus", b, "--labels", who, "--people", "--probes",
                   "--subject", "plain", "--attack", "naive", "-n", "200", "--trials", "1",
                   "--html", html]) == 0  # fmt: skip
    assert "identities" in capsys.readouterr().out
    text = (tmp_path / "report.html").read_text()
    assert "Does the right one come up?" in text
    assert "re-rank of 200" in text


def test_command_line_refuses(tmp_path, capsys):
    np.save(tmp_path / "own.npy", VICTIM)
    np.save(tmp_path / "few.npy", TOPICS[:5])
    (tmp_path / "no.npy").write_bytes(b"text")
    own = ["leakage", "--data", str(tmp_path / "own.npy"), "-n", "100"]
    assert encvec([*own, "--labels", str(tmp_path / "few.npy")]) == 2
    assert encvec([*own, "--probes", "--people"]) == 2
    assert encvec(["leakage", "--probes", "--labels", str(tmp_path / "few.npy")]) == 2
    for name in ("few", "no", "missing"):
        assert encvec([*own, "--probes", "--labels", str(tmp_path / f"{name}.npy")]) == 2
    assert "labels" in capsys.readouterr().err
    assert encvec(["leakage", "--list"]) == 0
    assert "membership" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ the page


def told(**changes):
    given = {
        "subject": "sketch", "parameters": {"k": 250, "beta": 5.0}, "probe": "linkage", "measure": "d_sys",
        "corpus": "texts", "n": 4000, "key": 0, "value": 0.027, "chance": 0.0, "null": 0.031,
        "details": {"rank_1": 0.0003, "curve": [[-0.2, 0.0], [0.2, 0.1]]}, "versions": {"numpy": "2.0"},
    }  # fmt: skip
    return given | changes


def rates():
    some = {"eer": 0.0247, "tar@0.01": 0.95, "tar@0.001": 0.88, "rank_1": 0.81}
    details = {"plain": some, "ciphertexts": some | {"eer": 0.0612}, "reranked": {"500": some}}
    return told(probe="accuracy", measure="eer", value=0.0247, chance=0.5, null=0.0247, details=details)


def test_a_page_of_probes_alone():
    text = page_of([told(), rates(), told(subject="haar", value=1.0)]).text
    assert "matched no better than by luck (D_sys 0.027 of 1; luck gives up to 0.031)" in text
    assert "A new key undoes no theft." in text
    assert "1 controls, built to leak" in text
    assert "ciphertexts alone 6.1%" in text
    assert "re-rank of 500 2.5%" in text
    assert "numpy 2.0" in text
    assert "Every attack" not in text


def test_rows_of_attacks_alone_say_nothing_of_probes():
    from tests.lab.leakage.test_report import row

    text = page_of([row()]).text
    assert "Linkable" not in text
    assert "right one come up" not in text


@pytest.mark.parametrize("field", ["subject", "probe", "measure", "corpus"])
def test_text_of_probes_stays_text(field):
    from tests.lab.leakage.test_report import HOSTILE

    found = page_of([told(), told(corpus="other"), told(value=0.03, **{field: HOSTILE}), rates()])
    assert not any(tag in ("script", "img") for tag, _ in found.tags)
    assert HOSTILE in found.text


@pytest.mark.parametrize(
    "bad",
    [
        told(value=float("nan")),
        told(value=7),
        told(n=0),
        told(details=[1]),
        told(details={"curve": [[0.0, float("inf")]]}),
        told(details={"curve": [[0.0]]}),
        told(value=0.9, details={"rank_1": "x"}),
        told(probe="averaging", measure="cosine", details={}),
        told(probe="averaging", measure="cosine", details={"copies": "<b>"}),
        rates() | {"details": {}},
        {"probe": "linkage"},
        told() | {"parameters": 3},
    ],
    ids=lambda bad: str(bad)[-40:],
)
def test_what_is_no_finding_is_left_out_and_told(bad):
    found = page_of([json.dumps(bad), told()])
    assert "1; 1 lines were no rows and are left out" in found.text
    with pytest.raises(InputError):
        page_of([bad])


def page_of(rows):
    from encvec_store.lab.leakage.report import page
    from tests.lab.leakage.test_report import Page

    return Page(page(rows))
