"""The peers' contest with a peer made up, growth and scale at small sizes: they run, resume, and count right."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.peers import contest
from encvec_store.lab.bench import Data, VectorSource, measure

ROOT = Path(__file__).resolve().parents[2]
SERVE = """
import json, sys, time
import numpy as np
name, vectors, queries, folder = sys.argv[1:5]
vectors, queries = np.load(vectors), np.load(queries)
print(json.dumps({"build_s": 1.5, "bytes": 77, "index": "hnsw"}), flush=True)
for line in sys.stdin:
    told = json.loads(line)
    order = np.argsort(-vectors @ queries[told["query"]])[: told["k"]]
    if told["effort"] < 50:
        order = order[::-1][: told["k"] // 2]
    print(json.dumps({"seconds": 0.25, "cpu": 0.125, "ids": order.tolist()}), flush=True)
"""


def some(n, queries, d=8):
    draw = np.random.default_rng(3)
    return Data(
        "some", VectorSource(draw.standard_normal((n, d), np.float32)), draw.standard_normal((queries, d), np.float32)
    )


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """A peer that searches exactly, finds half at low effort, and says that a query takes it a quarter of a second."""
    (tmp_path / "serve.py").write_text(SERVE)
    monkeypatch.setattr(contest, "python", lambda name: Path(sys.executable))
    monkeypatch.setattr(contest, "__file__", str(tmp_path / "contest.py"))
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def test_a_peer_times_itself_and_is_scored_as_we_are(made_up):
    job = contest.job(some(300, 4), ["hadamask"], made_up)
    rows = [one.row for one in measure(job)]
    theirs = [row for row in rows if row["peer"] == "hadamask"]
    assert [row["effort"] for row in theirs] == list(contest.EFFORTS)
    assert {(row["p50_ms"], row["cpu_ms"]) for row in theirs} == {(250.0, 125.0)}, "its own clocks count"
    assert {row["effort"]: row["recall@10"] for row in theirs} == {20: 0.5, 50: 1.0, 100: 1.0, 200: 1.0}
    assert {(row["build_s"], row["bytes"]) for row in theirs} == {(1.5, 77)}
    ours = {row["scheme"] for row in rows if row["peer"] is None}
    assert ours == {"plaintext", "sap", "sketch"}


def test_a_peer_that_dies_is_an_error(made_up):
    (made_up.parent / "serve.py").write_text("raise SystemExit(3)")
    with ExitStack() as stack, pytest.raises(RuntimeError, match="ended"):
        contest.Peer("hadamask", some(10, 1), made_up, stack)


def test_a_peer_that_cannot_be_installed_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "_HERE", tmp_path / "peers")
    monkeypatch.setattr(peers, "_PACKAGES", {"nothing": (f"{tmp_path / 'no-such-package'}==1",)})
    peers.missing.cache_clear()
    assert "no-such-package" in peers.missing("nothing")
    peers.missing.cache_clear()


def python(module, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--json"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_growth_resumes(tmp_path):
    arguments = ["--n", "1000", "--n", "2000", "--dim", "16", "--out", str(tmp_path)]
    rows = python("benchmarks.growth", *arguments)
    assert [row["n"] for row in rows] == [1000] * 3 + [2000] * 3
    ours = [row for row in rows if row["scheme"] == "sap"]
    assert all(row["ingest_peak_mb"] > 20 for row in ours if sys.platform == "linux")
    assert python("benchmarks.growth", *arguments) == rows, "the very same times: nothing was measured"


@pytest.mark.slow
def test_growth_by_product_quantisers(tmp_path):
    arguments = [
        "--n",
        "4000",
        "--dim",
        "9",
        "--index",
        "ivf",
        "--storage",
        "pq",
        "--effort",
        "64",
        "--oversample",
        "100",
    ]
    rows = python("benchmarks.growth", *arguments, "--out", str(tmp_path))
    assert {(row["index"], row["storage"], row["effort"]) for row in rows} == {("ivf", "pq", 64)}
    assert all(row["index_bytes"] < 4_000 * 9 * 4 for row in rows), "codes are smaller than vectors"
    assert rows[-1]["reranked"]
    assert rows[-1]["recall@10"] > 0.95 > rows[1]["recall@10"], (
        "what noise and codes lose, an exact re-rank finds again"
    )
