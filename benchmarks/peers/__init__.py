"""Other projects, measured beside this one in separate environments: nothing of theirs is imported here.

The first use (`make peers`, or --peers) installs each from PyPI into benchmarks/.venv-peers/NAME; see its licence
there. They are run, never shipped or linked: ironcore-alloy is AGPL-3.0; cyborgdb-core is proprietary, and its free
tier takes a million vectors without a key.
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

__all__ = ["BATCH", "EMBEDDED", "IRONCORE", "OUTSIDERS", "PEERS", "alloy_encrypt", "ironcore", "missing", "python"]

IRONCORE = "ironcore-alloy"
PEERS = {
    IRONCORE: ("ironcore-alloy==0.16.1", "numpy", "faiss-cpu"),
    "hadamask": ("hadamask==0.1.1", "faiss-cpu"),
    "cyborgdb-core": ("cyborgdb-core==0.18.0", "numpy"),
}
"""Name -> the packages to install."""
OUTSIDERS = {
    "vectordb-bench": ("vectordb-bench==2.0.0", "cryptography", "faiss-cpu", "sqlalchemy>=2.1", "threadpoolctl"),
}
"""Other projects' benchmarks that test our clients; `make peers ARGS=--outsiders` installs them."""
EMBEDDED = {
    "chromadb": ("chromadb==1.5.9", "numpy==2.4.6"),
    "lancedb": ("lancedb==0.40.0", "numpy==2.4.6"),
    "qdrant-client": ("qdrant-client==1.20.0", "numpy==2.4.6"),
}
"""Plaintext stores that `benchmarks.embedded` measures; `make peers ARGS=--embedded` installs them."""
_PACKAGES = {**PEERS, **OUTSIDERS, **EMBEDDED}
_HERE = Path(__file__).parent
_SECONDS = 600


def python(name: str) -> Path:
    """Return the interpreter of a peer's environment."""
    return _HERE.parent / ".venv-peers" / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@cache
def missing(name: str = IRONCORE) -> str | None:
    """Install a peer if needed. Returns why it is not available, or None if it is."""
    if _works(name):
        return None
    venv = python(name).parent.parent
    install = [python(name), "-m", "pip", "install", "-q", *_PACKAGES[name]]
    for step in ([sys.executable, "-m", "venv", "--clear", venv], install):
        try:
            subprocess.run([*map(str, step)], check=True, capture_output=True, text=True, timeout=_SECONDS)
        except subprocess.CalledProcessError as error:
            return str(((error.stderr or error.stdout).strip().splitlines() or ["no reason given"])[-1])
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{type(error).__name__}"
    return None if _works(name) else "it was installed but cannot be imported"


def _works(name: str) -> bool:
    wanted, version = _PACKAGES[name][0].split("==")
    ask = f"from importlib.metadata import version; import {name.replace('-', '_')}; print(version({wanted!r}))"
    try:
        done = subprocess.run([str(python(name)), "-c", ask], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == version


def ironcore(dim: int, beta: float, repeats: int) -> dict[str, list[float]]:
    """Return seconds per vector of ironcore-alloy's encryption, one per repeat: from Python, and its compiled core.

    `ironcore.py` says what is timed. The process is bound to one CPU if the system allows it.
    """
    cpu = sorted(os.sched_getaffinity(0))[-1:] if hasattr(os, "sched_getaffinity") else []
    command = [python(IRONCORE), _HERE / "ironcore.py", dim, beta, repeats, *cpu]
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    report = json.loads(done.stdout)
    return {f"ironcore {name}": [took / report["batch"] for took in report[name]] for name in ("api", "core")}


def alloy_encrypt(vectors: NDArray[np.float32], beta: float, key: int) -> NDArray[np.float32]:
    """Encrypt (n, d) vectors with ironcore-alloy under the key of that number, in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.f32", Path(folder) / "made.f32"
        given.write_bytes(np.ascontiguousarray(vectors, np.float32).tobytes())
        command = [python(IRONCORE), _HERE / "encrypt.py", given, made, vectors.shape[1], beta, key]
        subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
        return np.fromfile(made, np.float32).reshape(vectors.shape)
