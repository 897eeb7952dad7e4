"""`encvec collections`, `stats`, `verify`, `drop`, `maintain`, `calibrate`."""

import sqlite3

import numpy as np
import pytest

from encvec_store import Calibration
from encvec_store.cli.calibrate import _sample
from encvec_store.lab.leakage.data import text_like
from encvec_store.maintenance import changing, verify
from tests.stores.contract import hasten

pytestmark = pytest.mark.usefixtures("docs")


@pytest.fixture
def tamper(home):
    def execute(sql, *values):
        with sqlite3.connect(home / "store" / "records.sqlite3") as database:
            changed = database.execute(sql, values).rowcount
        database.close()
        return changed

    return execute


def test_collections(home, encvec, vectors):
    np.save("a.npy", vectors)
    encvec("ingest", "faces", "a.npy", "--tenant", "acme", "--metric", "l2")
    mine = {"tenant": "", "collection": "docs", "count": 60, "dim": 8, "metric": "cosine"}
    theirs = {"tenant": "acme", "collection": "faces", "count": 300, "dim": 8, "metric": "l2"}
    assert encvec("collections", "--json").document == {"collections": [mine, theirs]}
    assert encvec("collections", "--tenant", "acme", "--json").document == {"collections": [theirs]}
    assert encvec("collections").out.split()[:5] == ["tenant", "collection", "count", "dim", "metric"]


def test_stats(encvec):
    document = encvec("stats", "docs", "--json").document
    assert document.keys() >= {"name", "tenant", "count", "dim", "metric", "scheme", "leakage", "key_versions", "store"}
    text = encvec("stats", "docs").out
    assert document["scheme"] == {"name": "sealed"}
    assert "scheme name" in text
    assert "leakage" in text


def test_drop(encvec):
    assert encvec("drop", "docs").code == 2
    assert encvec("count", "docs").out == "60\n"
    answer = encvec("drop", "docs", "--yes", "--json")
    assert answer.document == {"collection": "docs", "tenant": "", "dropped": True}
    assert encvec("collections", "--json").document == {"collections": []}
    assert encvec("collections").err == "encvec: there are no collections yet; `encvec ingest` creates one\n"


def test_verify_of_a_sound_store(encvec):
    answer = encvec("verify", "--json")
    sound = {"checked": 60, "damaged": [], "unreadable": 0, "store": [], "notes": []}
    assert answer.code == 0
    assert answer.document == {"ok": True, "collections": [{"tenant": "", "collection": "docs", "ok": True, **sound}]}
    assert encvec("verify", "docs").out.split()[:4] == ["collection", "checked", "damaged", "unreadable"]


def test_verify_finds_damage_and_exits_1(encvec, tamper):
    row = "(SELECT row FROM records ORDER BY row LIMIT 1 OFFSET 4)"
    assert tamper(f"UPDATE records SET payload = zeroblob(length(payload)) WHERE row = {row}") == 1
    answer = encvec("verify", "--json")
    assert (answer.code, answer.document["ok"]) == (1, False)
    (report,) = answer.document["collections"]
    assert [damage["part"] for damage in report["damaged"]] == ["payload"]
    assert report["damaged"][0].keys() == {"row", "id", "part"}
    plain = encvec("verify")
    assert plain.code == 1
    assert "damaged part" in plain.out


def test_verify_notes_what_is_no_damage(encvec, monkeypatch):
    monkeypatch.setattr(verify, "_older", lambda session: ["cached index: 3 writes older than the records"])
    answer = encvec("verify", "docs")
    assert answer.code == 0
    assert "encvec: docs: cached index: 3 writes older than the records" in answer.err
    assert encvec("verify", "docs", "--json").document["collections"][0]["notes"]


def test_verify_goes_on_past_a_collection_that_does_not_open(home, encvec, vectors, tamper):
    np.save("a.npy", vectors)
    encvec("ingest", "zoo", "a.npy")
    assert tamper("UPDATE collections SET config = zeroblob(length(config)) WHERE name = 'docs'") == 1
    answer = encvec("verify", "--json")
    assert answer.code == 1
    first, second = answer.document["collections"]
    assert (first["ok"], len(first["store"]), second["ok"], second["checked"]) == (False, 1, True, 300)
    listed = encvec("collections", "--json").document["collections"]
    assert (listed[0]["count"], listed[1]["count"]) == (None, 300)
    assert encvec("collections").code == 0


