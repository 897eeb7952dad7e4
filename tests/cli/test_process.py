"""The real thing in processes of its own: pipes, signals, a terminal, missing extras, and nothing secret or raw."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from encvec_store import __version__
from encvec_store.cli.app import cli
from tests.cli.conftest import DIM

ROOT = Path(__file__).resolve().parents[2]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and pseudo-terminals of POSIX")
SECRET = "correct horse battery staple"


def command(*args):
    return [sys.executable, "-m", "encvec_store.cli", *map(str, args)]


@pytest.fixture
def environment(home, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep))
    return home


@pytest.fixture
def shell(environment):
    def call(*args, **options):
        done = subprocess.run(command(*args), capture_output=True, text=True, timeout=120, check=False, **options)
        assert "Traceback" not in done.stderr
        return done

    return call


def test_version_and_help(shell):
    assert shell("--version").stdout == f"encvec {__version__}\n"
    alone = shell()
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "A first walk" in alone.stderr
    assert shell("--help").returncode == 0


def leaves(group, path=()):
    for name, item in group.commands.items():
        yield (*path, name), item
        if hasattr(item, "commands"):
            yield from leaves(item, (*path, name))


@pytest.mark.parametrize(
    ("path", "item"), list(leaves(cli)), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_explains_itself_and_speaks_json(encvec, path, item):
    answer = encvec(*path, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"Usage: encvec {' '.join(path)}")
    assert "\\b" not in answer.out
    assert not any(len(line) > 100 for line in answer.out.splitlines())
    if not hasattr(item, "commands"):
        assert "--json" in answer.out
    assert not re.search(r"--\S*(passphrase|password|secret)", answer.out), "a secret must never be an option"


def test_the_list_of_commands_is_not_cut(encvec):
    listed = encvec("--help").out.partition("Commands:")[2]
    assert re.findall(r"^  (\w+)", listed, re.MULTILINE) == list(cli.commands)
    assert "..." not in listed
    for group in ("keys", "db"):
        assert "..." not in encvec(group, "--help").out.partition("Commands:")[2]


def test_an_unknown_command_or_option_is_one_line(encvec):
    for args in (["serve"], ["count", "docs", "--colour"], ["count"], ["keys", "mint"], ["count", "a", "b"]):
        answer = encvec(*args)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert re.match(r"encvec: .*\(see `encvec.* --help`\)\n", answer.err)
        assert encvec(*args, "--json").error["type"] == "UsageError"


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


def test_lines_from_a_pipe_need_ids(shell):
    assert (
        "line 1: no key 'id': give ids, or --id-prefix" in shell("ingest", "docs", "-", input='{"vector": [1]}').stderr
    )
    assert shell("ingest", "docs", "-", "--id-prefix", "x", input='{"vector": [1]}\n').returncode == 0
    assert shell("get", "docs", "x:0").returncode == 0
    assert shell("ingest", "docs", "-", "--format", "npy", input="").returncode == 2


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


def wait_for(shell, n):
    for _ in range(100):
        done = shell("count", "docs")
        if done.returncode == 0 and int(done.stdout) >= n:
            return
        time.sleep(0.1)
    raise AssertionError(f"never {n} records")


@POSIX
@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_an_ingest_that_is_stopped_can_be_taken_up(environment, shell, vectors, how):
    lines = [json.dumps({"id": f"r{n}", "vector": vectors[n].tolist()}) + "\n" for n in range(60)]
    job = start_ingest(lines[:35])
    wait_for(shell, 30)
    job.send_signal(how)
    out, err = job.communicate(timeout=60)
    assert out == ""
    assert "Traceback" not in err
    if how is signal.SIGINT:
        assert job.returncode == 130
        assert "30 records were written before; the same command with --resume goes on from here" in err
    checked = json.loads(shell("verify", "--json").stdout)
    assert (checked["ok"], checked["collections"][0]["checked"]) == (True, 30)
    done = shell("ingest", "docs", "-", "--resume", "--json", input="".join(lines))
    summary = json.loads(done.stdout)
    assert (summary["skipped"], summary["written"], summary["count"]) == (30, 30, 60)


# ----------------------------------------------------------------------------------------- terminal


class Terminal:
    """A command on a pseudo-terminal, as a person would meet it."""

    def __init__(self, *args):
        import pty

        self.shown = ""
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.execv(sys.executable, command(*args))  # noqa: S606 - the child of a fork

    def until(self, text, timeout=60):
        limit = time.monotonic() + timeout
        while text not in self.shown:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, limit - time.monotonic()))
            assert ready, f"{text!r} never came: {self.shown}"
            self.shown += os.read(self.fd, 4096).decode()

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        while True:
            try:
                piece = os.read(self.fd, 4096)
            except OSError:
                break
            if not piece:
                break
            self.shown += piece.decode()
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@POSIX
@pytest.mark.filterwarnings("ignore:.*use of forkpty.*:DeprecationWarning")
def test_a_person_is_asked_for_the_passphrase_and_never_shown_it(environment, monkeypatch, vectors):
    monkeypatch.delenv("ENCVEC_KEYS")
    (environment / "store").rmdir()
    terminal = Terminal("init")
    terminal.until("New passphrase: ")
    terminal.type(SECRET + "\n")
    terminal.until("Repeat for confirmation: ")
    terminal.type(SECRET + "\n")
    assert terminal.end() == 0
    shown = terminal.shown

    np.save("a.npy", vectors)
    terminal = Terminal("ingest", "docs", "a.npy", "--batch-size", "20")
    terminal.until("Passphrase of file:keys.json: ")
    terminal.type(SECRET + "\n")
    assert terminal.end() == 0
    assert "encrypting into docs" in terminal.shown, "a terminal gets a progress bar"
    shown += terminal.shown

    terminal = Terminal("drop", "docs")
    terminal.until("keys.json: ")
    terminal.type(SECRET + "\n")
    terminal.until("Drop collection 'docs' with its 300 records? [y/N]: ")
    terminal.type("\n")
    assert terminal.end() == 1
    shown += terminal.shown

    terminal = Terminal("search", "docs", "--id", "a:1")
    terminal.until("keys.json: ")
    terminal.type("wrong\n")
    assert terminal.end() == 2
    assert "wrong passphrase, or the keyset was altered" in terminal.shown
    assert SECRET not in shown + terminal.shown


@POSIX
@pytest.mark.filterwarnings("ignore:.*use of forkpty.*:DeprecationWarning")
def test_ctrl_c_at_the_prompt(environment, encvec, monkeypatch):
    monkeypatch.setenv("ENCVEC_PASSPHRASE", SECRET)
    encvec("init", "x")
    monkeypatch.delenv("ENCVEC_PASSPHRASE")
    monkeypatch.delenv("ENCVEC_KEYS")
    terminal = Terminal("collections", "--dir", "x")
    terminal.until("keys.json: ")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert "Traceback" not in terminal.shown


BARS = """
import logging, sys, warnings
from encvec_store.cli.app import _prepare, warnings_as_notes
from encvec_store.cli.output import note, progress
_prepare()
warnings_as_notes()
with progress("outer", 10) as advance, progress("inner", 5):
    advance(3, None)
    note("a note")
    logging.getLogger("encvec_store").warning("a warning")
    warnings.warn("of Python")
