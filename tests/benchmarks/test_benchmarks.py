"""The benchmarks and the demo run, keep what they promise of their output, and say what they measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report import Target

ROOT = Path(__file__).resolve().parents[2]


def python(module, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_targets():
    assert Target("", 2.0, ">=", 2.0).met
    assert not Target("", 1.0, ">=", 2.0).met
    assert Target("", 1.0, "<=", 2.0).met
    assert not Target("", float("nan"), "<=", 2.0).met, "what was not measured is not met"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kernel", "ingest", "search", "walk", "pgvector"])
def test_quick_run(tmp_path, name):
    done = python("benchmarks.run", "--quick", "--only", name, "--out", str(tmp_path))
    lines = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
    assert lines[0]["kind"] == "machine"
    assert lines[0]["quick"] is True
    assert {line["kind"] for line in lines} == {"machine", "row", "target"}
    assert "| " in done.stdout
    assert str(ROOT) not in json.dumps(lines), "results name no place on this machine"
    assert str(tmp_path) not in json.dumps(lines)


@pytest.mark.slow
def test_mapped_classes_quickly():
    done = python("benchmarks.pgvector", "--orm", "600", "--quick", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    rows = [line for line in lines if line["kind"] == "row"]
    assert {row["what"] for row in rows} == {"plaintext", "encrypted"}
    assert all(row["recall@10"] >= 0.9 and row["cpu_ms"] > 0 for row in rows)
    assert rows[-1]["recall@10"] == 1
    assert rows[-1]["p50_ratio"] > 0


@pytest.mark.slow
def test_cells_quickly():
    lines = [json.loads(line) for line in python("benchmarks.cells", "--quick", "--json").stdout.splitlines()]
    rows = {line["what"]: line for line in lines if line["kind"] == "row"}
    assert (rows["one rotation"]["cells"], rows["cells"]["cells"]) == (1, 4)
    assert rows["cells"]["recall@10"] >= rows["one rotation"]["recall@10"] - 0.02
    assert rows["plaintext"]["cpu_ratio"] == 1.0 < rows["cells"]["cpu_ratio"]


@pytest.mark.slow
def test_filters_quickly():
    lines = [json.loads(line) for line in python("benchmarks.filters", "--quick", "--json").stdout.splitlines()]
    rows = {line["what"]: line for line in lines if line["kind"] == "row"}
    assert rows["no filter"]["p50_ratio"] == 1.0
    assert rows["far 1.00%"]["records"] == rows["near 1.00%"]["records"] == 30
    assert all(row["recall@10"] == 1 for row in rows.values() if "recall@10" in row)


@pytest.mark.slow
def test_reads_quickly():
    lines = [json.loads(line) for line in python("benchmarks.reads", "--quick", "--json").stdout.splitlines()]
    rows = {line["what"]: line for line in lines if line["kind"] == "row"}
    for place in ("faiss:", "postgresql:"):
        candidates, hits = rows[f"{place} candidates"], rows[f"{place} hits"]
        assert hits["recall@10"] >= candidates["recall@10"] - 0.005
        assert hits["half_mb"] > candidates["half_mb"] == 0


@pytest.mark.slow
def test_watching_quickly():
    lines = [json.loads(line) for line in python("benchmarks.watching", "--quick", "--json").stdout.splitlines()]
    rows = {line["what"]: line for line in lines if line["kind"] == "row"}
    assert rows["candidates"]["labels"] > 2 * rows["candidates"]["luck"]
    assert rows["candidates"]["rows_read"] > rows["hits"]["rows_read"] > rows["prefetched"]["rows_read"] == 0
    assert "buckets of 16" in rows["buckets"]["sees"]
    assert rows["buckets"]["labels"] < rows["hits"]["labels"]


@pytest.mark.slow
def test_demo_in_json():
    found = json.loads(python("benchmarks.demo", "--limit", "5000", "--json").stdout)
    plain, first, whole = found["text"]
    assert plain["recall@10"] > 0.99
    assert whole["recall@10"] > 0.98 > first["recall@10"]
    assert found["faces"][1]["rank-1"] == found["faces"][0]["rank-1"]
    assert all(hit["intent"] == "card_swallowed" and hit["words"] <= 12 for hit in found["hits"][2]["hits"])
    assert found["verified"] == {**found["verified"], "ok": True, "checked": 5000}
    assert found["tampered"]["refused"].startswith("AuthenticationError")
    assert found["tampered"]["damaged"] == 1
    share = {
        (row["scheme"], row["attack"].split(" with")[0]): row["identified"] for row in found["stolen"]["identified"]
    }
    for scheme in ("sap", "sketch"):
        assert share[scheme, "nearest neighbour"] < 0.02
        assert share[scheme, "400 known pairs"] > 0.5, "the demo must not hide what breaks them"
    assert share["sap", "aligned"] > 0.5, "an attack that never works shows nothing"
    assert share["sketch", "aligned"] < 0.02


@pytest.mark.slow
def test_demo_in_words(tmp_path):
    text = python("benchmarks.demo", "--limit", "5000", "--dir", str(tmp_path / "tour")).stdout
    assert "\x1b" not in text, "plain where it is no terminal"
    assert "Nearest neighbours are not the strongest attack" in text
    assert (tmp_path / "tour" / "texts" / "records.sqlite3").is_file()
