"""Other projects, measured beside this one in an environment of their own: nothing of theirs is imported here.

They are installed from PyPI into benchmarks/.venv-peers when first asked for (`make peers`, or --peers); see each
project's licence there. ironcore-alloy is AGPL-3.0: it is run, never shipped or linked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.ironcore import BATCH

__all__ = ["BATCH", "IRONCORE", "alloy_encrypt", "ironcore", "missing"]

IRONCORE = "ironcore-alloy==0.16.1"
_HERE = Path(__file__).parent
_VENV = _HERE.parent / ".venv-peers"
_PYTHON = _VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
_SECONDS = 300


@cache
def missing() -> str | None:
    """Install the peers if they are not; return why they cannot be had, None where they can."""
    if _works():
        return None
    for step in ([sys.executable, "-m", "venv", "--clear", _VENV], [_PYTHON, "-m", "pip", "install", "-q", IRONCORE]):
        try:
            subprocess.run([*map(str, step)], check=True, capture_output=True, text=True, timeout=_SECONDS)
        except subprocess.CalledProcessError as error:
            return str(((error.stderr or error.stdout).strip().splitlines() or ["no reason given"])[-1])
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{type(error).__name__}"
    return None if _works() else "it was installed but cannot be imported"


def _works() -> bool:
    version = "from importlib.metadata import version; import ironcore_alloy; print(version('ironcore-alloy'))"
    try:
        done = subprocess.run([str(_PYTHON), "-c", version], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == IRONCORE.partition("==")[2]


def ironcore(dim: int, beta: float, repeats: int) -> dict[str, list[float]]:
    """Seconds a vector that ironcore-alloy takes to encrypt, once a repeat: as Python sees it, and its compiled core.

    See `ironcore.py` for what is timed. One CPU: the process is bound to one where the system allows it.
    """
    cpu = sorted(os.sched_getaffinity(0))[-1:] if hasattr(os, "sched_getaffinity") else []
    command = [_PYTHON, _HERE / "ironcore.py", dim, beta, repeats, *cpu]
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    report = json.loads(done.stdout)
    return {f"ironcore {name}": [took / report["batch"] for took in report[name]] for name in ("api", "core")}


def alloy_encrypt(vectors: NDArray[np.float32], beta: float, key: int) -> NDArray[np.float32]:
    """What ironcore-alloy makes of (n, d) vectors under the key of that number: its own code, its own process."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.f32", Path(folder) / "made.f32"
        given.write_bytes(np.ascontiguousarray(vectors, np.float32).tobytes())
        command = [_PYTHON, _HERE / "encrypt.py", given, made, vectors.shape[1], beta, key]
        subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
        return np.fromfile(made, np.float32).reshape(vectors.shape)
