"""Measures stores beside each other: loading, opening, searching by turns, after updates, after another's write."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpora import find
from benchmarks.datasets import load
from benchmarks.embedded.worker import System, Worker, WorkerError
from benchmarks.report import Row, Show
from encvec_store.data import metric
from encvec_store.lab.bench.source import Data
from encvec_store.lab.bench.truth import Truth

__all__ = ["BLOCK", "RECALL", "WARM_UP", "Contest", "Job", "prepared"]

RECALL = 0.99
BATCH, BLOCK, WARM_UP, TUNING, TOGETHER = 5_000, 10, 50, 100, 100
ROUNDS = 7
SHIFT = 1
"""An update gives record i the vector and document of record i + SHIFT."""


@dataclass(frozen=True)
class Job:
    """What to measure on."""

    data: Data
    folder: Path
    queries: int
    k: int
    document_bytes: int

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """Vectors, documents, queries."""
        return self.folder / "vectors.npy", self.folder / "documents.jsonl", self.folder / "queries.npy"


def prepared(name: str, n: int, dim: int, folder: Path, queries: int, k: int, document_bytes: int) -> Job:
    """Write a data set's files. Those without a size in their name get it; only Banking77 has its own documents."""
    sized = name in ("clustered", "synthetic", "iid")
    data = find(f"{name}:{n}x{dim}" if sized else name, None if sized else n)
    job = Job(data.first(queries + TUNING), folder, min(queries, len(data.queries)), k, document_bytes)
    vectors, documents, asked = job.files
    stored = np.lib.format.open_memmap(vectors, "w+", np.float32, (len(data.vectors), data.vectors.dim))
    for first, some in data.vectors.slices():
        stored[first : first + len(some)] = some
    stored.flush()
    np.save(asked, np.asarray(job.data.queries, np.float32))
    sentences = load("banking77").texts or []
    with documents.open("w", encoding="utf-8") as file:
        for i in range(len(data.vectors)):
            text, more = f"{i}: {sentences[i % len(sentences)]}", i
            while len(text) < document_bytes:
                more += 1
                text += " " + sentences[more % len(sentences)]
            file.write(json.dumps(text) + "\n")
    return job