@pytest.fixture
def kept(home, encvec, docs, monkeypatch):
    """A store whose keys are kept in a file, so that they can be rotated."""
    monkeypatch.setenv("ENCVEC_PASSPHRASE", "x")
    (home / "two").mkdir()
    encvec("init", "two")
    monkeypatch.delenv("ENCVEC_KEYS")
    monkeypatch.setenv("ENCVEC_DIR", "two")
    assert encvec("ingest", "docs", "docs.jsonl").code == 0


@pytest.mark.usefixtures("kept")
def test_verify_does_not_call_wrong_what_it_could_not_check(encvec):
    encvec("keys", "rotate")
    encvec("keys", "disable", "1")
    answer = encvec("verify", "--json")
    assert (answer.code, answer.document["ok"]) == (2, None)
    assert answer.error["type"] == "KeyUnavailableError"
    assert encvec("verify").code == 2


@pytest.mark.usefixtures("kept")
def test_rekey(encvec):
    """All collections, or those named; what waits for a disabled version is said, and is no failure."""
    count = encvec("count", "docs", "--json").document["count"]
    encvec("keys", "rotate")
    (found,) = encvec("rekey", "--json").document["collections"]
    assert (found["collection"], found["version"], found["sealed"], found["done"]) == ("docs", 2, count, True)
    assert "VACUUM" in found["remains"]
    assert encvec("rekey", "docs").out.split()[:3] == ["collection", "key", "version"]
    encvec("keys", "destroy", "1", "--yes")
    assert encvec("verify", "--json").code == 0
    encvec("keys", "rotate")
    encvec("keys", "disable", "2")
    answer = encvec("rekey")
    assert answer.code == 2, "its settings cannot be opened"
    encvec("keys", "enable", "2")
    assert (encvec("rekey", "docs").code, encvec("rekey", "nobody").code) == (0, 2)


@pytest.mark.usefixtures("kept")
def test_tenant(encvec):
    """A tenant gets a key, with or without data, and is erased after a question."""
    assert encvec("tenant", "list").code == 0
    assert encvec("tenant", "add", "acme", "--json").document["since_version"] == 1
    for name in ("acme", "other"):
        assert encvec("ingest", "docs", "docs.jsonl", "--tenant", name).code == 0
    assert (
        encvec("tenant", "erase", "other", "--yes", "--json").error["message"].startswith("tenant 'other' has no key")
    )
    assert "pass rotate=True" in encvec("tenant", "add", "other").err
    answer = encvec("tenant", "add", "other", "--rotate")
    assert "run `encvec rekey --tenant other` now" in answer.err
    assert "rekey(tenant='other') first" in encvec("tenant", "erase", "other", "--yes").err
    assert encvec("rekey", "--tenant", "other").code == 0
    answer = encvec("tenant", "erase", "acme")
    assert (answer.code, "It has 1 collections with" in answer.err, "add --yes" in answer.err) == (2, True, True)
    answer = encvec("tenant", "erase", "acme", "--yes", "--json")
    assert (answer.document["tenant"], answer.document["collections"]) == ("acme", 1)
    assert encvec("count", "docs", "--tenant", "acme", "--json").error["type"] == "TenantErasedError"
    shown = encvec("tenant", "list", "--json").document["tenants"]
    assert [(item["tenant"], bool(item["erased"])) for item in shown] == [("acme", True), ("other", False)]
    assert "remains" in encvec("tenant", "erase", "other", "--yes").out
    assert encvec("count", "docs").code == 0
    assert encvec("tenant", "list").out.split()[:2] == ["tenant", "created"]


def test_maintain(encvec, home, vectors, monkeypatch):
    """What was not due when it was written is done on demand; and only once."""
    nothing = {"tenant": "", "collection": "docs", "done": []}
    assert encvec("maintain", "docs", "--json").document == {"collections": [nothing]}
    assert encvec("maintain").out.split()[:2] == ["collection", "done"]
    assert "nothing was due" in encvec("maintain").out
    np.save("a.npy", vectors)
    encvec("ingest", "faces", "a.npy", "--tenant", "acme", "--scheme", "sketch")
    hasten(monkeypatch)
    assert encvec("stats", "faces", "--tenant", "acme", "--json").document["profile"]["state"] == "sealed"
    done = ["fit a profile: there are 12 records or more"]
    document = encvec("maintain", "--tenant", "acme", "--json").document
    assert document == {"collections": [{"tenant": "acme", "collection": "faces", "done": done}]}
    assert encvec("stats", "faces", "--tenant", "acme", "--json").document["profile"]["state"] == "sketch"
    assert encvec("maintain", "faces", "--tenant", "acme", "--json").document["collections"][0]["done"] == []
    assert (encvec("maintain", "nobody").code, encvec("maintain", "--tenant", "none").out) == (2, "")


