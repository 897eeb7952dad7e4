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
from collections.abc import Iterator, Mapping, Sequence
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

from .models import Matrix
from .subjects import SKETCH, stolen

__all__ = ["Holdings", "Mapper", "load", "rows"]

OUT = RESULTS / "faces-thieves.jsonl"
SCHEMES = (SKETCH, {"name": "sap", "beta": 2.5})
_PAIRS, _TEAMS, _OTHERS = (10, 20, 50), 20, 3
_LEARNT, _HELD = 3_000, 500
_RIDGES, _WIDTHS = (1e-3, 1e-2, 1e-1), (0.5, 1.0, 2.0)
Labels = npt.NDArray[np.int64]


class Holdings:
    """What is stored, (n, d) with who is shown (n,), and what the thief has: (m, d) and (m,)."""

    def __init__(self, vectors: Matrix, people: Labels, own: Matrix, theirs: Labels) -> None:
        self.vectors, self.people, self.own, self.theirs = unit(float32(vectors)), people, unit(float32(own)), theirs


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


class Mapper:
    """Kernel ridge regression with a Gaussian kernel; width and ridge are chosen on points held back."""

    def __init__(self, points: Matrix, vectors: Matrix) -> None:
        held = min(_HELD, len(points) // 5)
        self._points = points[held:]
        self._mean = vectors.mean(axis=0)
        away, shown = vectors[held:] - self._mean, points[:held]
        self._scale = float(np.median(_apart(points[:held], self._points)))
        best = -1.0
        for width in _WIDTHS:
            kernel = self._kernel(self._points, width)
            values, basis = np.linalg.eigh(kernel.astype(np.float64))
            seen = self._kernel(shown, width)
            for ridge in _RIDGES:
                weights = float32((basis / (values + ridge * len(kernel) * 1e-2)) @ (basis.T @ away))
                alike = mean_cosine(seen @ weights, vectors[:held] - self._mean)
                if alike > best:
                    best, self._width, self._weights = alike, width, weights

    def __call__(self, points: Matrix) -> Matrix:
        """Return embeddings of (n, q) points, at unit length."""
        return unit(self._kernel(points, self._width) @ self._weights + self._mean)

    def _kernel(self, points: Matrix, width: float) -> Matrix:
        return float32(np.exp(-_apart(points, self._points) / (width * self._scale)))


def rows(held: Holdings, schemes: Sequence[Mapping[str, Any]] = SCHEMES) -> Iterator[Row]:
    """Steal a sealed store, then attack every scheme by every attacker. Below 5,000 records a sketch gives no rows."""
    copied, _ = sealed_rows(held.vectors, name="faces")
    yield {"what": "any of these", "scheme": "sealed", "n": copied["records"], "index_vectors": copied["index_vectors"]}
    for scheme in schemes:
        yield from _attacked(held, scheme)


def _attacked(held: Holdings, scheme: Mapping[str, Any]) -> Iterator[Row]:
    loot = stolen(held.vectors, scheme)
    if not loot.ciphertexts.shape[1]:
        return
    n, name = len(held.vectors), str(loot.scheme["name"])
    looked = "sphere" if loot.whitened else "centred"
    rng = np.random.default_rng(0)
    known = rng.permutation(n)
    k, beta = loot.scheme.get("k"), loot.scheme.get("beta")
    his = subject(name, held.vectors.shape[1], k=k, beta=beta, sample=held.own).keyed(1, held.own).store(held.own)
    told = {"scheme": name, "n": n, "index_vectors": n, "chance": 1 / n}
    learnt = rng.permutation(len(held.own))[:_LEARNT]
    guess = Mapper(unit(his[learnt]), held.own[learnt])(unit(loot.ciphertexts))
    yield {"what": "mapper trained under his own key", **told, **_figures(held, guess, known[:0], "mapped")}

    def tried(what: str, attack: str, groups: Mapping[str, Groups], pairs: int = 0) -> Row:
        case = Case(
            loot.ciphertexts, held.own, np.random.default_rng(1), loot.noise, pairs=known[:pairs],
            pair_vectors=held.vectors[known[:pairs]], groups=groups,
        )  # fmt: skip
        seen = view("whitened" if attack == "components" and not loot.whitened else looked, case)
        assert seen is not None
        located = ATTACKS[attack].run(seen, case)
        named = np.delete(hits(located, seen.frame(held.vectors)), case.pairs)
        some = sample(held.own, _LEARNT, np.random.default_rng(2))
        mapped = Mapper(unit(seen.noisy(some)), some)(unit(located))
        return {"what": what, **told, "identified": float(named.mean()), **_figures(held, mapped, case.pairs, "mapped")}

    yield tried("independent components, other photographs", "components", {})
    yield tried("a plain field shows the person", "classes", {"classes": (held.people, held.theirs)})
    teams = {"classes": (held.people % _TEAMS, held.theirs % _TEAMS)}
    yield tried(f"a plain field shows one of {_TEAMS} teams", "classes", teams)
    for pairs in _PAIRS:
        yield tried(f"{pairs} known pairs, other photographs", "pairs-expectation", {}, pairs)


def _figures(held: Holdings, guess: Matrix, known: npt.NDArray[np.intp], name: str) -> Row:
    """Return how many records are named by reconstructed embeddings, and their cosine to the true ones."""
    right = np.delete(hits(guess, held.vectors), known)
    others = np.delete(np.arange(len(guess)), known)
    alike = mean_cosine(guess[others], held.vectors[others])
    centred = mean_cosine(guess[others], held.vectors[others], held.own.mean(axis=0))
    return {f"{name}_identified": float(right.mean()), "cosine": round(alike, 4), "cosine_centered": round(centred, 4)}


def _apart(a: Matrix, b: Matrix) -> Matrix:
    return float32(np.maximum(np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T, 0))


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
