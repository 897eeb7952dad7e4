"""Steal stores of `sealed` and of `sketch`, and name their records.

Usage: python -m benchmarks.stolen [--n 4000] [--keys 3] [--sketch] [--quick]

Texts are Banking77's, written in order, 100 an upsert. The thief has a copy of the files and no key. Under `sealed`
he has the very same texts and tries order and padded sizes: of the single sentences, and of longer documents of one
to twelve sentences. Then 100 texts are written anew and he compares two copies. Last, he asks of each text whether it
is stored at all, among as many others of the kind: sizes say how many of each size are (area under the ROC curve, luck
.5). With --sketch the store keeps index vectors at the floor (k=250, beta 5), and the attacks of the lab begin with its
files and 4,583 other texts, or the very same ones: a plain field of 77, 20, 10, 5 and 2 classes, a blind one of 77 and
20, sizes, order, two dumps, pairs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.datasets import load
from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store import Collection, connect, low_level
from encvec_store.lab.bench.job import throwaway_keys
from encvec_store.lab.leakage import Haul, Holdings, attack_hauls, guessed, hauls, stolen
from encvec_store.lab.leakage.algebra import float32, unit
from encvec_store.lab.leakage.metrics import auc

UPSERT, CHANGED, LONGEST = 100, 100, 12
FLOOR = {"name": "sketch", "k": 250, "beta": 5.0}
Ints = npt.NDArray[np.int64]
LIMIT = 0.005
PLAIN, BLIND, PAIRS = (77, 20, 10, 5, 2), (77, 20), (10, 20, 50)


class Texts:
    """What is stored, n records drawn for a key, and 4,583 other texts of the kind."""

    def __init__(self, n: int, key: int) -> None:
        data = load("banking77")
        assert data.labels is not None
        assert data.texts is not None
        order = np.random.default_rng(key).permutation(len(data.vectors))
        mine, theirs = order[:n], order[n:][:4_583]
        self.vectors, self.labels = unit(float32(data.vectors[mine])), data.labels[mine]
        self.others, self.their_labels = unit(float32(data.vectors[theirs])), data.labels[theirs]
        self.short = [data.texts[i] for i in mine]
        self.long = _joined(self.short, key)
        self.absent = [data.texts[i] for i in theirs[:n]]
        self.ids = [str(i) for i in range(n)]

    def write(self, things: Collection, documents: list[str], rows: range, **metadata: list[Any]) -> None:
        """Write some of the records."""
        for start in range(rows.start, rows.stop, UPSERT):
            part = slice(start, min(start + UPSERT, rows.stop))
            fields = [dict(zip(metadata, values, strict=True)) for values in zip(*metadata.values(), strict=True)][part]
            things.upsert(self.ids[part], self.vectors[part], documents=documents[part], metadata=fields or None)

    def taken(self, url: str, things: Collection) -> tuple[Haul, Ints]:
        """Return what a thief takes of the collection, and which text each record is."""
        haul = hauls(stolen(url))[things.name]
        at = {int(row): place for place, row in enumerate(low_level.places(things, self.ids))}
        return haul, np.array([at[row] for row in haul.rows.tolist()])


def sealed(n: int, key: int) -> Iterator[Row]:
    """Name records of `sealed` by what its files show."""
    texts = Texts(n, key)
    rng = np.random.default_rng(key)
    with throwaway_keys() as keys, tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder:
        url = f"faiss:{folder}/store"
        with connect(url, keyset=keys, maintenance="manual") as store:
            for name, documents in (("sentences", texts.short), ("documents", texts.long)):
                things = store.collection(name, texts.vectors.shape[1], "cosine", "sealed")
                texts.write(things, documents, range(n))
                haul, places = texts.taken(url, things)
                assert not attack_hauls([haul], Holdings(texts.vectors), texts.vectors[places], noise=1.0)
                sizes = np.zeros(n, np.int64)
                sizes[places] = haul.sizes
                for ordered in (False, True):
                    for sized in (False, True):
                        right = guessed(haul, sizes, rng, ordered=ordered, sized=sized) == places
                        looks = " and ".join(["order"] * ordered + ["sizes"] * sized) or "nothing"
                        yield _row("sealed", f"{name}, by {looks}", n, key, float(right.mean()))
                changed = range(0, CHANGED)
                texts.write(things, documents, changed)
                after, again = texts.taken(url, things)
                fresh = ~np.isin(after.rows, haul.rows)
                mixed = np.random.default_rng([key, 2]).permutation(CHANGED)
                right = mixed == again[fresh]
                yield _row("sealed", f"{name}, {CHANGED} changed between two copies", CHANGED, key, float(right.mean()))
                absent = texts.absent if name == "sentences" else _joined(texts.absent, key)
                own = store.collection(f"his-{name}", texts.vectors.shape[1], "cosine", "sealed")
                texts.write(own, absent, range(len(absent)))
                area = _stored(haul.sizes, hauls(stolen(url))[own.name].sizes)
                yield _row("sealed", f"{name}, stored or not", n, key, area, 0.5)


def _joined(sentences: list[str], key: int) -> list[str]:
    """Return documents of one to twelve sentences, one that begins with each."""
    n = len(sentences)
    many = np.random.default_rng([key, 1]).integers(1, LONGEST + 1, n)
    return [" ".join(sentences[j % n] for j in range(i, i + many[i])) for i in range(n)]


def _stored(sizes: Ints, others: Ints) -> float:
    """Say how well payload sizes tell stored texts from others among which they are: the area under the ROC curve.

    Of all texts of one size, he knows how many are stored.
    """
    every = np.union1d(sizes, others)
    stored, absent = ((each[:, None] == every).sum(axis=0) for each in (sizes, others))
    share = stored / (stored + absent)
    return auc(share[np.searchsorted(every, sizes)], share[np.searchsorted(every, others)])


def sketch(n: int, key: int, quick: bool) -> Iterator[Row]:
    """Name records of `sketch` at its floor."""
    texts, noise = Texts(n, key), FLOOR["beta"] / 4  # type: ignore[operator]
    coarse = {f"of{count}": texts.labels % count for count in PLAIN}
    theirs = {f"of{count}": texts.their_labels % count for count in PLAIN}
    with throwaway_keys() as keys, tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder:
        url = f"faiss:{folder}/store"
        with connect(url, keyset=keys, maintenance="inline") as store:
            fields = dict.fromkeys(coarse, "plain") | {"blind": "blind"}
            things = store.collection("texts", texts.vectors.shape[1], "cosine", FLOOR, fields=fields)
            metadata = {name: values.tolist() for name, values in coarse.items()}
            texts.write(things, texts.long, range(n), blind=[f"b{one}" for one in texts.labels.tolist()], **metadata)
            haul, places = texts.taken(url, things)
            keys.rotate()
            things.rekey()
            second, _ = texts.taken(url, things)
    if haul.vectors is None:
        raise click.UsageError(f"a sketch of {n:,} records is still sealed: take 5,000 or more")
    truth, sizes = texts.vectors[places], np.zeros(n, np.int64)
    sizes[places] = haul.sizes

    def tried(what: str, attack: str, known: Holdings, *found: Haul) -> Row:
        rows = attack_hauls(found or [haul], known, truth, noise=noise, attacks=[attack])
        best = max(rows, key=lambda row: row["identified"])
        return _row("sketch", what, n, key, best["identified"], best["chance"])

    for count in PLAIN if not quick else PLAIN[:1]:
        known = Holdings(texts.others, {f"of{count}": theirs[f"of{count}"].tolist()})
        yield tried(f"other texts, a plain field of {count} classes", "classes", known)
    blind = Holdings(texts.others, {"blind": texts.their_labels.tolist()})
    yield tried("other texts, a blind field of 77 classes", "tokens", blind)
    for count in PAIRS if not quick else PAIRS[-1:]:
        some = np.random.default_rng([key, count]).choice(n, count, replace=False)
        known = Holdings(texts.others, pairs=some, pair_vectors=truth[some])
        yield tried(f"other texts, {count} pairs", "pairs-expectation", known)
    same = Holdings(texts.vectors, {"blind": texts.labels.tolist()}, sizes, ordered=True)
    for what, attack in (("a blind field of 77 classes", "tokens"), ("sizes", "sizes"), ("order", "order")):
        yield tried(f"the very same texts, {what}", attack, same)
    yield tried("the very same texts, two dumps", "snapshots", Holdings(texts.vectors), haul, second)


def _row(scheme: str, what: str, n: int, key: int, named: float, chance: float | None = None) -> Row:
    row = {"bench": "stolen", "dataset": "banking77", "scheme": scheme, "what": what, "n": n, "key": key}
    return {**row, "named": named, "chance": 1 / n if chance is None else chance}


def run(n: int, keys: int, ranked: bool, quick: bool, show: Show) -> tuple[list[Row], list[Target]]:
    """Steal and name."""
    rows: list[Row] = []
    with show.stage("stealing", keys) as done:
        for key in range(keys):
            rows += sketch(n, key, quick) if ranked else sealed(n, key)
            done(1)
    shown: list[Row] = []
    for what in dict.fromkeys(row["what"] for row in rows):
        some = [row for row in rows if row["what"] == what]
        named = [row["named"] for row in some]
        shown.append({"what": what, "least": min(named), "most": max(named), "chance": some[0]["chance"]})
    show.table(f"{n:,} records, {keys} keys", shown, ["what", "least", "most", "chance"])
    if ranked:
        return rows, []
    blank = [row["named"] for row in rows if row["what"].endswith("by nothing")]
    return rows, [Target("sealed, named by nothing", max(blank), "<=", LIMIT)]


@click.command()
@click.option("--n", type=click.IntRange(UPSERT), default=4_000, show_default=True, help="Records.")
@click.option("--keys", type=click.IntRange(1), default=3, show_default=True, help="Keys, each with its own records.")
@click.option("--sketch", "ranked", is_flag=True, help="Attack sketch at its floor, as control.")
@options
def main(n: int, keys: int, ranked: bool, quick: bool, as_json: bool, out: str | None) -> None:
    """Steal stores and name their records."""
    n, keys = (min(n, 1_000), 1) if quick and not ranked else (n, keys)
    name = "stolen-sketch" if ranked else "stolen"
    publish(name, lambda show: run(n, keys, ranked, quick, show), quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.stolen")
    main()
