"""Everything that people do with face embeddings, on plaintext and in stores under every scheme."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encvec_store.keys import Keyset
from encvec_store.store import connect

from .setting import Bar
from .subjects import SKETCH
from .tasks import Plain, Tables, encrypted

__all__ = ["everyday", "written"]

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
