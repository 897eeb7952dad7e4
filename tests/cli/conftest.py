"""A store of its own for every test, and `encvec` called in this process or in one of its own, its output caught."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("click", reason="the command line needs the extra `cli`")

from encvec_store import Keyset
from encvec_store.cli.app import run

DIM = 8
ROOT = Path(__file__).resolve().parents[2]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and pseudo-terminals of POSIX")


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def document(self):
        """The one JSON document on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self):
        """The JSON error: the last line of stderr."""
        return json.loads(self.err.splitlines()[-1])["error"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a store, and an unwrapped keyset in the environment: no key derivation at every call."""
    monkeypatch.chdir(tmp_path)
    for name in ("ENCVEC_DIR", "ENCVEC_STORE", "ENCVEC_PASSPHRASE", "ENCVEC_PASSPHRASE_FILE", "ENCVEC_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ENCVEC_TEST_KEYSET", "")
    Keyset.create("env:ENCVEC_TEST_KEYSET")
    monkeypatch.setenv("ENCVEC_KEYS", "env:ENCVEC_TEST_KEYSET")
    (tmp_path / "store").mkdir()
    return tmp_path


@pytest.fixture
def encvec(home, capfd):
    def call(*args):
        capfd.readouterr()
        code = run([str(arg) for arg in args])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Answer(code, out, err)

    return call


@pytest.fixture
def vectors():
    return np.random.default_rng(7).standard_normal((300, DIM)).astype(np.float32)


@pytest.fixture
def docs(home, encvec, vectors):
    """Collection `docs` of 60 records r0, r1, ... with metadata and documents."""
    lines = [
        {
            "id": f"r{n}",
            "vector": vectors[n].tolist(),
            "metadata": {"lang": ["de", "fr", "en"][n % 3], "n": n},
            "document": f"text {n}",
        }
        for n in range(60)
    ]
    write_lines(home / "docs.jsonl", *lines)
    assert encvec("ingest", "docs", "docs.jsonl", "--field", "lang=blind", "--field", "n=plain").code == 0
    return vectors[:60]


def write_lines(path, *lines):
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


def command(*args):
    """Return the arguments that run `encvec` in a process of its own."""
    return [sys.executable, "-m", "encvec_store.cli", *map(str, args)]


@pytest.fixture
def environment(home, monkeypatch):
    """`home`, where a process of its own finds the package too."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep))
    return home


@pytest.fixture
def shell(environment):
    """Run `encvec` in a process of its own."""

    def call(*args, **options):
        done = subprocess.run(command(*args), capture_output=True, text=True, timeout=120, check=False, **options)
        assert "Traceback" not in done.stderr
        return done

    return call
