"""Measure writes into a `faiss:` store: encrypted, sealed and committed, before any graph is built.

Usage: python -m benchmarks.ingest [--quick]

For each batch size, in turns on the same records:

    whole      collection.upsert: checks, payloads, index vectors, sealing, one durable transaction per batch
    encrypt    the same without the transaction
    disk       SQLite alone: blobs of the same sizes into one table, equally durable (WAL, synchronous=FULL)

A record has 384 coordinates and an id. In the last row it also has the sentence as its document, and the intent as a
blind field.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.datasets import Dataset, load
from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store import Collection, Keyset, connect, low_level
from encvec_store.data import encode_payload
from encvec_store.lab.bench.encrypted import fill

BATCHES = (100, 1_000, 5_000, 20_000)
DEFAULT_BATCH = 5_000
TARGET = 20_000


def whole(collection: Collection, data: Dataset, batch: int, texts: bool) -> float:
    """Upsert everything; returns seconds."""
    metadata = None
    if texts and data.labels is not None:
        metadata = [{"intent": int(label)} for label in data.labels]
    return fill(collection, data.vectors, batch=batch, metadata=metadata, documents=data.texts if texts else None)


def encrypt(collection: Collection, data: Dataset, batch: int) -> float:
    """Encrypt and seal everything, but write nothing; returns seconds."""
    session = low_level.session(collection)
    start = time.perf_counter()
    for first in range(0, len(data.vectors), batch):
        vectors = data.vectors[first : first + batch]
        ids = [str(first + i) for i in range(len(vectors))]
        payloads = [encode_payload(id, {}, None) for id in ids]
        session.keyring.seal(session.config, ids, vectors, payloads, [{}] * len(ids))
    return time.perf_counter() - start


def disk(path: Path, n: int, dim: int, batch: int) -> float:
    """Write rows as large as n records; returns seconds."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("page_size = 8192", "journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE t (row INTEGER PRIMARY KEY, token BLOB, payload BLOB, vector BLOB, sealed BLOB)")
    row = tuple(os.urandom(size) for size in (16, 100, 4 * dim, 4 * dim + 84))
    start = time.perf_counter()
    for first in range(0, n, batch):
        connection.execute("BEGIN IMMEDIATE")
        rows = ((i, *row) for i in range(first, min(n, first + batch)))
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    took = time.perf_counter() - start
    connection.close()
    return took


def measure(data: Dataset, batch: int, *, texts: bool, repeats: int, folder: Path) -> Row:
    """Time the three in turn, each on fresh files; the fastest of the repeats counts."""
    n, dim = data.vectors.shape
    times: dict[str, list[float]] = {"whole": [], "encrypt": [], "disk": []}
    for turn in range(repeats):
        place = folder / f"{data.name}-{batch}-{texts}-{turn}".replace(":", "-")
        with connect(f"faiss:{place}", keyset=Keyset.create("memory:"), maintenance="inline") as store:
            collection = store.collection("bench", dim, scheme="sap", fields={"intent": "blind"} if texts else None)
            runs: dict[str, Callable[[], float]] = {
                "whole": lambda c=collection: whole(c, data, batch, texts),  # type: ignore[misc]
                "encrypt": lambda c=collection: encrypt(c, data, batch),  # type: ignore[misc]
                "disk": lambda p=place: disk(p / "disk.sqlite3", n, dim, batch),  # type: ignore[misc]
            }
            for name, go in runs.items():
                times[name].append(go())
            assert collection.count() == n
            store.drop("bench")
    row: dict[str, Any] = {"bench": "ingest", "dataset": data.name, "n": n, "d": dim, "batch": batch, "texts": texts}
    for name, taken in times.items():
        row[f"{name}_per_s"] = n / min(taken)
        row[f"{name}_per_s_median"] = n / float(np.median(taken))
    return {**row, "repeats": repeats}


def run(quick: bool, show: Show) -> tuple[list[Row], list[Target]]:
    """Measure every batch size."""
    data = load("synthetic:1000x384" if quick else "synthetic:20000x384")
    repeats = 1 if quick else 3
    with tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder:
        rows = [
            measure(data, batch, texts=False, repeats=repeats, folder=Path(folder))
            for batch in show.each([b for b in BATCHES if b <= len(data.vectors)], "ingest, batches of", str)
        ]
        real = load("banking77", limit=500 if quick else None)
        with show.stage("ingest with texts", 1):
            rows.append(measure(real, DEFAULT_BATCH, texts=True, repeats=repeats, folder=Path(folder)))
    show.table(
        "Records per second into faiss:, before the graph; fastest of the repeats",
        rows,
        ["dataset", "n", "batch", "texts", "whole_per_s", "whole_per_s_median", "encrypt_per_s", "disk_per_s"],
    )
    best = max(row["whole_per_s"] for row in rows if not row["texts"])
    return rows, [Target("records/s into faiss:, d=384, best batch size", best, ">=", TARGET)]


@click.command()
@options
def main(quick: bool, as_json: bool, out: str | None) -> None:
    """Measure the write path."""
    publish("ingest", lambda show: run(quick, show), quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.ingest")
    main()
