"""What the thief takes for embeddings: stolen index vectors, as they are and after all he can do to them.

Every subject is a (p, d) array of targets for the attack, one row per person. The stolen data come from real
collections: `Collection.index_vectors` returns what the index holds. The thief has the model, the program and its
settings, and his own embeddings of other people, but no key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from encvec_store.keys import Keyset
from encvec_store.lab.leakage.algebra import blocks, centred, float32, sample
from encvec_store.lab.leakage.attacks import ATTACKS
from encvec_store.lab.leakage.metrics import decoder, hits
from encvec_store.lab.leakage.views import Case, view
from encvec_store.store import connect

from .mapping import mapped
from .models import Matrix, unit

__all__ = [
    "PAIRS",
    "SKETCH",
    "Alignment",
    "Stolen",
    "aligned",
    "as_it_is",
    "normalised",
    "stolen",
    "under_a_wrong_key",
]

Rows = npt.NDArray[np.intp]
log = logging.getLogger("encvec_store")
PAIRS = (0, 10, 20)
SKETCH = {"name": "sketch"}
"""What is attacked. The default scheme, `sealed`, leaves no index vectors in a store."""
WHITENED = ("pca-icp", "components", "fobi", "density", "mini-vec2vec")
"""The lab's attacks without pairs on whitened vectors. All others need the very same photographs."""
ISOMETRIES = ("coordinates", "pca-icp")
"""Those on vectors that keep lengths or coordinates. They break these; others would take hours at this dimension."""
_LEARNT = 6_000


@dataclass(frozen=True, eq=False)
class Stolen:
    """What the index of a collection holds."""

    scheme: Mapping[str, Any]
    """The scheme with its parameters, which are no secret."""
    ciphertexts: Matrix
    """(n, k): index vectors of all records."""

    @property
    def whitened(self) -> bool:
        """True if the scheme leaves neither lengths nor variances to align by."""
        return self.scheme.get("name") in ("sketch", "cells")

    @property
    def noise(self) -> float:
        """Radius of the noise ball."""
        return float(self.scheme.get("beta") or 0.0) / 4


def stolen(vectors: Matrix, scheme: Mapping[str, Any] = SKETCH) -> Stolen:
    """Store (n, d) embeddings in a collection under a fresh key, and read its index as a thief would.

    A sketch has index vectors from 5,000 records on; below that the result is (n, 0).
    """
    ids = [f"face {row}" for row in range(len(vectors))]
    with connect("memory:", keyset=Keyset.create("memory:"), maintenance="inline") as store:
        faces = store.collection("faces", dim=vectors.shape[1], scheme=scheme)
        faces.upsert(ids, vectors)
        return Stolen(faces.stats()["scheme"], faces.index_vectors(ids))


def as_it_is(taken: Matrix, dim: int) -> Matrix:
    """Take index vectors (p, k) as embeddings (p, d); missing coordinates become zeros at the end."""
    short = dim - taken.shape[1]
    return unit(np.pad(taken, ((0, 0), (0, short))))


def normalised(loot: Stolen, rows: Rows, own: Matrix) -> Matrix:
    """Bring index vectors to the range of embeddings, by the statistics of the thief's `own` (m, d).

    Whitened vectors become weights of his own principal components, so that their first and second moments are those of
    embeddings. In all others, each coordinate gets the mean and deviation that it has in his embeddings.
    """
    everything = loot.ciphertexts
    white = centred(everything) / (everything.std(axis=0) + 1e-9)
    mean = own.mean(axis=0)
    if not loot.whitened:
        return unit(white[rows] * own.std(axis=0) + mean)
    away = own - mean
    values, vectors = np.linalg.eigh((away.T @ away).astype(np.float64) / len(own))
    k = everything.shape[1]
    basis = vectors[:, ::-1][:, :k] * np.sqrt(np.maximum(values[::-1][:k], 0))
    return unit(white[rows] @ basis.T.astype(np.float32) + mean)


