"""Searches while another process writes and indexes records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.embedded.contest import BLOCK, WARM_UP, Contest
from benchmarks.embedded.worker import System, Worker
from benchmarks.report import Row

__all__ = ["during_ingest"]

_BATCH, _LEAST, _MOST = 1_000, 500, 50_000
_FREE = 1_000
"""Ids left free after those of the data, for other parts."""


def during_ingest(contest: Contest, systems: Sequence[System]) -> list[Row]:
    """Time searches of one process while nobody writes, and while another one adds a fifth as many records.

    Only stores that show another process's writes: `contest.other_writer` says which do.
    """
    job, n = contest.job, len(contest.job.data.vectors)
    count = min(max(n // 5, _LEAST), _MOST, n)
    vectors, documents = job.folder / "more.npy", job.folder / "more.jsonl"
    np.save(vectors, np.load(job.files[0], mmap_mode="r")[:count])
    documents.write_text("".join(json.dumps(f"more, {i}") + "\n" for i in range(count)), encoding="utf-8")
    told: dict[str, Any] = {"vectors": str(vectors), "documents": str(documents), "batch": _BATCH, "shift": 0}

    def one(system: System) -> Row:
        rows = list(range(job.queries))
        with (
            Worker(system, job.files[2], contest.timeout) as reader,
            Worker(system, job.files[2], contest.timeout) as writer,
            ThreadPoolExecutor(1) as pool,
        ):
            reader.open(job.data.vectors.dim, shared=True)
            reader.ask("set", setting=contest.settings[system.name])
            writer.open(job.data.vectors.dim, shared=True)
            reader.ask("search", rows=rows[:WARM_UP], k=job.k, together=False)
            idle = reader.ask("search", rows=rows, k=job.k, together=False)["seconds"]
            wrote = pool.submit(writer.ask, "write", **told, first=n + _FREE)
            busy, at = list[float](), 0
            while not wrote.done():
                some = [rows[(at + i) % len(rows)] for i in range(min(BLOCK, len(rows)))]
                busy += reader.ask("search", rows=some, k=job.k, together=False)["seconds"]
                at += len(some)
            took = wrote.result()
            for worker in (reader, writer):
                worker.ask("close")
        row = contest.row("during ingest", system, "warm", per_s=count / (took["write_s"] + took["finish_s"]))
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99)):
            row[name], row[f"idle_{name}"] = (1e3 * float(np.quantile(taken, share)) for taken in (busy, idle))
        return {**row, "searches": len(busy), "p99_over_idle": row["p99_ms"] / row["idle_p99_ms"]}

    with contest.show.stage("searching while another process writes", len(systems)) as done:
        rows = []
        for system in systems:
            rows += contest.each(one, [system])
            done(1)
    return rows
