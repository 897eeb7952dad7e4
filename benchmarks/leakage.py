"""Run every attack on every scheme, at several sizes, and write results/leakage.jsonl.

    python -m benchmarks.leakage [--part NAME ...] [--wordnet FILE.npz | --lfw FILE.npz] [--keys 3] [--out FILE]

Victim and adversary hold MiniLM embeddings of different texts of one kind: Banking77 (in the repository), or WordNet
glosses (`python -m benchmarks.embed.make_data text --wordnet DIR` makes the file). With --lfw they hold faces: FILE.npz
has FaceNet embeddings of LFW (arrays emb and name, one row per photograph). One photograph of each person is enrolled;
the adversary has one other photograph of each person with more than one. A stopped run continues. Each row says what
was attacked and how, and the owner's recall on the same ciphertexts.

The parts `probes` and, with --lfw, `faces-probes` write results/leakage-probes.jsonl: linkage of two keys, membership,
attributes (Banking77's intents), accuracy, and people found by other photographs of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encvec_store.data import Matrix
from encvec_store.lab.leakage import ATTACKS, Experiment, Known, Subject, probe, run, subject, worst, worst_probes
from encvec_store.lab.leakage.algebra import unit
from encvec_store.lab.leakage.subjects import CONTROLS, Foreign
from encvec_store.schemes import FLOOR, LEAST_KEPT, NARROW_FLOOR

from .datasets import load
from .peers import alloy_encrypt, missing

RESULTS = Path(__file__).parent / "results" / "leakage.jsonl"
PROBED = RESULTS.with_name("leakage-probes.jsonl")
DIM = 384
VICTIMS = 8500
OTHERS = tuple(name for name, attack in ATTACKS.items() if attack.holds == "corpus" and name != "components")


def data(wordnet: str | None, lfw: str | None = None, victims: int = VICTIMS) -> tuple[str, Matrix, Matrix, Known]:
    """Return the name, the victim's and the adversary's vectors, and what is known of them."""
    if lfw:
        with np.load(lfw, allow_pickle=False) as stored:
            vectors, names = unit(stored["emb"].astype(np.float32)), stored["name"]
        _, first, people = np.unique(names, return_index=True, return_inverse=True)
        # one other photograph per person: a corpus full of a few famous faces has another shape, and does not align
        rest = np.delete(np.arange(len(people)), first)
        second = rest[np.unique(people[rest], return_index=True)[1]]
        return "lfw", vectors[first], vectors[second], Known(identities=(people[first], people[second]))
    if wordnet:
        with np.load(wordnet, allow_pickle=False) as stored:
            vectors = unit(stored["vectors"].astype(np.float32))
        half = len(vectors) // 2
        return "wordnet", vectors[:half], vectors[half:], Known()
    found = load("banking77")
    assert found.labels is not None and found.query_labels is not None  # noqa: PT018 - the shipped file has them
    pool, labels = np.concatenate([found.vectors, found.queries]), np.concatenate([found.labels, found.query_labels])
    order = np.random.default_rng(0).permutation(len(pool))
    pool, labels = unit(pool[order]), labels[order]
    parted = pool[:victims], pool[victims:]
    return "banking77", *parted, Known(labels=(labels[:victims], labels[victims:]))


def sketch(k: int, beta: float) -> tuple[str, Subject]:
    """Return a sketch of k dimensions."""
    return "sketch", subject("sketch", DIM, k=k, beta=beta)


def sap(beta: float) -> tuple[str, Subject]:
    """Return `sap` with that noise."""
    return "sap", subject("sap", DIM, beta=beta)


def cells(name: str, count: int, k: int = LEAST_KEPT, beta: float = FLOOR) -> tuple[str, Subject]:
    """Return a sketch with that many cells, which are drawn by id or by content."""
    return name, subject(name, DIM, k=k, beta=beta, cells=count)


DEFAULT = sketch(LEAST_KEPT, FLOOR)
FACES = sketch(LEAST_KEPT, NARROW_FLOOR)
WEAK = [cells(name, 4, 192, 1.8) for name in ("sketch", "content-cells")]
STRONG = ("cliques", "density", "pca-icp")
PAIRED = ("pairs-permutation", "pairs-rotation", "pairs-ridge", "pairs-anchored", "pairs-expectation")


def parts() -> dict[str, dict[str, Any]]:
    """Return what each part tries, by name, cheap parts first."""
    alone = {"attacks": ("components",), "views": ("sphere",)}  # its other view costs as much, and names less
    beside = [("haar", subject("haar", DIM)), sap(2.5)]
    return {
        "default": {"subjects": [DEFAULT], "attacks": OTHERS, "sizes": (4000,)},
        "default-sizes": {"subjects": [DEFAULT], "attacks": STRONG, "sizes": (1000, 8000, 30000)},
        # the attack that needs no pairs and names most
        "default-components": {**alone, "subjects": [DEFAULT], "sizes": (1000, 4000, 8000)},
        "more-noise": {**alone, "subjects": [sketch(LEAST_KEPT, beta) for beta in (7.0, 10.0)], "sizes": (8000,)},
        "more-noise-pairs": {
            "subjects": [sketch(LEAST_KEPT, beta) for beta in (7.0, 10.0)],
            "attacks": ("pairs-expectation",),
            "views": ("sphere",),
            "sizes": (4000,),
            "adversaries": ("disjoint",),
            "pairs": (20, 50, 100, 400),
            "keys": 1,
        },
        "default-pairs": {
            "subjects": [DEFAULT],
            "attacks": PAIRED,
            "sizes": (4000,),
            "adversaries": ("disjoint",),
            "pairs": (1, 2, 5, 10, 20, 50, 100, 200, 400),
        },
        "beside": {
            "subjects": beside,
            "attacks": ("pca-icp",),
            "views": ("centred", "recoloured"),
            "sizes": (4000,),
        },
        "beside-pairs": {
            "subjects": [sap(2.5)],
            "attacks": PAIRED[1:],
            "sizes": (4000,),
            "adversaries": ("disjoint",),
            "pairs": (10, 50, 100, 400),
            "keys": 1,
        },
        "faces": {"subjects": [sap(2.5), FACES, sketch(64, 1.2)], "attacks": STRONG[::-1], "sizes": (5749,)},
        "faces-components": {**alone, "subjects": [FACES], "sizes": (5749,)},
        "controls": {
            "subjects": [(name, subject(name, DIM, k=192, beta=1.8)) for name in sorted(CONTROLS)],
            "attacks": ("naive", "coordinates", "pca-icp", "fobi"),
            "sizes": (4000,),
            "keys": 1,
        },
        "controls-components": {
            **alone,
            "subjects": [(name, subject(name, DIM, k=192, beta=1.8)) for name in ("no-noise", "foreign-statistics")],
            "sizes": (4000,),
            "adversaries": ("disjoint",),
            "keys": 1,
        },
        "sap-few": {"subjects": [sap(2.0)], "attacks": ("pca-icp",), "sizes": (250, 500), "adversaries": ("disjoint",)},
        "ironcore-alloy": {
            "subjects": [("ironcore-alloy", Foreign(2.5, alloy_encrypt))],
            "attacks": ("coordinates", "pca-icp", "pairs-permutation"),
            "sizes": (4000,),
            "pairs": (5, 10, 20),
        },
        "cells-components": {**alone, "subjects": [cells("sketch", 4)], "sizes": (8000,)},
        # pairs all lie in one cell; those of the other cells must stay at chance
        "cells": {
            "subjects": [cells("sketch", 4)],
            "attacks": PAIRED[1:],
            "views": ("sphere",),
            "sizes": (8000,),
            "pairs": (50, 100, 200, 400),
        },
        # with noise that does not protect one rotation at this size
        "cells-weak": {"subjects": WEAK, "attacks": ("pca-icp",), "views": ("public",), "sizes": (4000,)},
        # the attack that finds the very same texts
        "cells-cliques": {
            "subjects": [cells("sketch", 4), cells("content-cells", 4), *WEAK],
            "attacks": ("cliques",),
            "views": ("sphere",),
            "sizes": (4000,),
            "adversaries": ("same",),
        },
        "cells-density": {
            "subjects": [cells("sketch", 4), cells("content-cells", 4)],
            "attacks": ("density",),
            "views": ("sphere",),
            "sizes": (8000,),
            "adversaries": ("same",),
        },
        "content-cells": {
            "subjects": [cells("content-cells", count) for count in (4, 16, 64)],
            "attacks": ("pca-icp",),
            "views": ("public",),
            "sizes": (8000,),
        },
        "probes": {"subjects": [DEFAULT, *beside], "views": ("raw", "centred", "sphere"), "sizes": (4000,)},
        "cells-probes": {
            "subjects": [cells("sketch", 4), *(cells("content-cells", count) for count in (4, 16, 64))],
            "sizes": (8000,),
            "only": ("cells", "joining", "attributes-known"),
        },
        "faces-probes": {
            "subjects": [FACES, *beside, sketch(64, 1.2)],
            "views": ("raw", "centred", "sphere"),
            "sizes": (5749,),
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the parts and print the worst row of each subject."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = parts()
    parser.add_argument(
        "--part", nargs="+", choices=list(every), help="parts to run [default: all, but faces only with --lfw]"
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--wordnet", metavar="FILE", help="embeddings of WordNet glosses instead of Banking77")
    other.add_argument("--lfw", metavar="FILE", help="embeddings of LFW: run the parts on faces, at 512 dimensions")
    parser.add_argument(
        "--victims", type=int, default=VICTIMS, help="how many of the 13,083 texts are the victim's [default: 8500]"
    )
    parser.add_argument("--keys", type=int, help="number of keys [default: each part's own]")
    parser.add_argument("--sizes", type=int, nargs="+", help="records under a key [default: each part's own]")
    parser.add_argument("--adversaries", nargs="+", help="what the adversary holds [default: each part's own]")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the attacks; their times are longer")
    parser.add_argument("--out", type=Path, help="one file for all rows [default: the files in results]")
    options = parser.parse_args(argv)
    name, victim, corpus, known = data(options.wordnet, options.lfw, options.victims)
    rows: list[dict[str, Any]] = []
    probed: list[dict[str, Any]] = []
    for part in options.part or [each for each in every if each.startswith("faces") == bool(options.lfw)]:
        if part == "ironcore-alloy" and (reason := missing()):
            print(f"ironcore-alloy is left out: {reason}")
            continue
        what = every[part]
        for option in ("keys", "sizes", "adversaries"):
            if getattr(options, option):
                what[option] = getattr(options, option)
        what["sizes"] = [n for n in what["sizes"] if n <= len(victim)]
        if not what["sizes"]:
            continue
        only = what.pop("only", None)
        experiment = Experiment(victim, corpus, name=name, **what)
        if part.endswith("probes"):
            probed = probe(experiment, known, options.out or PROBED, only=only)
        else:
            rows = run(experiment, options.out or RESULTS, jobs=options.jobs)
    for row in worst(rows):
        how = "/".join(row[name] for name in ("attack", "view", "cells") if name in row)
        print(
            f"{row['corpus']:10s} {row['subject']:18s} {json.dumps(row['parameters']):45s} {row['adversary']:8s} "
            f"pairs {row['pairs']:3d} n {row['n']:6d}  {row['identified']:7.2%} (median of {row['keys']} keys "
            f"{row['identified_median']:7.2%})  {how}"
        )
    for row in worst_probes(probed):
        print(
            f"{row['corpus']:10s} {row['subject']:18s} {json.dumps(row['parameters']):45s} {row['probe']:16s} "
            f"n {row['n']:6d}  {row['measure']} {row['value']:.4f} (median of {row['keys']} keys {row['median']:.4f}, "
            f"null {row['null']:.4f})"
        )


if __name__ == "__main__":
    main()
