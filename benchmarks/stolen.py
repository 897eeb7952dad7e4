"""Steal stores of `sealed` and of `sketch`, and name their records.

Usage: python -m benchmarks.stolen [--n 4000] [--keys 3] [--sketch] [--quick]    a stopped run continues

Texts are Banking77's, written in order, 100 an upsert. The thief has a copy of the files and no key. Under `sealed`
he has the very same texts and tries order and padded sizes: of the single sentences, and of longer documents of one
to twelve sentences. Then 100 texts are written anew and he compares two copies. Last, he asks of each text whether it
is stored at all, among as many others of the kind: sizes say how many of each size are (area under the ROC curve, luck
.5).

With --sketch the store keeps 5,000 index vectors at the floor (k=250, beta 5), and the attacks of the lab begin with
its files and 4,583 other texts, or the very same ones: a plain field of 77, 20, 10, 5, 3 and 2 classes, a blind one of
77 and 20, sizes, order, two dumps, pairs. Fewer classes than 77 hold several intents each, which have nothing in
common.
"""

from __future__ import annotations

import tempfile
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.datasets import load
from benchmarks.report import RESULTS, Row, Show, Target, one_thread, options, publish
from encvec_store import Collection, connect, low_level
from encvec_store.lab.bench.job import throwaway_keys
from encvec_store.lab.leakage import Haul, Holdings, attack_hauls, guessed, hauls, stolen
from encvec_store.lab.leakage.algebra import float32, unit
from encvec_store.lab.leakage.metrics import auc
from encvec_store.lab.leakage.running import keep, kept

UPSERT, CHANGED, LONGEST = 100, 100, 12
FLOOR = {"name": "sketch", "k": 250, "beta": 5.0}
Ints = npt.NDArray[np.int64]
LIMIT, CONTROL = 0.005, 0.9
RECORDS = {"sealed": 4_000, "sketch": 5_000}
PLAIN, FEW, BLIND, PAIRS = (77, 20, 10, 5, 3, 2), (3, 2), (77, 20), (5, 10, 20, 50)
TRIALS = (
    *((f"other texts, a plain field of {count} classes", "classes", count) for count in PLAIN),
    *((f"other texts, a plain field of {count} classes, by components", "classes-components", count) for count in FEW),
    *((f"other texts, a blind field of {count} classes", "tokens", count) for count in BLIND),
    *((f"other texts, {count} pairs", "pairs-expectation", count) for count in PAIRS),
    ("the very same texts, a blind field of 77 classes", "tokens", BLIND[0]),
    ("the very same texts, sizes", "sizes", 0),
    ("the very same texts, order", "order", 0),
    ("the very same texts, two dumps", "snapshots", 0),
)
"""What the thief of a sketch has, the attack that uses it, and how many classes or pairs."""


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


def sketch(n: int, key: int, quick: bool, known: Container[str]) -> Iterator[Row]:
    """Name records of `sketch` at its floor, in every way whose figure is not known."""
    trials = [trial for trial in (TRIALS[:1] if quick else TRIALS) if trial[0] not in known]
    if not trials:
        return
    texts, noise = Texts(n, key), FLOOR["beta"] / 4  # type: ignore[operator]
    plain = {f"of{count}": (texts.labels % count).tolist() for count in PLAIN}
    with throwaway_keys() as keys, tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder:
        url = f"faiss:{folder}/store"
        with connect(url, keyset=keys, maintenance="inline") as store:
            fields, dim = dict.fromkeys(plain, "plain") | {"blind": "blind"}, texts.vectors.shape[1]
            of = {count: store.collection(f"of{count}", dim, "cosine", FLOOR, fields=fields) for count in BLIND}
            for count, things in of.items():
                texts.write(things, texts.long, range(n), blind=(texts.labels % count).tolist(), **plain)
            taken = {count: texts.taken(url, things) for count, things in of.items()}
            keys.rotate()
            of[BLIND[0]].rekey()
            again, _ = texts.taken(url, of[BLIND[0]])
    if again.vectors is None:
        raise click.UsageError(f"a sketch of {n:,} records is still sealed: take 5,000 or more")
    for what, attack, count in trials:
        haul, places = taken.get(count if attack == "tokens" else 0, taken[BLIND[0]])
        dumps = [haul, again] if attack == "snapshots" else [haul]
        truth = texts.vectors[places]
        held = _held(texts, what, attack, count, haul, places, key)
        rows = attack_hauls(dumps, held, truth, noise=noise, attacks=[attack])
        best = max(rows, key=lambda row: row["identified"])
        yield _row("sketch", what, n, key, best["identified"], best["chance"])