def test_refit(sketched, encvec, home, vectors):
    before = encvec("stats", "wide", "--json").document["profile"]["fitted"]
    answer = encvec("refit", "wide", "--json")
    assert answer.document == {"collection": "wide", "tenant": "", "refitted": True, "count": 400}
    assert before["records"] == 400
    assert encvec("verify", "wide").code == 0
    np.save("a.npy", vectors)
    encvec("ingest", "flat", "a.npy", "--scheme", "sap")
    answer = encvec("refit", "flat", "--json")
    assert (answer.code, answer.error["type"]) == (2, "CalibrationError")
    assert "has no profile" in answer.error["message"]


def test_scheme(encvec, home, docs, vectors, monkeypatch):
    hasten(monkeypatch)

    def found():
        answer = encvec("search", "docs", "--id", "r3", "--oversample", 100, "--json").document
        return [{**hit, "score": pytest.approx(hit["score"])} for hit in answer["hits"]]

    before = found()
    for scheme, was, options in (
        ("sap", "sealed", ("--beta", 1)),
        ("sealed", "sap", ()),
        ("sketch", "sealed", ("--threat", "watching-server")),
    ):
        answer = encvec("scheme", "docs", scheme, *options, "--json").document
        assert answer.pop("remains").startswith("Backups, snapshots and copies of the folder")
        assert answer == {
            "collection": "docs", "tenant": "", "before": was, "scheme": scheme, "changed": True, "records": 60,
            "resumed": 0,
        }  # fmt: skip
        assert found() == before
        assert encvec("verify", "docs").code == 0
    assert encvec("stats", "docs", "--json").document["scheme"]["gamma"] == -0.5
    answer = encvec("scheme", "docs", "sketch")
    assert (answer.code, "changed     no" in answer.out, "VACUUM" in answer.out) == (0, True, False)
    assert "run `sqlite3 records.sqlite3 VACUUM` there" in encvec("scheme", "docs", "sealed").out
    for given, kind in ((("docs", "magic"), "SchemeError"), (("none", "sap"), "CollectionNotFoundError")):
        answer = encvec("scheme", *given, "--json")
        assert (answer.code, answer.error["type"]) == (2, kind)


def test_an_interrupted_change_of_the_scheme_goes_on(encvec, home, docs, monkeypatch):
    monkeypatch.setattr(changing, "PAGE_ROWS", 25)
    real, pages = changing.anew, []

    def interrupted(*given):
        pages.append(given)
        if len(pages) in (2, 3):
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(changing, "anew", interrupted)
    answer = encvec("scheme", "docs", "sap")
    assert answer.code == 130
    assert "25 of 60 records are done; the same command does the rest" in answer.err
    left = encvec("scheme", "docs", "sap", "--json").error["change"]
    assert (left["to"], left["done"], left["records"]) == ("sap", 25, 60)
    for command in ("stats", "maintain", "verify"):
        answer = encvec(command, "docs")
        assert answer.code == 0
        assert "`encvec scheme docs sap` goes on with it" in answer.out + answer.err
    assert encvec("scheme", "docs", "sap", "--json").document["resumed"] == 25
    assert len(pages) == 5, "of 25, 25 and 10 records"
    assert encvec("stats", "docs", "--json").document["change"] is None


def test_stats_have_the_same_keys_in_every_state(encvec, home, vectors, monkeypatch):
    def keys(name):
        return {"/".join(path) for path in _paths(encvec("stats", name, "--json").document)}

    np.save("a.npy", vectors)
    for scheme in ("sketch", "sketch2"):
        encvec("ingest", scheme, "a.npy", "--scheme", "sketch", "--no-index")
    hasten(monkeypatch)
    assert encvec("maintain", "sketch2").code == 0
    assert keys("sketch") == keys("sketch2")
    profiles = [encvec("stats", name, "--json").document["profile"] for name in ("sketch", "sketch2")]
    assert [profile["state"] for profile in profiles] == ["sealed", "sketch"]
    assert profiles[0].keys() == profiles[1].keys()


def test_stats_speak_of_the_collection(encvec, home, vectors):
    """What other collections hold in the same file is not counted."""
    before = encvec("stats", "docs", "--json").document["store"]["bytes"]["records"]
    np.save("a.npy", vectors)
    encvec("ingest", "more", "a.npy")
    after = encvec("stats", "docs", "--json").document["store"]
    assert after["bytes"]["records"] == before
    assert after["file_bytes"] > before + encvec("stats", "more", "--json").document["store"]["bytes"]["records"]


