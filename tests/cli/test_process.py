"""The command in processes of its own: pipes, signals, missing extras."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from encvec_store import __version__
from tests.cli.conftest import DIM, POSIX, command


def test_version_and_help(shell):
    assert shell("--version").stdout == f"encvec {__version__}\n"
    alone = shell()
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "A first walk" in alone.stderr
    assert shell("--help").returncode == 0


def test_help_is_quick_and_loads_nothing_heavy(environment):
    code = (
        "import sys; from encvec_store.cli.app import run; run(['--help']);"
        "print(sorted(sys.modules.keys() & {'pyarrow', 'h5py', 'matplotlib', 'faiss', 'rich.progress'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_how_to_get_it(environment, missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from encvec_store.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"encvec: {missing} is not installed: pip install 'encvec-store[cli]'\n"


@pytest.mark.parametrize("module", ["click", "numpy", "encvec_store.cli.app"])
def test_ctrl_c_before_the_command_begins_is_no_traceback(environment, module):
    code = f"""
import sys
class Interrupted:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from encvec_store.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code, "count"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "encvec: interrupted\n")


def test_the_package_is_the_command(environment):
    done = subprocess.run(
        [sys.executable, "-m", "encvec_store", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"encvec {__version__}\n"


@pytest.mark.parametrize(("missing", "name"), [("pyarrow", "a.parquet"), ("h5py", "a.hdf5")])
def test_without_a_reader_s_library_it_says_how_to_get_it(environment, missing, name):
    (environment / name).write_text("x")
    run = f"run(['ingest', 'docs', {name!r}])"
    code = f"import sys; sys.modules[{missing!r}] = None; from encvec_store.cli.app import run; sys.exit({run})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"encvec: {missing} is not installed: pip install 'encvec-store[cli]'\n"


@pytest.mark.usefixtures("docs")
def test_json_alone_on_stdout(shell):
    done = shell("search", "docs", "--id", "r1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["hits"][0]["id"] == "r1"
    done = shell("search", "none", "--id", "r1", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert json.loads(done.stderr)["error"]["type"] == "CollectionNotFoundError"


@pytest.mark.usefixtures("docs")
def test_json_is_sound_in_any_encoding(environment, shell, monkeypatch):
    line = {"id": "größe", "vector": [1] * DIM, "document": "日本"}
    done = shell("ingest", "docs", "-", input=json.dumps(line))
    assert done.returncode == 0, done.stderr
    for encoding in ("latin-1", "utf-8"):
        monkeypatch.setenv("PYTHONIOENCODING", encoding)
        done = subprocess.run(command("get", "docs", "größe", "--json"), capture_output=True, check=True)
        assert json.loads(done.stdout.decode(encoding))["document"] == "日本"
        assert subprocess.run(command("get", "docs", "größe"), capture_output=True, check=False).returncode == 0


def test_lines_from_a_pipe_need_ids(encvec, shell):
    assert (
        "line 1: no key 'id': give ids, or --id-prefix" in shell("ingest", "docs", "-", input='{"vector": [1]}').stderr
    )
    assert shell("ingest", "docs", "-", "--id-prefix", "x", input='{"vector": [1]}\n').returncode == 0
    assert encvec("get", "docs", "x:0").code == 0
    assert encvec("ingest", "docs", "-", "--format", "npy").code == 2


@POSIX
@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_a_reader_that_leaves_is_no_disaster(environment, encvec, vectors, json_flag):
    np.save("a.npy", np.tile(vectors, (20, 1)))
    assert encvec("ingest", "docs", "a.npy").code == 0
    args = command("get", "docs", "--all", "--vectors", *json_flag)
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        assert job.stdout.readline()
        job.stdout.close()
        assert job.stderr.read() == b""
        assert job.wait(60) == 141


@POSIX
def test_a_full_disk_is_told(environment, encvec, shell, docs):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command("get", "docs", "--all"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (2, "encvec: No space left on device\n")


def start_ingest(lines):
    """Start to ingest from a pipe that stays open, and wait until a batch is stored."""
    job = subprocess.Popen(
        command("ingest", "docs", "-", "--batch-size", 10),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    job.stdin.write("".join(lines))
    job.stdin.flush()
    return job


def wait_for(encvec, n):
    for _ in range(600):
        done = encvec("count", "docs")
        if done.code == 0 and int(done.out) >= n:
            return
        time.sleep(0.02)
    raise AssertionError(f"never {n} records")


@POSIX
@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_an_ingest_that_is_stopped_can_be_taken_up(environment, encvec, shell, vectors, how):
    lines = [json.dumps({"id": f"r{n}", "vector": vectors[n].tolist()}) + "\n" for n in range(60)]
    job = start_ingest(lines[:35])
    wait_for(encvec, 30)
    job.send_signal(how)
    out, err = job.communicate(timeout=60)
    assert out == ""
    assert "Traceback" not in err
    if how is signal.SIGINT:
        assert job.returncode == 130
        assert "30 records were written before; the same command with --resume goes on from here" in err
    checked = encvec("verify", "--json").document
    assert (checked["ok"], checked["collections"][0]["checked"]) == (True, 30)
    done = shell("ingest", "docs", "-", "--resume", "--json", input="".join(lines))
    summary = json.loads(done.stdout)
    assert (summary["skipped"], summary["written"], summary["count"]) == (30, 30, 60)
