"""What a thief gets from the stores of the demo: bytes that lie in the files, then real attacks on what is stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.datasets import Dataset
from benchmarks.report import Row
from encvec_store.data import metric
from encvec_store.lab.bench.encrypted import Encrypted
from encvec_store.lab.leakage.algebra import float32, unit
from encvec_store.lab.leakage.attacks.expectation import by_labels, by_pairs
from encvec_store.lab.leakage.metrics import hits
from encvec_store.lab.leakage.views import Case, view

__all__ = ["Thief"]

RECORDS, SAMPLE, PAIRS = 4_000, 100, 100
_NEEDLE = 64
"""Bytes of a vector that are looked for."""


class Thief:
    """Holds the files and the public model, and no key.

    Args:
        data: what was stored, to count by; its queries are other texts of the kind, which he has with their labels.
        texts: that were stored.
        names: of the labels.
    """

    def __init__(self, data: Dataset, texts: Sequence[str], names: Sequence[str]) -> None:
        assert data.labels is not None
        assert data.query_labels is not None
        self._data, self._texts, self._names = data, texts, names
        rng = np.random.default_rng(0)
        self._rows = rng.permutation(len(data.vectors))[:RECORDS]
        self.records = len(self._rows)
        self._own = unit(float32(data.vectors[self._rows]))
        self._labels = data.labels[self._rows]
        self._others, self._theirs = unit(float32(data.queries)), data.query_labels

    def read(self, folders: Sequence[Path], done: Callable[[int], None]) -> list[Row]:
        """Count vectors, texts and labels whose very bytes lie in the files of each folder, of a sample."""
        some = self._rows[:SAMPLE].tolist()
        needles = {
            "vectors": [vector.tobytes()[:_NEEDLE] for vector in metric("cosine").lift(self._data.vectors[some])],
            "texts": [self._texts[row].encode() for row in some],
            "intents": [name.encode() for name in self._names],
        }
        rows: list[Row] = [{"what": what} for what in needles]
        for folder in folders:
            content = b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
            for row, wanted in zip(rows, needles.values(), strict=True):
                row[folder.name] = f"{sum(one in content for one in wanted)} of {len(wanted)}"
            done(1)
        return rows

    def attack(self, held: Mapping[str, Encrypted], file: Path, done: Callable[[int], None]) -> list[Row]:
        """Return the share of records that are named, by what he has beside the files.

        Args:
            held: the collections by scheme; only what the store holds of them is taken.
            file: SQLite's file of the sealed records.
            done: called after each kind of thief.
        """
        taken = held["sketch"].collection.index_vectors([str(row) for row in self._rows])
        noise = float(held["sketch"].stats()["scheme"]["beta"]) / 4
        sizes = _sizes(file)
        chance = 1 / len(self._rows)
        plain = float(hits(self._own, self._own).mean())
        rows: list[Row] = []

        def tell(holds: str, share: float) -> None:
            sealed = _named_by_size(sizes, len(self._rows), len(rows))
            rows.append({"holds": holds, "plaintext": plain, "sealed": sealed, "sketch": share, "chance": chance})
            done(1)

        shuffled = np.random.default_rng(1).permutation(len(self._own))
        for holds, corpus, labels in (
            ("the same texts, with intents", self._own[shuffled], self._labels[shuffled]),
            (f"{len(self._others):,} others, with intents", self._others, self._theirs),
        ):
            seen = view("sphere", Case(taken, corpus, np.random.default_rng(0), noise))
            assert seen is not None
            located = by_labels(seen.cipher, self._labels, seen.frame(corpus), labels)
            tell(holds, float(hits(located, seen.frame(self._own)).mean()))
        seen = view("sphere", Case(taken, self._others, np.random.default_rng(0), noise))
        assert seen is not None
        known, placed = np.arange(PAIRS), seen.frame(self._own)
        located = by_pairs(seen.cipher, known, placed[known], seen.frame(self._others))
        tell(f"{len(self._others):,} others, {PAIRS} known pairs", float(hits(located, placed)[PAIRS:].mean()))
        return rows


def _sizes(file: Path) -> npt.NDArray[np.int64]:
    """Return the sizes of all sealed payloads, which is what a sealed store shows of a record."""
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    found = np.array([size for (size,) in database.execute("SELECT length(payload) FROM records ORDER BY row")])
    database.close()
    return found


def _named_by_size(sizes: npt.NDArray[np.int64], records: int, seed: int) -> float:
    """Guess which record is which among those of one size, for somebody who knows every size; count the right ones."""
    rng = np.random.default_rng(seed)
    some = sizes[rng.permutation(len(sizes))[:records]]
    right = 0
    for size in np.unique(some):
        count = int((some == size).sum())
        right += int((rng.permutation(count) == np.arange(count)).sum())
    return right / records
