"""Find out which property of a corpus decides how few known pairs break a `sketch`.

Usage: python -m benchmarks.properties [--corpus NAME ...] [--file NAME=FILE.npz ...] [--keys 1] [--quick]

4,000 records of each corpus are encrypted by a sketch at its floor (k=250, beta 5), and attacked by expectation-
maximisation with 20 and 50 known pairs and up to 4,583 other vectors of the kind. Beside it stand the properties of the
corpus. Banking77 is in the repository; a FILE.npz has an array `vectors` (or `emb`), as `benchmarks.embed.make_data`
writes it for CLINC150 and WordNet. Variants of Banking77 change one thing: `within x S` stretches each intent around
its mean, `spread S` adds isotropic noise of length S, `no clusters` takes the means of the intents away.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from benchmarks.datasets import load
from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store.data import Matrix
from encvec_store.lab.leakage import Experiment, subject
from encvec_store.lab.leakage import run as attack
from encvec_store.lab.leakage.algebra import float32, unit
from encvec_store.lab.leakage.corpus import properties

K, BETA, N, MOST, PAIRS = 250, 5.0, 4_000, 8_583, (20, 50)
BANKING = "banking77"
WITHIN, SPREAD = (0.5, 2.0), (0.25, 0.5, 1.0)
BROKEN = 0.9
COLUMNS = ["what", "dimension", "nearest", "shown_nearest", "of_20", "of_50"]


def banking() -> tuple[Matrix, Matrix]:
    """Return Banking77 in random order, and the mean of each one's intent."""
    data = load(BANKING)
    assert data.labels is not None
    assert data.query_labels is not None
    vectors, labels = np.concatenate([data.vectors, data.queries]), np.concatenate([data.labels, data.query_labels])
    order = np.random.default_rng(0).permutation(len(vectors))[:MOST]
    vectors, labels = unit(vectors[order]), labels[order]
    means = np.stack([vectors[labels == one].mean(axis=0) for one in range(int(labels.max()) + 1)])
    return vectors, float32(means[labels])


def corpora(files: tuple[str, ...]) -> dict[str, Matrix]:
    """Return vectors by name."""
    vectors, means = banking()
    rng = np.random.default_rng(1)
    noise = float32(rng.standard_normal(vectors.shape) / np.sqrt(vectors.shape[1]))
    found = {BANKING: vectors}
    found |= {f"within x {times}": unit(means + np.float32(times) * (vectors - means)) for times in WITHIN}
    found |= {f"spread {length}": unit(vectors + np.float32(length) * noise) for length in SPREAD}
    found["no clusters"] = unit(vectors - means)
    for one in files:
        name, _, path = one.partition("=")
        with np.load(Path(path), allow_pickle=False) as stored:
            rows = unit(float32(stored["vectors" if "vectors" in stored else "emb"]))
        found[name] = rows[np.random.default_rng(0).permutation(len(rows))[:MOST]]
    return found


def measured(name: str, vectors: Matrix, n: int, keys: int, k: int) -> Row:
    """Attack one corpus, and describe it."""
    subjects = [("sketch", subject("sketch", vectors.shape[1], k=k, beta=BETA))]
    experiment = Experiment(
        vectors[:n],
        vectors[n:],
        subjects,
        ("pairs-expectation",),
        (n,),
        keys,
        ("disjoint",),
        PAIRS,
        name,
        (),
        ("sphere",),
        profile=vectors,
    )
    rows = attack(experiment)
    named = {pairs: [row["identified"] for row in rows if row["pairs"] == pairs] for pairs in PAIRS}
    about = properties(vectors, k=k, noise=BETA / 4)
    return {
        **{"bench": "properties", "what": name, "n": n, "keys": keys, "chance": 1 / n, **about},
        **{"dimension": about["effective_dimension"], "of_20": max(named[20]), "of_50": max(named[50])},
    }


def run(
    names: tuple[str, ...], files: tuple[str, ...], keys: int, quick: bool, show: Show
) -> tuple[list[Row], list[Target]]:
    """Attack every corpus."""
    held = {name: one for name, one in corpora(files).items() if not names or name in names}
    size, k = (500, 64) if quick else (N, K)
    chosen = list(held)[: 1 if quick else None]
    rows = [measured(name, held[name], size, keys, k) for name in show.each(chosen, "attacking", str)]
    show.table("Named by known pairs; at most over keys", rows, COLUMNS)
    control = [row for row in rows if row["what"] == BANKING]
    return rows, [Target(f"control: {row['what']} falls to 50 pairs", row["of_50"], ">=", BROKEN) for row in control]


@click.command()
@click.option("--corpus", "names", multiple=True, help="Only these  [default: all].")
@click.option("--file", "files", multiple=True, metavar="NAME=FILE.npz", help="Another corpus.")
@click.option("--keys", type=click.IntRange(1), default=1, show_default=True)
@options
def main(
    names: tuple[str, ...], files: tuple[str, ...], keys: int, quick: bool, as_json: bool, out: str | None
) -> None:
    """Find out which property of a corpus decides."""
    publish("properties", lambda show: run(names, files, keys, quick, show), quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.properties")
    main()
