"""The example app runs as its docstring says, in a process of its own, twice on the same keys and database."""

import os
import subprocess
import sys
from pathlib import Path

from tests.kits.orm import url

ROOT = Path(__file__).resolve().parents[2]


def test_example(pg_dsn, tmp_path):
    command = [sys.executable, ROOT / "docs/examples/orm_app.py", url(pg_dsn), f"file:{tmp_path / 'keys.json'}"]
    env = {**os.environ, "NOTES_PASSPHRASE": "correct horse", "PYTHONPATH": str(ROOT)}
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "6 notes copied in"
        assert lines[1].endswith(("a letter about flowers", "flowers of the garden"))
        assert float(lines[1].split()[0]) > 0.4
        assert lines[4].endswith(("compilers turn words into programs", "a moth in the relay of the machine"))
        assert lines[5].endswith(("a letter about flowers", "flowers of the garden"))