def _held(texts: Texts, what: str, attack: str, count: int, haul: Haul, places: Ints, key: int) -> Holdings:
    """Return what the thief has beside the files."""
    same = what.startswith("the very same")
    corpus, labels = (texts.vectors, texts.labels) if same else (texts.others, texts.their_labels)
    match attack:
        case "classes" | "classes-components" | "tokens":
            name = "blind" if attack == "tokens" else f"of{count}"
            return Holdings(corpus, {name: (labels % count).tolist()})
        case "pairs-expectation":
            some = np.random.default_rng([key, count]).choice(len(places), count, replace=False)
            return Holdings(corpus, pairs=some, pair_vectors=texts.vectors[places[some]])
    sizes = np.zeros(len(places), np.int64)
    sizes[places] = haul.sizes
    return Holdings(corpus, sizes=sizes, ordered=True)


def _row(scheme: str, what: str, n: int, key: int, named: float, chance: float | None = None) -> Row:
    row = {"bench": "stolen", "dataset": "banking77", "scheme": scheme, "what": what, "n": n, "key": key}
    return {**row, "named": named, "chance": 1 / n if chance is None else chance}


def run(n: int, keys: int, scheme: str, quick: bool, path: Path | None, show: Show) -> tuple[list[Row], list[Target]]:
    """Steal and name, and keep each row at once; rows that are in the file are not measured again."""
    rows = [{name: row[name] for name in row if name != "kind"} for row in kept(path) if row["kind"] == "row"]
    with show.stage("stealing", keys) as done:
        for key in range(keys):
            known = {row["what"] for row in rows if (row["scheme"], row["n"], row["key"]) == (scheme, n, key)}
            if scheme == "sketch":
                fresh: Iterable[Row] = sketch(n, key, quick, known)
            else:  # all of a key, or nothing: they are of one store
                fresh = () if known else list(sealed(n, key))
            for row in fresh:
                rows.append(row)
                keep({"kind": "row", **row}, path)
            done(1)
    shown: list[Row] = []
    mine = [row for row in rows if row["scheme"] == scheme]
    for what in dict.fromkeys(row["what"] for row in mine):
        some = [row for row in mine if row["what"] == what]
        named = [row["named"] for row in some]
        shown.append({"what": what, "least": min(named), "most": max(named), "chance": some[0]["chance"]})
    show.table(f"{n:,} records, {keys} keys", shown, ["what", "least", "most", "chance"])
    blank = [row["named"] for row in rows if row["what"].endswith("by nothing")]
    ordered = [row["named"] for row in rows if row["what"] == "the very same texts, order"]
    targets = [Target("sealed, named by nothing", max(blank), "<=", LIMIT)] if blank else []
    return rows, targets + ([Target("control: sketch falls to order", min(ordered), ">=", CONTROL)] if ordered else [])


@click.command()
@click.option("--n", type=click.IntRange(UPSERT), help="Records  [default: 4000, of sketch 5000].")
@click.option("--keys", type=click.IntRange(1), default=3, show_default=True, help="Keys, each with its own records.")
@click.option("--sketch", "ranked", is_flag=True, help="Attack sketch at its floor, as control.")
@options
def main(n: int | None, keys: int, ranked: bool, quick: bool, as_json: bool, out: str | None) -> None:
    """Steal stores and name their records."""
    scheme = "sketch" if ranked else "sealed"
    size = n or RECORDS[scheme]
    if quick:
        size, keys = size if ranked else min(size, 1_000), 1
    path = Path(out) if out else None if quick else RESULTS / "stolen.jsonl"
    publish("stolen", lambda show: run(size, keys, scheme, quick, path, show), quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.stolen")
    main()