def _paths(document, above=()):
    for key, value in document.items():
        if isinstance(value, dict) and key not in ("key_versions", "drift", "fitted", "partitions", "cells"):
            yield from _paths(value, (*above, key))
        else:
            yield (*above, key)


def test_maintain_goes_on_past_a_collection_that_does_not_open(encvec, home, vectors, tamper):
    np.save("a.npy", vectors)
    encvec("ingest", "zoo", "a.npy")
    assert tamper("UPDATE collections SET config = zeroblob(length(config)) WHERE name = 'docs'") == 1
    answer = encvec("maintain", "--json")
    assert answer.code == 2
    broken, fine = answer.document["collections"]
    assert (broken["done"], fine) == ([], {"tenant": "", "collection": "zoo", "done": []})
    assert "could not be authenticated" in broken["error"]
    assert "not maintained: docs" in answer.err


def test_calibrate_applies_and_reports(home, encvec, vectors):
    np.save("a.npy", vectors)
    encvec("ingest", "faces", "a.npy", "--scheme", "sap", "--beta", "0.1")
    options = ["faces", "-k", "5", "--target-recall", "0.9", "--max-candidates", "100"]
    dry = encvec("calibrate", *options, "--dry-run", "--json")
    assert dry.code == 0
    names = set(Calibration.__dataclass_fields__)
    assert dry.document.keys() == {"ok", "applied", "beta_before"} | names
    assert (dry.document["ok"], dry.document["applied"], dry.document["beta_before"]) == (True, False, 0.1)
    assert encvec("stats", "faces", "--json").document["scheme"]["beta"] == 0.1
    done = encvec("calibrate", *options, "--json").document
    assert (done["applied"], done["beta"]) == (True, dry.document["beta"])
    assert encvec("stats", "faces", "--json").document["scheme"]["beta"] == done["beta"] > 0.1
    assert encvec("verify", "faces").code == 0
    text = encvec("calibrate", *options, "--dry-run").out
    assert "Recall@5 by noise (beta) and records re-ranked:" in text
    assert "no: dry run" in text
    assert "gamma" not in text, "sap has none"


def test_calibrate_never_lowers_the_noise_in_silence(home, encvec, vectors):
    np.save("a.npy", vectors)
    encvec("ingest", "faces", "a.npy", "--scheme", "sap", "--beta", "8")
    options = ["calibrate", "faces", "--target-recall", "0.99", "--max-candidates", "10"]
    refused = encvec(*options, "--json")
    assert (refused.code, refused.document["ok"], refused.document["applied"]) == (1, False, False)
    assert refused.document["beta"] < 8
    plain = encvec(*options)
    assert (plain.code, plain.out) == (1, "")
    assert "--accept-less-noise" in plain.err
    assert encvec("stats", "faces", "--json").document["scheme"]["beta"] == 8
    assert encvec(*options, "--accept-less-noise").code == 0
    assert encvec("stats", "faces", "--json").document["scheme"]["beta"] == refused.document["beta"]


def test_calibrate_that_misses_exits_1(encvec, home, vectors):
    assert encvec("scheme", "docs", "sap").code == 0
    answer = encvec("calibrate", "docs", "--json")  # 60 records are too few
    assert (answer.code, answer.err) == (1, "")
    assert answer.document.keys() == {"ok", "applied", "reason"}
    assert "must have at least" in answer.document["reason"]
    np.save("a.npy", vectors)
    encvec("ingest", "safe", "a.npy")
    assert "is for server-ranked schemes" in encvec("calibrate", "safe", "--json").document["reason"]


@pytest.mark.parametrize("options", [["--target-recall", "2"], ["-k", "0"], ["-k", "30", "--max-candidates", "9"]])
def test_calibrate_with_nonsense_exits_2(home, encvec, vectors, options):
    np.save("a.npy", vectors)
    encvec("ingest", "faces", "a.npy", "--scheme", "sap")
    assert encvec("calibrate", "faces", *options).code == 2


