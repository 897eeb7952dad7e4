"""Results as files: JSON lines that a stopped run goes on from, and ann-benchmarks' HDF5 layout.

`rows.jsonl` holds one JSON object a line: `machine` for every run, then a `row` for each variant measured, which
names its run and its job. A job's rows are written together, so a job is there whole or not at all; a last line that
was torn is left out. Beside it stand, as ann-benchmarks (github.com/erikbern/ann-benchmarks) lays them out,
DATASET/K/ALGORITHM/PARAMETERS.hdf5 with `times`, `neighbors` and `distances` of every query.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .job import BenchJob, Measured, Row
from .machine import machine

__all__ = ["Results", "key_of", "machines", "read", "variant_of"]

ROWS = "rows.jsonl"
_DISTANCES = {"cosine": "angular", "l2": "euclidean", "ip": "ip"}
_WHICH = ("dataset", "n", "d", "metric", "k", "store", "index", "storage", "scheme", "beta", "precision", "reranked",
          "effort", "oversample", "device")  # fmt: skip


def key_of(job: BenchJob) -> str:
    """Return what tells a job from others: data, store, options, schemes, settings; no place and no secret."""
    store = (job.store or "faiss:").partition(":")[0]
    told = {
        "data": [job.data.name, len(job.data.vectors), job.data.vectors.dim, len(job.data.queries), job.data.metric],
        "store": store,
        "options": dict(job.options),
        "schemes": [dict(scheme) for scheme in job.schemes],
        "others": sorted(job.others),
        "precision": job.precision,
        "asked": [list(job.efforts), list(job.oversamples), job.k, job.passes, job.rounds, job.threads, job.memory],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def variant_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells a row from the others of any run: what was measured, not what came out."""
    return tuple(row.get(name) for name in _WHICH)


class Results:
    """A folder of results. Opening it reads what an earlier run left."""

    def __init__(self, folder: Path, *, hdf5: bool = True) -> None:
        self.folder, self._hdf5 = folder, hdf5
        self._path = folder / ROWS
        self._run = secrets.token_hex(4)
        self._begun = False
        self.rows = read([self._path]) if self._path.exists() else []
        self._done = {str(row.get("job")) for row in self.rows}

    def done(self, key: str) -> bool:
        """Whether a job's rows are there."""
        return key in self._done

    def of(self, key: str) -> list[Row]:
        """Return a job's rows."""
        return [row for row in self.rows if row.get("job") == key]

    def add(self, key: str, measured: Sequence[Measured]) -> list[Row]:
        """Write a job's rows, durably and at once; returns them."""
        lines: list[dict[str, Any]] = []
        if not self._begun:
            lines.append({"kind": "machine", "run": self._run, **machine()})
            self._begun = True
        rows = [{"kind": "row", "run": self._run, "job": key, **one.row} for one in measured]
        if self._hdf5:
            for one in measured:
                _write_hdf5(self.folder, one)
        self.folder.mkdir(parents=True, exist_ok=True)
        torn = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        text = "\n" * torn + "".join(json.dumps(line) + "\n" for line in [*lines, *rows])
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self.rows += rows
        self._done.add(key)
        return rows


def read(paths: Iterable[Path]) -> list[Row]:
    """Return the rows of files or folders of results, the last of each variant and run. Raises InputError."""
    return [line for line in _lines(paths) if line.get("kind", "row") == "row"]


def machines(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return what the runs in files or folders ran on."""
    return [line for line in _lines(paths) if line.get("kind") == "machine"]


def _lines(paths: Iterable[Path]) -> list[dict[str, Any]]:
    found = []
    for path in paths:
        place = path / ROWS if path.is_dir() else path
        try:
            text = place.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise InputError(f"no results: {place}") from None
        except UnicodeDecodeError:
            raise InputError(f"{place} holds no JSON lines") from None
        if text.startswith("["):
            found += json.loads(text)
            continue
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found.append(json.loads(line))
            except ValueError:
                # what a stopped run left of its last line; a later run began a new one after it
                if number >= len(lines) - 1 or not line.endswith("}"):
                    continue
                raise InputError(f"{place}, line {number}: not JSON") from None
    return [line for line in found if isinstance(line, dict)]


def _write_hdf5(folder: Path, one: Measured) -> None:
    h5py: Any = importlib.import_module("h5py")
    row = one.row
    algorithm = "-".join(filter(None, [row["store"].rstrip(":"), row["scheme"], "rerank" if row["reranked"] else None]))
    parts = {"index": row["index"], "storage": row["storage"], "beta": row["beta"], "effort": row["effort"]}
    parts |= {"oversample": row["oversample"]}
    parameters = "_".join(f"{name}={value}" for name, value in parts.items() if value is not None)
    place = (
        folder / _safe(f"{row['dataset']}-n{row['n']}") / str(row["k"]) / _safe(algorithm) / f"{_safe(parameters)}.hdf5"
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    k, asked = row["k"], len(one.neighbours)
    neighbours, distances = np.full((asked, k), -1, np.int64), np.full((asked, k), np.inf)
    for i, (near, far) in enumerate(zip(one.neighbours, one.distances, strict=True)):
        neighbours[i, : len(near[:k])], distances[i, : len(far[:k])] = near[:k], far[:k]
    times = one.seconds[:asked]
    with h5py.File(place, "w") as file:
        file.attrs["algo"], file.attrs["name"] = algorithm, f"{algorithm}({parameters})"
        file.attrs["dataset"], file.attrs["count"] = row["dataset"], k
        file.attrs["distance"] = _DISTANCES[row["metric"]]
        file.attrs["batch_mode"], file.attrs["run_count"] = False, row["passes"]
        file.attrs["best_search_time"] = float(one.seconds.reshape(-1, asked).mean(axis=1).min())
        file.attrs["build_time"], file.attrs["index_size"] = row["build_s"], row["bytes"] / 1024
        file.attrs["candidates"] = float(np.mean([len(near) for near in one.neighbours]))
        file.attrs["expect_extra"] = False
        file["times"], file["neighbors"], file["distances"] = times, neighbours, distances


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", name)[:120] or "-"
