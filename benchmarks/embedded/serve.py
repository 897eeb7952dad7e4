"""Runs one store in its own process and environment, by JSON lines, with one thread if the store allows it.

Usage: python -m benchmarks.embedded.serve STORE QUERIES.npy

Each input line {"do": ..., ...} gives one output line, {"error": ...} if it failed; `write` first gives lines
{"progress": records}. Times are this process's own, so that sending does not count.

    open     place, dim, create, shared, options   -> version, open_s, settings
    write    vectors, documents, first, shift, batch -> write_s, finish_s; record i gets vector and document i + shift
    set      setting                               -> (nothing)
    search   rows, k, together                     -> seconds, cpu, ids, documents (CRC-32 of each)
    tell                                           -> disk, rss_mb, own_mb (without mapped files), peak_mb,
                                                      written_mb, threads
    close                                          -> (nothing)
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embedded.stores import Chroma, Faiss, Lance, Qdrant, Store

PEERS: dict[str, Callable[..., Store]] = {"faiss": Faiss, "chromadb": Chroma, "lancedb": Lance, "qdrant": Qdrant}
IMPORTS = {"faiss": "faiss", "chromadb": "chromadb", "lancedb": "lancedb", "qdrant": "qdrant_client"}
_KIB = 1024


class Server:
    """Answers what it is told."""

    def __init__(self, name: str, queries: str, answer: Callable[[dict[str, Any]], None]) -> None:
        start = time.perf_counter()
        if name in PEERS:
            importlib.import_module(IMPORTS[name])
            self._make: Callable[..., Store] = PEERS[name]
        else:
            importlib.import_module("faiss")  # a store loads it when it is opened: this counts as import
            ours: Any = importlib.import_module("benchmarks.embedded.ours")
            self._make = {"encvec": ours.Ours, "pgvector": ours.Pgvector}[name]
        self.import_s = time.perf_counter() - start
        self.queries = np.load(queries)
        self._answer = answer
        self._store: Any = None

    def open(self, place: str, dim: int, create: bool, shared: bool, options: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        self._store = self._make(place, dim, create=create, shared=shared, options=options)
        took = time.perf_counter() - start
        settings: Any = self._make
        return {"version": self._store.version, "open_s": took, "settings": list(settings.SETTINGS)}

    def write(self, vectors: str, documents: str, first: int, shift: int, batch: int) -> dict[str, Any]:
        stored, took = np.load(vectors, mmap_mode="r"), 0.0
        with Path(documents).open(encoding="utf-8") as file:
            texts = [json.loads(line) for line in file]
        n = len(stored)
        for start in range(0, n, batch):
            rows = np.arange(start, min(start + batch, n))
            from_ = (rows + shift) % n
            some, said = np.array(stored[from_], np.float32), [texts[i] for i in from_]
            begun = time.perf_counter()
            self._store.write((first + rows).tolist(), some, said)
            took += time.perf_counter() - begun
            self._answer({"progress": len(rows)})
        begun = time.perf_counter()
        self._store.finish()
        return {"write_s": took, "finish_s": time.perf_counter() - begun}

    def set(self, setting: dict[str, int]) -> dict[str, Any]:
        self._store.set(setting)
        return {}

    def search(self, rows: list[int], k: int, together: bool) -> dict[str, Any]:
        seconds, found, busy = [], [], time.process_time()
        blocks = [self.queries[rows]] if together else [self.queries[row : row + 1] for row in rows]
        for block in blocks:
            start = time.perf_counter()
            hits = self._store.search(block, k)
            seconds.append(time.perf_counter() - start)
            found += hits
        cpu = time.process_time() - busy
        ids = [[id for id, _ in hits] for hits in found]
        return {"seconds": seconds, "cpu": cpu, "ids": ids,
                "documents": [[zlib.crc32(document.encode()) for _, document in hits] for hits in found]}  # fmt: skip

    def tell(self) -> dict[str, Any]:
        disk = None if self._store is None else self._store.disk()
        told: dict[str, Any] = {"disk": disk, "import_s": self.import_s}
        try:
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
            written = dict(line.split(": ") for line in Path("/proc/self/io").read_text("ascii").splitlines())
        except OSError:  # only Linux tells
            return {**told, "rss_mb": None, "own_mb": None, "peak_mb": None, "written_mb": None, "threads": None}
        rss, own, peak = (int(lines[name].split()[0]) / _KIB for name in ("VmRSS", "RssAnon", "VmHWM"))
        count = int(lines["Threads"])
        out = int(written["write_bytes"]) / _KIB**2
        return {**told, "rss_mb": rss, "own_mb": own, "peak_mb": peak, "written_mb": out, "threads": count}

    def close(self) -> dict[str, Any]:
        self._store.close()
        self._store = None
        return {}


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")  # what a library prints must not mix with our lines
    os.dup2(2, 1)

    def answer(told: dict[str, Any]) -> None:
        print(json.dumps(told), file=answers, flush=True)

    server = Server(sys.argv[1], sys.argv[2], answer)
    for line in sys.stdin:
        told = json.loads(line)
        try:
            made = getattr(server, told.pop("do"))(**told)
        except Exception as error:  # whatever a store raises must reach the benchmark
            words = str(error).strip().splitlines()
            made = {"error": f"{type(error).__name__}: {words[0] if words else 'no reason given'}"}
        answer(made)


if __name__ == "__main__":
    main()
