"""Everything that people do with face embeddings, on plaintext and in stores under every scheme.

    python -m benchmarks.faces.everyday --lfw FILE.npz --photographs DIR        also results/faces-everyday.json

FILE.npz holds FaceNet embeddings of all of LFW (`emb`), in the order of the photographs in DIR, your own copy, whose
names and `pairs.txt` are read; no picture is opened. A stopped run continues after the last whole scheme.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import RESULTS
from encvec_store.keys import Keyset
from encvec_store.store import connect

from .environment import HERE
from .models import unit
from .photographs import load
from .setting import Bar, Settings
from .subjects import SKETCH
from .tasks import Plain, Tables, encrypted, tables

__all__ = ["everyday", "written"]

OUT = RESULTS / "faces-everyday.json"
_EACH = 4


def everyday(drawn: Tables, folder: Path, bar: Bar, beta: float) -> dict[str, Any]:
    """Run all tasks on plaintext and under `sealed`, `sketch` and `sap` of a beta: task -> what -> figure."""
    schemes: dict[str, Mapping[str, Any] | None] = {"plaintext": None, "sealed": {"name": "sealed"}}
    schemes |= {"encrypted": SKETCH, "sap": {"name": "sap", "beta": beta}}
    found: dict[str, Any] = {}
    with bar("everyday tasks", len(schemes) * _EACH) as advance:
        for name, scheme in schemes.items():
            path = folder / f"tasks-{name}.json"
            if not path.exists():
                figures = _run(drawn, scheme, lambda: advance(1))
                written(path, (json.dumps(figures, indent=1) + "\n").encode())
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    return {task: {name: figures[task] for name, figures in found.items()} for task in found["plaintext"]}


def _run(drawn: Tables, scheme: Mapping[str, Any] | None, done: Any) -> dict[str, Any]:
    if scheme is None:
        return drawn.run(lambda name, rows: Plain(drawn.vectors, rows), done)
    with (
        tempfile.TemporaryDirectory() as folder,
        connect(f"faiss://{Path(folder).absolute().as_posix()}", keyset=Keyset.create("memory:")) as store,
    ):
        return drawn.run(encrypted(store, drawn, scheme), done)


def written(path: Path, content: bytes) -> None:
    """Write a file, completely or not at all."""
    scratch = path.with_suffix(".tmp")
    scratch.write_bytes(content)
    os.replace(scratch, path)


@contextmanager
def _quiet(title: str, total: int) -> Iterator[Any]:
    print(title, flush=True)
    yield lambda steps: print(".", end="", flush=True)


def main() -> None:
    """Run, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", metavar="FILE", type=Path, required=True, help="embeddings of LFW")
    parser.add_argument("--photographs", metavar="DIR", type=Path, required=True, help="your own copy of LFW")
    parser.add_argument("--out", metavar="FILE", type=Path, default=OUT)
    given = parser.parse_args()
    settings, folder = Settings(), HERE / "out" / "everyday"
    folder.mkdir(parents=True, exist_ok=True)
    photographs = load(given.photographs)
    with np.load(given.lfw, allow_pickle=False) as kept:
        drawn = tables(photographs, unit(kept["emb"].astype(np.float32)), settings.seed)
    found = {"photographs": len(photographs), "tasks": everyday(drawn, folder, _quiet, settings.sap_beta)}
    print(json.dumps(found["tasks"], indent=1))
    written(given.out, (json.dumps(found, indent=1) + "\n").encode())
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