note("after")
"""


@POSIX
@pytest.mark.filterwarnings("ignore:.*use of forkpty.*:DeprecationWarning")
def test_a_warning_has_a_line_of_its_own_beside_a_bar(environment, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "command", lambda: [sys.executable, "-c", BARS])
    terminal = Terminal()
    assert terminal.end() == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", terminal.shown.replace("\x1b[2K", "\n"))
    lines = [line.strip() for line in shown.split("\n")]
    for said in ("a note", "warning: a warning", "warning: of Python", "after"):
        assert f"encvec: {said}" in lines
    assert any("outer" in line for line in lines)
    assert any("inner" in line for line in lines)


@pytest.mark.usefixtures("docs")
@pytest.mark.parametrize("command", ["count", "stats", "search"])
def test_the_place_may_stand_before_the_command_or_after_it(home, encvec, monkeypatch, command):
    """What stands after wins, as it is nearer; and the environment comes last."""
    rest = [command, "docs", *(["--id", "r1"] if command == "search" else [])]
    expected = encvec(*rest, "--json").document
    monkeypatch.delenv("ENCVEC_KEYS")
    monkeypatch.setenv("ENCVEC_STORE", "faiss:///nowhere")
    keys, url = "env:ENCVEC_TEST_KEYSET", f"faiss://{home}/store"
    for before, after in [
        (["--store", url, "--keys", keys, "--json"], []),
        (["--store", url], ["--keys", keys, "--json"]),
        (["--store", "faiss:///nowhere", "--keys", keys], ["--store", url, "--json"]),
        (["--json"], ["--store", url, "--keys", keys]),
    ]:
        assert encvec(*before, *rest, *after).document == expected
    assert encvec("--keys", keys, "keys", "list", "--json").document["uri"] == keys
    assert encvec("keys", "--keys", keys, "list", "--json").document["uri"] == keys
    assert encvec("db", "--store", url, "current", "--json").code == 0


def test_a_place_before_a_command_that_has_none_is_refused(encvec):
    for args in (["--keys", "env:X", "bench", "--data", "iid:9x2"], ["--store", "faiss:x", "db", "history"]):
        answer = encvec(*args)
        assert (answer.code, "No such option" in answer.err) == (2, True)
    answer = encvec("--store", "postgresql://u:secret@h/db", "count", "docs")
    assert (answer.code, "secret" in answer.err) == (2, False)
    assert "a password on the command line" in answer.err
    assert encvec("--json", "bench", "compare", "a", "b").code == 2


@pytest.mark.usefixtures("docs")
def test_no_bar_off_a_terminal(shell):
    done = shell("verify")
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


def test_a_bug_is_one_line_and_the_traceback_is_for_those_who_ask(encvec, docs, monkeypatch, capfd):
    from encvec_store.cli.app import run
    from encvec_store.collection import Collection

    def broken(*args):
        raise RuntimeError("boom")

    monkeypatch.setattr(Collection, "count", broken)
    answer = encvec("count", "docs")
    assert answer.code == 2
    assert answer.err == ("encvec: unexpected RuntimeError: boom (please report it; ENCVEC_DEBUG=1 shows where)\n")
    monkeypatch.setenv("ENCVEC_DEBUG", "1")
    assert run(["count", "docs"]) == 2
    assert "Traceback (most recent call last)" in capfd.readouterr().err


def test_warnings_of_the_library_look_like_ours(encvec, docs, capfd):
    import logging

    encvec("count", "docs")
    logging.getLogger("encvec_store").warning("a cached sealed vector was damaged")
    assert capfd.readouterr().err == "encvec: warning: a cached sealed vector was damaged\n"
