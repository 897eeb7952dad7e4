"""Try to learn from which rows of a `sealed` collection are read together.

Usage: python -m benchmarks.watching [--n 4000] [--searches 1000] [--known 500] [--quick]

A server logs the rows that each search reads, under every dial. It knows the labels of some rows, and gives each other
row the label that most of the rows it was read with have, at one and two steps. Luck is the same with the known labels
shuffled. Texts are Banking77's, with 77 labels; searches are for texts of the same kind that are not stored.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.datasets import load
from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store import connect, low_level
from encvec_store.lab.bench.job import throwaway_keys

K, QUICK = 10, (600, 150, 100)
DIALS: dict[str, dict[str, Any]] = {
    "candidates": {"reads": "candidates"},
    "hits": {"reads": "hits"},
    "buckets": {"threat": "watching-server"},
    "prefetched": {"threat": "watching-server"},
}
Ints = npt.NDArray[np.int64]
MARGIN = 0.02
PLENTY = 1 << 30


def logged(records: Any) -> list[Ints]:
    """Have each read of rows written down. Returns the log."""
    log: list[Ints] = []

    def wrapped(read: Any) -> Any:
        def reading(rows: Ints, *given: Any) -> Any:
            if len(rows):
                log.append(np.asarray(rows))
            return read(rows, *given)

        return reading

    for name in ("current", "vectors", "payloads"):
        setattr(records, name, wrapped(getattr(records, name)))
    return log


def guessed(sets: list[Ints], labels: Ints, known: Ints, classes: int) -> Ints:
    """Return a label for each row: -1 where nothing is known.

    Args:
        sets: the places of rows that a search read.
        labels: (n,) of all rows; only those of `known` are looked at.
        known: places of rows whose labels the server knows.
        classes: how many labels there are.
    """
    votes = np.zeros((len(labels), classes))
    votes[known, labels[known]] = 1
    for _ in range(2):
        spread = np.zeros_like(votes)
        for places in sets:
            spread[places] += votes[places].sum(axis=0) / len(places)
        total = spread.sum(axis=1, keepdims=True)
        votes = np.divide(spread, total, out=np.zeros_like(spread), where=total > 0)
        votes[known] = 0
        votes[known, labels[known]] = 1
    return np.where(votes.any(axis=1), votes.argmax(axis=1), -1)


def learned(sets: list[Ints], labels: Ints, known: Ints) -> tuple[float, float]:
    """Return the share of the other rows whose labels are guessed, and that by luck."""
    classes, others = int(labels.max()) + 1, np.setdiff1d(np.arange(len(labels)), known)

    def share(told: Ints) -> float:
        return float((guessed(sets, told, known, classes)[others] == labels[others]).mean())

    mixed = labels.copy()
    mixed[known] = np.random.default_rng(7).permutation(labels[known])
    return share(labels), share(mixed)


def measured(n: int, searches: int, known: int, show: Show) -> list[Row]:
    """Log searches under every dial."""
    data = load("banking77")
    chosen = np.random.default_rng(0).permutation(len(data.vectors))
    stored, asked = chosen[:n], chosen[n : n + searches]
    if data.labels is None or len(asked) < searches:
        raise click.UsageError(f"n and searches must be at most {len(chosen):,} together")
    labels, names = data.labels[stored], [str(i) for i in range(n)]
    rows: list[Row] = []
    with throwaway_keys() as keys, tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder:
        url = f"faiss:{folder}/store?index=hnsw"
        with connect(url, keyset=keys, maintenance="manual") as store:
            things = store.collection("bench", data.vectors.shape[1], "cosine", "sealed")
            things.upsert(names, data.vectors[stored])
            things.maintain()
            things.search(data.vectors[asked[0]], K)
            size = things.stats()["sealed_index"]["memory_bytes"] + 4 * data.vectors[stored].nbytes // 5
            at = {int(row): place for place, row in enumerate(low_level.places(things, names))}
        for name, how in DIALS.items():
            more = {**how, "cache": Path(folder) / "cache"} if name == "buckets" else how
            memory = size if name == "buckets" else PLENTY
            with connect(url, keyset=keys, maintenance="manual", index_memory=memory, **more) as store:
                things = store.collection("bench")
                things.search(data.vectors[stored[0]], K)
                log, sets = logged(low_level.records(things)), []
                with show.stage(name, searches) as done:
                    for query in data.vectors[asked]:
                        log.clear()
                        things.search(query, K)
                        if log:
                            sets.append(np.array([at[int(row)] for row in np.unique(np.concatenate(log))]))
                        done(1)
                share, luck = learned(sets, labels, np.arange(known))
                read = sum(map(len, sets)) / searches
                rows.append(
                    {
                        **{"bench": "watching", "dataset": "banking77", "n": n, "searches": searches, "known": known},
                        **{"what": name, "scheme": "sealed", "rows_read": read, "labels": share, "luck": luck},
                        "sees": things.stats()["server_sees"],
                    }
                )
    return rows


def run(n: int, searches: int, known: int, show: Show) -> tuple[list[Row], list[Target]]:
    """Measure what a server that watches learns."""
    rows = measured(n, searches, known, show)
    show.table(f"{n:,} texts, {searches:,} searches", rows, ["what", "rows_read", "labels", "luck"])
    hidden = [row for row in rows if row["what"] in ("buckets", "prefetched")]
    return rows, [
        Target(f"{row['what']}: labels learned beyond luck", row["labels"] - row["luck"], "<=", MARGIN)
        for row in hidden
    ]


@click.command()
@click.option("--n", type=click.IntRange(100), default=4_000, show_default=True, help="Texts that are stored.")
@click.option("--searches", type=click.IntRange(1), default=1_000, show_default=True)
@click.option("--known", type=click.IntRange(1), default=500, show_default=True, help="Rows whose labels are known.")
@options
def main(n: int, searches: int, known: int, quick: bool, as_json: bool, out: str | None) -> None:
    """Measure what a server that watches learns of a sealed collection."""
    size = QUICK if quick else (n, searches, known)
    publish("watching", lambda show: run(*size, show), quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.watching")
    main()
