"""The benchmarks of whole stores, embedded and on PostgreSQL, run, count right, and leave out what fails."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.embedded import __main__ as command
from benchmarks.embedded.contest import Contest, prepared, ratios
from benchmarks.embedded.worker import System, Worker, WorkerError
from benchmarks.report import Show

ROOT = Path(__file__).resolve().parents[2]


def run(module, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", module, "--quick", "--json", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout, "results name no place on this machine"
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def job(tmp_path):
    return prepared("clustered", 300, 16, tmp_path, 20, 10, 80)


@pytest.fixture
def floor(tmp_path):
    (tmp_path / "floor").mkdir()
    return System("faiss", "faiss", Path(sys.executable), str(tmp_path / "floor"), {"storage": "float32"})


def told(row):
    return {key: row[key] for key in ("n", "d", "k", "documents", "state", "threads", "version")}


def test_the_floor_finds_its_records_before_and_after_updates(job, floor):
    contest = Contest(job, [floor], Show(quiet=True), "embedded", 60)
    (loaded,) = contest.ingest()
    assert told(loaded) == told(loaded) | {"n": 300, "d": 16, "k": 10, "documents": True, "threads": 1}
    assert loaded["per_s"] > 0 < loaded["bytes"]
    (searched,) = contest.search()
    assert searched["recall@10"] >= 0.99
    assert searched["setting"].startswith("ef ")
    both = contest.updated(command.copied)
    assert [row["part"] for row in both] == ["update", "updated", "updated"]
    assert [row["what"] for row in both[1:]] == ["faiss", "faiss, fresh"]
    assert all(row["recall@10"] >= 0.99 for row in both[1:]), "each is judged by the vectors that it holds"
    assert both[2]["p50_over_fresh"] is None is not both[1]["p50_over_fresh"]


def test_a_wrong_document_stops_the_run(job, floor):
    contest = Contest(job, [floor], Show(quiet=True), "embedded", 60)
    contest.ingest()
    contest.crc[7] += 1
    contest.check("faiss", {"ids": [[3, 4]], "documents": [[contest.crc[3], contest.crc[4]]]}, 0)
    with pytest.raises(RuntimeError, match="wrong documents"):
        contest.check("faiss", {"ids": [[7]], "documents": [[contest.crc[7] - 1]]}, 0)


def test_a_store_that_fails_is_left_out(job, floor, capsys):
    broken = System("broken", "faiss", Path(sys.executable), "/no/such/folder", {"storage": "float32"})
    contest = Contest(job, [broken, floor], Show(), "embedded", 60)
    assert [row["what"] for row in contest.ingest()] == ["faiss"]
    assert [system.name for system in contest.systems] == ["faiss"]
    assert "broken is left out" in capsys.readouterr().err


def test_a_process_that_ends_says_why(job, floor):
    unknown = System("unknown", "no such store", Path(sys.executable), floor.place)
    with Worker(unknown, job.files[2]) as worker, pytest.raises(WorkerError, match=r"ended during tell.*no such store"):
        worker.ask("tell")


def test_ratios_are_of_one_part():
    rows = [{"part": "search", "what": "faiss", "p50_ms": 2.0}, {"part": "search", "what": "encvec", "p50_ms": 3.0}]
    rows.append({"part": "other writer", "what": "encvec", "p50_ms": 9.0})
    rows = [{**row, "state": "warm"} for row in rows]
    ratios(rows, command.BASES)
    assert [row.get("p50_over_faiss") for row in rows] == [1.0, 1.5, None]
    assert "p50_over_chroma" not in rows[1], "not in this run"
    assert command.value(rows, "search", "p50_over_faiss") == 1.5
    assert np.isnan(command.value(rows, "search", "p50_over_chroma"))


def test_clear_refusals():
    for arguments, said in (("--systems no-such", "unknown store no-such"), ("--option index_memory", "NAME=VALUE"),
                            ("--data no-such", "unknown data set")):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.embedded", "--quick", *arguments.split()],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert said in done.stderr


@pytest.mark.slow
def test_ours_beside_the_floor():
    lines = run("benchmarks.embedded", "--systems", "faiss,encvec", "--updated", "--other-writer")
    rows = {(row["part"], row["what"]): row for row in lines if row["kind"] == "row"}
    assert rows["search", "encvec"]["recall@10"] == 1.0
    assert rows["search", "encvec"]["p50_over_faiss"] > 0
    assert rows["updated", "encvec"]["recall@10"] == 1.0
    assert rows["other writer", "encvec"]["seen"] == 1.0, "a write is searchable at once, in every process"
    assert rows["other writer", "faiss"]["seen"] == 0.0
    assert rows["during ingest", "encvec"]["searches"] > 0
    assert ("during ingest", "faiss") not in rows
    assert "p50_over_chroma" not in rows["search", "encvec"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*command.PEERS])
def test_a_peer_that_is_installed(name, job, tmp_path):
    package = command.PEERS[name]
    if not peers.python(package).exists():
        pytest.skip(f"{package} is not installed: make peers ARGS=--embedded")
    (tmp_path / name).mkdir()
    system = System(name, command.SYSTEMS[name][0], peers.python(package), str(tmp_path / name))
    contest = Contest(job, [system], Show(), "embedded", 120)
    contest.ingest()
    assert [row["recall@10"] >= 0.99 for row in contest.search()] == [True]


@pytest.mark.slow
def test_sealed_beside_pgvector():
    lines = run("benchmarks.pgsealed", "--other-writer")
    rows = {(row["part"], row["what"]): row for row in lines if row["kind"] == "row"}
    for what in ("pgvector", "encvec"):
        assert rows["search", what]["recall@10"] >= 0.99
        assert rows["other writer", what]["seen"] == 1.0
    assert rows["search", "encvec"]["p50_over_pgvector"] > 0
    assert rows["server", "pgvector"]["statements"] in (None, 1.0)