class Contest:
    """Some stores on one data set. A store that fails is left out from then on, with a note."""

    def __init__(self, job: Job, systems: Sequence[System], show: Show, bench: str, timeout: float) -> None:
        self.job, self.show, self.bench, self.timeout = job, show, bench, timeout
        self.systems = list(systems)
        self.repeats = 3
        """Times that each store is opened cold and warm."""
        self.versions: dict[str, str] = {}
        self.settings: dict[str, dict[str, int]] = {}
        n = len(job.data.vectors)
        with show.stage("exact neighbours", n) as done:
            self.truth = Truth(metric("cosine"), job.data.vectors, job.data.queries, job.k, done)
        with job.files[1].open(encoding="utf-8") as file:
            self.crc = [zlib.crc32(json.loads(line).encode()) for line in file]

    def row(self, part: str, system: System, state: str, **more: Any) -> Row:
        """Begin a row."""
        data, setting = self.job.data, self.settings.get(system.name, {})
        begun: Row = {"bench": self.bench, "part": part, "what": system.name, "version": self.versions[system.name]}
        begun |= {"dataset": data.name, "n": len(data.vectors), "d": data.vectors.dim, "k": self.job.k}
        begun |= {"documents": True, "document_bytes": self.job.document_bytes, "state": state, "threads": 1}
        return {**begun, "setting": ", ".join(f"{k} {v}" for k, v in setting.items()) or "its own", **more}

    def each(self, measure: Callable[[System], Row], systems: Sequence[System] | None = None) -> list[Row]:
        """Measure each store; one that fails is left out."""
        rows = []
        for system in [*(systems or self.systems)]:
            try:
                rows.append(measure(system))
            except WorkerError as error:
                self._leave(system, error)
        return rows

    def _leave(self, system: System, error: WorkerError) -> None:
        self.show.note(f"{system.name} is left out: {str(error).removeprefix(f'{system.name}: ')}")
        self.systems = [other for other in self.systems if other.name != system.name]

    def _worker(self, system: System) -> Worker:
        return Worker(system, self.job.files[2], self.timeout)

    def _write(self, system: System, part: str, *, create: bool, shift: int) -> Row:
        n, dim = len(self.job.data.vectors), self.job.data.vectors.dim
        vectors, documents, _ = self.job.files
        with self._worker(system) as worker, self.show.stage(f"{part}: {system.name}", n) as done:
            libraries = worker.ask("tell")
            opened = worker.open(dim, create=create)
            self.versions[system.name] = opened["version"]
            self.settings.setdefault(system.name, opened["settings"][-1])
            told: dict[str, Any] = {"vectors": str(vectors), "documents": str(documents), "batch": BATCH}
            took = worker.ask("write", done, **told, first=0, shift=shift)
            (first,) = worker.ask("search", rows=[0], k=self.job.k, together=False)["seconds"]
            after = worker.ask("tell")
            worker.ask("close")
        whole = took["write_s"] + took["finish_s"] + first
        row = self.row(part, system, "cold", per_s=n / whole, write_s=took["write_s"], build_s=took["finish_s"] + first)
        row |= {"bytes": after["disk"], "peak_rss_mb": after["peak_mb"], "library_mb": libraries["rss_mb"]}
        return {**row, "written_mb": _less(after["written_mb"], libraries["written_mb"])}

    def ingest(self) -> list[Row]:
        """Load and index all records: one store after the other; records a second until a first search has answered."""
        return self.each(lambda system: self._write(system, "ingest", create=True, shift=0))

    def update(self) -> list[Row]:
        """Replace every record once."""
        return self.each(lambda system: self._write(system, "update", create=False, shift=SHIFT))

    def opening(self) -> list[Row]:
        """Time a fresh process from opening to its first answer; cold: its files are out of the page cache before."""
        dim, rows, taken = self.job.data.vectors.dim, list[Row](), dict[tuple[str, str], list[dict[str, float]]]()

        def once(system: System, state: str) -> Row:
            if state == "cold":
                _forget(system.folder)
            with self._worker(system) as worker:
                imports = worker.ask("tell")["import_s"]
                opened = worker.open(dim)["open_s"]
                (first,) = worker.ask("search", rows=[1], k=self.job.k, together=False)["seconds"]
                worker.ask("close")
            taken.setdefault((state, system.name), []).append({"open_s": opened + first, "import_s": imports})
            return {}

        states = [state for state in ("cold", "warm") if state == "warm" or all(s.folder for s in self.systems)]
        with self.show.stage("opening", self.repeats * len(states)) as done:
            for _ in range(self.repeats):
                for state in states:
                    for system in [*self.systems]:
                        self.each(lambda one, state=state: once(one, state), [system])  # type: ignore[misc]
                    done(1)
        for state in states:
            for system in self.systems:
                found = taken[state, system.name]
                median = {key: float(np.median([one[key] for one in found])) for key in found[0]}
                rows.append(self.row("opening", system, state, **median))
        return rows

    def search(self, part: str = "search", copies: Sequence[System] = (), shifted: bool = False) -> list[Row]:
        """Search by turns: a block of queries to each store in turn, in changing order.

        `copies` are the same stores before their updates: their rows give what updates cost.
        """
        systems, k, dim = [*self.systems, *copies], self.job.k, self.job.data.vectors.dim
        seconds: dict[str, list[float]] = {system.name: [] for system in systems}
        cpu, found = dict.fromkeys(seconds, 0.0), {name: list[list[int]]() for name in seconds}
        libraries: dict[str, float | None] = {}
        with ExitStack() as stack:
            workers = {system.name: stack.enter_context(self._worker(system)) for system in systems}
            with self.show.stage(f"{part}: choosing settings", len(systems)) as done:
                for system in systems:
                    try:
                        worker = workers[system.name]
                        libraries[system.name] = worker.ask("tell")["own_mb"]
                        opened = worker.open(dim)
                        self.versions[system.name] = opened["version"]
                        shift = SHIFT if shifted and system not in copies else 0
                        self._choose(worker, opened["settings"], shift)
                    except WorkerError as error:
                        self._leave(system, error)
                        workers.pop(system.name, None)
                    done(1)
            names = list(workers)
            with self.show.stage(part, self.job.queries) as done:
                for turn, start in enumerate(range(0, self.job.queries, BLOCK)):
                    rows = list(range(start, min(start + BLOCK, self.job.queries)))
                    shift = turn % len(names)
                    for name in names[shift:] + names[:shift]:
                        answer = workers[name].ask("search", rows=rows, k=k, together=False)
                        seconds[name] += answer["seconds"]
                        cpu[name] += answer["cpu"]
                        found[name] += answer["ids"]
                        moved = SHIFT if shifted and workers[name].system not in copies else 0
                        self.check(name, answer, moved)
                    done(len(rows))
            together: dict[str, list[float]] = {name: [] for name in names}
            some = list(range(min(TOGETHER, self.job.queries)))
            for _ in range(3):
                for name in names:
                    together[name] += workers[name].ask("search", rows=some, k=k, together=True)["seconds"]
            told = {name: workers[name].ask("tell") for name in names}
            for name in names:
                workers[name].ask("close")
        made = []
        for system in systems:
            name = system.name
            if name not in workers:
                continue
            moved = SHIFT if shifted and system not in copies else 0
            p50, p99 = (1e3 * float(np.quantile(seconds[name], share)) for share in (0.5, 0.99))
            row = self.row(part, system, "warm", p50_ms=p50, p99_ms=p99, cpu_ms=1e3 * cpu[name] / self.job.queries)
            row["recall@10" if k == 10 else f"recall@{k}"] = self._recall(found[name], 0, moved)
            row["batch_ms"] = 1e3 * float(np.median(together[name])) / len(some)
            row |= {"rss_mb": told[name]["rss_mb"], "library_mb": libraries[name]}
            row["memory_mb"] = _less(told[name]["own_mb"], libraries[name])
            made.append({**row, "process_threads": told[name]["threads"], "bytes": told[name]["disk"]})
        return made

    def _choose(self, worker: Worker, settings: Sequence[dict[str, int]], shift: int) -> None:
        """Set the first setting that finds enough, untimed; else the one that finds most."""
        first = self.job.queries
        rows = list(range(len(self.job.data.queries)))
        best = -1.0
        for setting in settings if len(settings) > 1 else []:
            worker.ask("set", setting=setting)
            found = worker.ask("search", rows=rows, k=self.job.k, together=False)["ids"]
            recall = self._recall(found, rows[0], shift)
            if recall > best:
                best, self.settings[worker.system.name] = recall, setting
            if recall >= RECALL:
                break
        if best < RECALL and len(settings) > 1:
            worker.ask("set", setting=self.settings[worker.system.name])
        worker.ask("search", rows=list(range(min(WARM_UP, first))), k=self.job.k, together=False)

    def _recall(self, found: Sequence[Sequence[int]], first: int, shift: int) -> float:
        n = len(self.crc)
        places: list[NDArray[np.int64]] = [(np.array(ids, np.int64) + shift) % n for ids in found]
        return self.truth.part(slice(first, first + len(places))).recall(places, self.job.k)

    def check(self, name: str, answer: Mapping[str, Any], shift: int) -> None:
        """Raise if a hit came with another record's document."""
        n = len(self.crc)
        for ids, documents in zip(answer["ids"], answer["documents"], strict=True):
            if documents != [self.crc[(id + shift) % n] for id in ids]:
                raise RuntimeError(f"{name} returned wrong documents: the figures would be worth nothing")

    def updated(self, copied: Callable[[System], System]) -> list[Row]:
        """Replace every record once, then search by turns beside a copy made before; `copied` makes one."""
        copies = [replace(copied(system), name=f"{system.name}, fresh") for system in self.systems]
        rows = self.update()
        searched = self.search("updated", copies, shifted=True)
        p50 = {row["what"]: row["p50_ms"] for row in searched}
        for row in searched:
            fresh = p50.get(f"{row['what']}, fresh")
            row["p50_over_fresh"] = row["p50_ms"] / fresh if fresh else None
        return rows + searched

    def other_writer(self) -> list[Row]:
        """Time the first search after another process has written one record, which is that search's nearest."""
        k, dim, n = self.job.k, self.job.data.vectors.dim, len(self.crc)
        vectors, documents = self.job.folder / "one.npy", self.job.folder / "one.jsonl"
        told: dict[str, Any] = {"vectors": str(vectors), "documents": str(documents), "batch": 1, "shift": 0}
        rounds = min(ROUNDS, self.job.queries)

        def one(system: System) -> Row:
            idle, first, seen = list[float](), list[float](), 0
            with self._worker(system) as reader, self._worker(system) as writer:
                reader.open(dim, shared=True)
                reader.ask("search", rows=list(range(min(WARM_UP, self.job.queries))), k=k, together=False)
                for turn in range(rounds):
                    np.save(vectors, np.asarray(self.job.data.queries[turn : turn + 1], np.float32))
                    documents.write_text(json.dumps(f"another process wrote this, {turn}") + "\n", encoding="utf-8")
                    idle += reader.ask("search", rows=list(range(rounds)), k=k, together=False)["seconds"]
                    if not turn:
                        writer.open(dim, shared=True)
                    writer.ask("write", **told, first=n + turn)
                    answer = reader.ask("search", rows=[turn], k=k, together=False)
                    first += answer["seconds"]
                    seen += n + turn in answer["ids"][0]
                for worker in (reader, writer):
                    worker.ask("close")
            p50, after = 1e3 * float(np.median(idle)), 1e3 * float(np.median(first))
            row = self.row("other writer", system, "warm", p50_ms=p50, next_ms=after, extra_ms=after - p50)
            return {**row, "seen": seen / len(first)}

        with self.show.stage("another process writes", len(self.systems)) as done:
            rows: list[Row] = []
            for system in [*self.systems]:
                try:
                    rows.append(one(system))
                except WorkerError as error:  # a store for one process at a time is no failure
                    self.show.note(f"{error}")
                    reason = str(error).partition(": ")[2].replace(system.place, "its folder")
                    rows.append(self.row("other writer", system, "warm", refused=reason))
                done(1)
        return rows


def ratios(rows: Sequence[Row], bases: Mapping[str, str]) -> None:
    """Add p50 over that of other stores in the same run: `bases` maps a column to a store."""
    p50 = {row["what"]: row["p50_ms"] for row in rows if row["part"] == "search"}
    for column, base in bases.items():
        for row in rows:
            p50 = {
                other["what"]: other["p50_ms"] for other in rows if other["part"] == row["part"] and "p50_ms" in other
            }
            if row["part"] == "search" and base in p50:
                row[column] = row["p50_ms"] / p50[base]


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _forget(folder: Path | None) -> None:
    """Take a folder's files out of the page cache, if the system can."""
    if folder is None or not hasattr(os, "posix_fadvise"):
        return
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
