"""An import that is killed at any moment: the same command again goes on where it was; nothing is lost or doubled."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import encvec_store as ev
from encvec_store import errors
from tests.kits.transfer import DIM, ask, make_items, vectors

ROOT = Path(__file__).resolve().parents[2]
ROWS = 900

pytestmark = [
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="kills by signal"),
]


@pytest.fixture
def command(home, pg_dsn, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    make_items(pg_dsn, ROWS)
    arguments = ["import", pg_dsn, "docs", "--table", "items", "--batch-size", "10", "--json", "--oversample", "100"]
    return [sys.executable, "-m", "encvec_store.cli", *arguments]


@pytest.fixture(params=["faiss", "postgresql"])
def url(request, home, pg_dsn, monkeypatch):
    """The store, in files or in the database of the table itself."""
    url = f"faiss://{home}/store" if request.param == "faiss" else pg_dsn
    monkeypatch.setenv("ENCVEC_STORE", url)
    return url


def stored(url):
    """Count what another process has committed so far."""
    with ev.connect(url, keyset=ev.Keyset.open("env:ENCVEC_TEST_KEYSET")) as store:
        try:
            return store.collection("docs").count()
        except errors.CollectionNotFoundError:
            return 0


def kill_beyond(command, url, n, rng):
    """Run the command until n records are there, kill it a moment later, and return how many there are then."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        deadline = time.monotonic() + 120
        while stored(url) < n:
            assert job.poll() is None, job.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)  # asking takes from the job what it works with
        time.sleep(rng.uniform(0, 0.05))
        os.kill(job.pid, signal.SIGKILL)
        assert job.wait(20) == -signal.SIGKILL, "it ended before it was killed"
    return stored(url)


def test_killed_and_taken_up_again(command, url, pg_dsn):
    rng = random.Random(1)
    for wanted in (1, 150, 400):
        there = kill_beyond(command, url, wanted, rng)
        assert wanted <= there < ROWS
        assert there % 10 == 0, "half a batch"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["unchanged"], answer["written"], answer["updated"]) == (there, ROWS - there, 0)
    assert answer["verification"]["ok"]
    assert (answer["count"], answer["verification"]["compared"]) == (ROWS, ROWS)
    with ev.connect(url, keyset=ev.Keyset.open("env:ENCVEC_TEST_KEYSET")) as store:
        docs = store.collection("docs")
        assert docs.verify().ok
        found = {record.id: record.vector.tobytes() for record in docs.scroll()}
    assert found == {str(i * 3): row.tobytes() for i, row in enumerate(vectors(ROWS))}
    assert docs.dim == DIM
    assert ask(pg_dsn, "SELECT count(*) FROM items") == [(ROWS,)]


def test_interrupted_by_a_person(command, url):
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        while stored(url) < 100:
            assert job.poll() is None, job.stderr.read()
            time.sleep(0.1)
        job.send_signal(signal.SIGINT)
        out, err = job.communicate(timeout=60)
    error = json.loads(err.splitlines()[-1])["error"]
    assert (job.returncode, out, error["type"]) == (130, "", "Interrupted")
    assert error["written"] <= stored(url)
