"""Name stolen face embeddings by today's attackers, from index vectors alone: no generator, no torch.

    python -m benchmarks.faces.thieves --lfw FILE.npz        writes benchmarks/results/faces-thieves.jsonl
    python -m benchmarks.faces.thieves --lfw FILE.npz --people 1200 --out run.jsonl

FILE.npz holds FaceNet embeddings of LFW (`emb`) and who is shown (`name`), as for `benchmarks.leakage --lfw`. One
photograph of each person is stored. The thief has up to three other photographs of those who have more, and tries:
independent components; labels (a plain field shows the person, or one of 20 teams); 10, 20 and 50 known pairs. Beside
the lab's linear decoder he trains a mapper from aligned index vectors to embeddings, in the manner of D. Han, Y. Li and
J. Denzler, "Realistic Face Reconstruction from Facial Embeddings via Diffusion Models" (AAAI 2026, arXiv 2602.13168);
here it is kernel ridge regression, and it is also trained under a key of his own and used without alignment. Under
`sealed` the files of a store are read: they hold nothing to begin with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.report import RESULTS, Row
from encvec_store.lab.leakage import ATTACKS, Case, subject
from encvec_store.lab.leakage.algebra import float32, sample, unit
from encvec_store.lab.leakage.metrics import hits, mean_cosine
from encvec_store.lab.leakage.sealed import sealed_rows
from encvec_store.lab.leakage.views import Groups, view

from .mapping import LEARNT, Mapper
from .models import Matrix
from .subjects import SKETCH, stolen

__all__ = ["KNOWN", "LABELLED", "OWN_KEY", "Holdings", "attempts", "load", "rows"]

OUT = RESULTS / "faces-thieves.jsonl"
SCHEMES = (SKETCH, {"name": "sap", "beta": 2.5})
OWN_KEY, LABELLED = "mapper trained under his own key", "a plain field shows the person"
KNOWN = "{} known pairs, other photographs"
"""What the thief tries, as rows name it; `KNOWN` takes the number of pairs."""
_PAIRS, _TEAMS, _OTHERS = (10, 20, 50), 20, 3
Labels = npt.NDArray[np.int64]


class Holdings:
    """What is stored, (n, d) with who is shown (n,), and what the thief has: (m, d) and (m,).

    The last `guests` of the stored are none of the known pairs, and the thief has no photograph of these people.
    """

    def __init__(self, vectors: Matrix, people: Labels, own: Matrix, theirs: Labels, guests: int = 0) -> None:
        self.vectors, self.people, self.own, self.theirs = unit(float32(vectors)), people, unit(float32(own)), theirs
        self.guests = guests

    def joined(self, vectors: Matrix) -> Holdings:
        """Store (g, d) embeddings of other people beside."""
        people = np.concatenate([self.people, self.people.max() + 1 + np.arange(len(vectors))])
        return Holdings(np.concatenate([self.vectors, vectors]), people, self.own, self.theirs, len(vectors))


def load(path: Path, most: int | None = None) -> Holdings:
    """Read embeddings of photographs; the first of each person is stored."""
    with np.load(path, allow_pickle=False) as stored:
        vectors, people = stored["emb"].astype(np.float32), np.unique(stored["name"], return_inverse=True)[1]
    order = np.argsort(people, kind="stable")
    _, starts = np.unique(people[order], return_index=True)
    place = np.empty(len(people), np.intp)
    place[order] = np.arange(len(people)) - np.repeat(starts, np.diff([*starts, len(people)]))
    if most is not None:
        place[~np.isin(people, np.unique(people)[:most])] = _OTHERS + 1
    first, others = place == 0, (place > 0) & (place <= _OTHERS)
    return Holdings(vectors[first], people[first], vectors[others], people[others])


def rows(held: Holdings, schemes: Sequence[Mapping[str, Any]] = SCHEMES) -> Iterator[Row]:
    """Steal a sealed store, then attack every scheme by every attacker. Below 5,000 records a sketch gives no rows."""
    copied, _ = sealed_rows(held.vectors, name="faces")
    yield {"what": "any of these", "scheme": "sealed", "n": copied["records"], "index_vectors": copied["index_vectors"]}
    for scheme in schemes:
        yield from (row for row, _ in attempts(held, scheme))


def attempts(
    held: Holdings, scheme: Mapping[str, Any], only: Collection[str] | None = None
) -> Iterator[tuple[Row, Matrix]]:
    """Attack a scheme by every attacker, or those named; yields a row and the embeddings (n, d) that he ends with."""
    loot = stolen(held.vectors, scheme)
    if not loot.ciphertexts.shape[1]:
        return
    n, name = len(held.vectors), str(loot.scheme["name"])
    looked = "sphere" if loot.whitened else "centred"
    rng = np.random.default_rng(0)
    known = rng.permutation(n - held.guests)
    k, beta = loot.scheme.get("k"), loot.scheme.get("beta")
    his = subject(name, held.vectors.shape[1], k=k, beta=beta, sample=held.own).keyed(1, held.own).store(held.own)
    told = {"scheme": name, "n": n, "index_vectors": n, "chance": 1 / n}
    learnt = rng.permutation(len(held.own))[:LEARNT]

    def tried(attack: str, groups: Mapping[str, Groups], pairs: int) -> tuple[Row, Matrix]:
        case = Case(
            loot.ciphertexts, held.own, np.random.default_rng(1), loot.noise, pairs=known[:pairs],
            pair_vectors=held.vectors[known[:pairs]], groups=groups,
        )  # fmt: skip
        seen = view("whitened" if attack == "components" and not loot.whitened else looked, case)
        assert seen is not None
        located = ATTACKS[attack].run(seen, case)
        named = np.delete(hits(located, seen.frame(held.vectors)), case.pairs)
        some = sample(held.own, LEARNT, np.random.default_rng(2))
        guess = Mapper(unit(seen.noisy(some)), some)(unit(located))
        return {"identified": float(named.mean()), **_figures(held, guess, case.pairs, "mapped")}, guess

    def alone() -> tuple[Row, Matrix]:
        guess = Mapper(unit(his[learnt]), held.own[learnt])(unit(loot.ciphertexts))
        return _figures(held, guess, known[:0], "mapped"), guess

    teams = {"classes": (held.people % _TEAMS, held.theirs % _TEAMS)}
    ways: dict[str, Callable[[], tuple[Row, Matrix]]] = {
        OWN_KEY: alone,
        "independent components, other photographs": partial(tried, "components", {}, 0),
        LABELLED: partial(tried, "classes", {"classes": (held.people, held.theirs)}, 0),
        f"a plain field shows one of {_TEAMS} teams": partial(tried, "classes", teams, 0),
        **{KNOWN.format(pairs): partial(tried, "pairs-expectation", {}, pairs) for pairs in _PAIRS},
    }
    for what, way in ways.items():
        if only is None or what in only:
            figures, guess = way()
            yield {"what": what, **told, **figures}, guess


def _figures(held: Holdings, guess: Matrix, known: npt.NDArray[np.intp], name: str) -> Row:
    """Return how many records are named by reconstructed embeddings, and their cosine to the true ones."""
    right = np.delete(hits(guess, held.vectors), known)
    others = np.delete(np.arange(len(guess)), known)
    alike = mean_cosine(guess[others], held.vectors[others])
    centred = mean_cosine(guess[others], held.vectors[others], held.own.mean(axis=0))
    return {f"{name}_identified": float(right.mean()), "cosine": round(alike, 4), "cosine_centered": round(centred, 4)}


def main() -> None:
    """Run, print the rows as they come, and write them at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", metavar="FILE", type=Path, required=True, help="embeddings of LFW")
    parser.add_argument("--people", type=int, help="only so many people")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    lines = []
    for row in rows(load(given.lfw, given.people)):
        lines.append(json.dumps(row))
        print(lines[-1], flush=True)
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
