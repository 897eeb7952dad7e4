"""The package finds its scripts in a wheel and in a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from encvec_store import migrate

ROOT = Path(__file__).resolve().parents[2]


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in (".py", ".mako")
    }


def test_in_a_checkout():
    assert migrate._folder() == ROOT / "migrations"


@pytest.mark.slow
def test_in_a_wheel(tmp_path, pg_dsn):
    """The unpacked wheel migrates both stores, first on the path and away from the checkout."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        assert not [name for name in archive.namelist() if name.startswith("migrations") or "__pycache__" in name]
    assert files(tmp_path / "installed" / "encvec_store" / "migrations") == files(ROOT / "migrations")
    (tmp_path / "store").mkdir()
    code = (
        "import sys, encvec_store; print(encvec_store.__file__); from encvec_store.cli.app import run; sys.exit(run())"
    )
    for url in (f"faiss://{tmp_path}/store", pg_dsn):
        for command in ("upgrade", "current"):
            done = subprocess.run(
                [sys.executable, "-P", "-c", code, "db", command],
                capture_output=True,
                text=True,
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(tmp_path / "installed"), "ENCVEC_STORE": url},
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines()[0].startswith(str(tmp_path / "installed"))
        assert "usable    yes" in done.stdout