def under_a_wrong_key(taken: Matrix, kind: Mapping[str, Any], own: Matrix, *, trained: bool = False) -> Matrix:
    """Decrypt index vectors (p, k) with a key of the thief's own.

    He stores his own embeddings (m, d) in a collection of the same scheme, learns from it how to invert its index
    vectors, and applies that to the stolen ones. He learns the linear map of least squared error, or trains a mapper.
    """
    scheme = {name: value for name, value in kind.items() if name != "profile"}
    mine = stolen(own, scheme).ciphertexts
    return mapped(mine, own, taken) if trained else _decoded(mine, own, taken)


def _decoded(frame: Matrix, learnt: Matrix, located: Matrix) -> Matrix:
    matrix, offset = decoder(frame, learnt)
    scale = np.float32(np.sqrt(np.square(frame).mean() / max(1e-20, float(np.square(located).mean()))))
    return unit(float32(located * scale @ matrix + offset))


@dataclass(frozen=True, eq=False)
class Alignment:
    """The result of the lab's best alignment."""

    targets: Matrix
    """(p, d): embeddings as the thief reconstructs them."""
    attack: str
    pairs: int
    identified: float
    """Share of the targets' index vectors that are nearest to their own embedding among all n."""
    cosine: float
    """Mean cosine of the reconstructed embeddings to the true ones."""
    trained: Callable[[], Matrix]
    """Trains a mapper instead of the linear decoder; returns its targets (p, d)."""

    def facts(self) -> dict[str, Any]:
        """JSON values."""
        names = ("attack", "pairs", "identified", "cosine")
        return {name: getattr(self, name) for name in names}


def aligned(
    loot: Stolen,
    vectors: Matrix,
    rows: Rows,
    own: Matrix,
    pairs: int,
    *,
    seed: int = 0,
    attacks: Sequence[str] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Alignment:
    """Run the leakage lab's attacks, and keep the one that names most records, which the thief could not know.

    Args:
        loot: all index vectors (n, k).
        vectors: their embeddings (n, d), to score by, and of which `pairs` are known to the thief; none of `rows`.
        rows: the people whose faces are wanted.
        own: the thief's embeddings (m, d), of other people.
        pairs: known pairs.
        seed: of the attacks, and of which pairs are known.
        attacks: names in the lab; only these of the suitable ones run.
        progress: called after each attack.
    """
    rng = np.random.default_rng([seed, pairs])
    others = np.setdiff1d(np.arange(len(vectors)), rows)
    known = np.sort(rng.choice(others, min(pairs, len(others)), replace=False))
    alone = WHITENED if loot.whitened else ISOMETRIES
    suitable = [name for name, attack in ATTACKS.items() if attack.holds == "pairs"] if pairs else list(alone)
    best: Alignment | None = None
    for name in (name for name in suitable if attacks is None or name in attacks):
        for looked in ATTACKS[name].views:
            case = Case(
                loot.ciphertexts,
                own,
                np.random.default_rng([seed, pairs, 1]),
                loot.noise,
                pairs=known,
                pair_vectors=vectors[known],
            )
            seen = view(looked, case)
            if seen is None:
                continue
            log.debug("trying %s in the view %s", name, looked)
            located = ATTACKS[name].run(seen, case)
            placed = seen.frame(vectors)
            if located.shape != placed.shape or not np.isfinite(located).all():
                continue
            named = hits(located, placed)
            learnt = sample(own, _LEARNT, case.rng)
            shown = seen.noisy(learnt)
            targets = _decoded(shown, learnt, located)
            alike = np.concatenate(
                [np.einsum("ij,ij->i", targets[part], unit(vectors[part])) for part in blocks(len(targets))]
            )
            found = Alignment(
                targets[rows],
                f"{name}, {looked}",
                pairs,
                float(np.delete(named, known).mean()),
                float(alike[rows].mean()),
                partial(mapped, shown, learnt, located[rows]),
            )
            if best is None or (found.identified, found.cosine) > (best.identified, best.cosine):
                best = found
        progress()
    if best is None:
        raise ValueError("no attack of the lab suits these index vectors")
    return best