def test_calibrate_on_a_sample_of_a_sorted_file(home, encvec, vectors):
    np.save("big.npy", np.repeat(np.arange(65_000, dtype=np.float32)[:, None], 2, axis=1))
    sample = _sample("big.npy")[:, 0]
    assert len(sample) == 20_000
    assert sample[0] == 0
    assert sample[-1] > 59_000
    assert len(set(np.diff(sample))) == 1
    np.save("a.npy", vectors)
    encvec("ingest", "faces", "a.npy", "--scheme", "sap")
    options = ["--sample", "a.npy", "--target-recall", "0.8", "--accept-less-noise", "--dry-run", "--json"]
    assert encvec("calibrate", "faces", *options).document["sample_size"] == 300
    (home / "none.jsonl").write_text("")
    assert encvec("calibrate", "docs", "--sample", "none.jsonl").code == 2


def test_calibrate_draws(home, encvec, vectors):
    pytest.importorskip("matplotlib")
    np.save("a.npy", vectors)
    encvec("ingest", "faces", "a.npy", "--scheme", "sap", "--beta", "0.1")
    assert encvec("calibrate", "faces", "--dry-run", "--plot", "f.png").code == 0
    assert (home / "f.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def sketched(home, encvec, monkeypatch):
    """A collection of 400 records in 24 dimensions under a sketch of its own."""
    hasten(monkeypatch)
    rows = np.random.default_rng(0).standard_normal((400, 24)) * 0.9 ** np.arange(24)
    np.save("wide.npy", rows.astype(np.float32))
    assert encvec("ingest", "wide", "wide.npy", "--scheme", "sketch", "--threat", "watching-server").code == 0


def test_calibrate_a_sketch(sketched, home, encvec):
    pytest.importorskip("matplotlib")
    stats = encvec("stats", "wide", "--json").document
    assert (stats["scheme"]["name"], stats["scheme"]["gamma"], stats["profile"]["state"]) == ("sketch", -0.5, "sketch")
    options = ["calibrate", "wide", "--target-recall", "0.9", "--max-candidates", "200"]
    dry = encvec(*options, "--dry-run", "--plot", "f.html")
    assert dry.code == 0
    assert "Most noise for the target with 200 re-ranked:" in dry.out
    page = (home / "f.html").read_text()
    assert "<svg" in page
    assert "default-src 'none'" in page, "the shell of all pages"
    assert "What else was tried" in page
    assert "matplotlib" not in page
    done = encvec(*options, "--json", "--accept-less-noise").document
    after = encvec("stats", "wide", "--json").document
    assert (after["scheme"]["k"], after["scheme"]["beta"]) == (done["dimensions"], done["beta"])
    assert (done["gamma"], done["query_beta"]) == (-0.5, 1.8)
    assert "profile state" in encvec("stats", "wide").out
    assert "choices" not in encvec("stats", "wide").out


def test_calibrate_refuses_what_is_below_the_floor(sketched, encvec):
    assert encvec("ingest", "open", "wide.npy", "--scheme", "sketch").code == 0
    options = ["calibrate", "open", "--target-recall", "0.95", "--max-candidates", "30", "--sample", "wide.npy"]
    assert encvec(*options, "--accept-less-noise").code == 0
    before = encvec("stats", "open", "--json").document
    assert before["scheme"]["beta"] < 2.5
    refused = encvec(*options, "--json")
    assert (refused.code, refused.document["applied"]) == (1, False)
    assert "own attacks succeed" in refused.document["reason"]
    assert "--accept-less-noise" in refused.document["reason"]
    assert encvec("stats", "open", "--json").document["scheme"] == before["scheme"]


def test_calibrate_attacks(encvec, home, monkeypatch):
    own = pytest.importorskip("encvec_store.lab.leakage.own")
    monkeypatch.setattr(own.SampleAttack.__init__, "__defaults__", (("pca-icp",), (2.0,), 1))  # all take minutes
    np.save("own.npy", text_like(600, 40, seed=5)[0])
    assert encvec("ingest", "own", "own.npy", "--scheme", "sap", "--beta", "0.01").code == 0
    options = ["calibrate", "own", "--attack", "--max-candidates", "20"]
    dry = encvec(*options, "--dry-run", "--json", "--plot", "f.html").document
    assert dry["attack"]["identified"] > 0.5, "twenty candidates leave next to no noise"
    assert "identified without the key" in (home / "f.html").read_text()
    refused = encvec(*options)
    assert (refused.code, refused.out) == (1, "")
    assert "our attacks name" in refused.err
    assert encvec("stats", "own", "--json").document["scheme"]["beta"] == 0.01
    done = encvec(*options, "--accept-less-noise")
    assert done.code == 0
    assert "that our attacks identify without the key:" in done.out
    assert encvec("stats", "own", "--json").document["calibration"]["attack"] == dry["attack"]
