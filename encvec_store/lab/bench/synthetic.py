"""Synthetic data of any size, made as it is read: clustered like text embeddings, or iid.

Clustered data is a tree: an intent (about 130 vectors), groups of 24 in it, paraphrases of 6 in those, and single
sentences. Each level adds its share of the variance within an intent, at scales that differ (a log-normal factor),
which gives text's near duplicates beside its loners. A plain Gaussian mixture has neither: its local intrinsic
dimension is 30 where that of Banking77's embeddings is 7. Fitted on Banking77, see benchmarks/data/README.md.
"""

from __future__ import annotations

import math

import numpy as np

from ...data import Matrix, Rows
from ...errors import InputError
from .source import HELD_OUT, Data, Drawn, VectorSource

__all__ = ["INTENT", "clustered", "iid", "named", "power_law", "tree"]

INTENT = 130
LEVELS = ((24, 0.31), (6, 0.26), (1, 0.43))
SPREAD = 0.5
_MORE = 64
"""Queries that grow on the same trees as a block of vectors, at least."""


def tree(total: int, centres: Matrix, root: Matrix, rng: np.random.Generator) -> tuple[Matrix, Rows]:
    """Draw unit vectors (total, d) around centres (m, d), and which centre each belongs to.

    Args:
        total: how many.
        centres: of the intents.
        root: (d, d) root of the covariance within an intent.
        rng: where randomness comes from.
    """
    place = rng.permutation(total)  # a vector's leaf in the tree: neighbours share their ancestors
    labels = place * len(centres) // total
    points = centres[labels]
    for size, share in LEVELS:
        count = max(1, total // size)
        scale = np.exp(SPREAD * rng.standard_normal((count, 1)) - SPREAD**2) * share**0.5
        noise = (rng.standard_normal((count, root.shape[1]), np.float32) @ root) * scale.astype(np.float32)
        points += noise[place * count // total]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points, labels.astype(np.int64)


def power_law(d: int, rng: np.random.Generator) -> tuple[Matrix, Matrix, Matrix]:
    """Return (mean (d,), root (d, d) of the covariance between intents, root within): spectra fitted on Banking77's."""
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    rank = np.arange(1, d + 1)
    between, within = (rank + 8.0) ** -2.3, (rank + 30.0) ** -1.9
    between, within = 0.38 * between / between.sum(), 0.41 * within / within.sum()
    mean = rng.standard_normal(d)
    mean *= 0.47 / np.linalg.norm(mean)
    other = np.linalg.qr(rng.standard_normal((d, d)))[0]  # topics and wordings do not vary along the same axes
    roots = (between[:, None] ** 0.5 * turn).astype(np.float32), (within[:, None] ** 0.5 * other).astype(np.float32)
    return mean.astype(np.float32), *roots


def clustered(n: int, d: int, *, queries: int = HELD_OUT, seed: int = 0) -> Data:
    """`n` unit vectors shaped like text embeddings, and queries that grow on the same trees. Nothing is held."""
    if n < 1 or d < 2 or queries < 1 or seed < 0:
        raise InputError(f"synthetic data needs n >= 1, d >= 2, queries >= 1, got {n}, {d}, {queries}")
    mean, between, within = power_law(d, np.random.default_rng([seed, 0]))
    blocks = math.ceil(n / Drawn.BLOCK)
    more = max(_MORE, math.ceil(queries / blocks))

    def draw(rng: np.random.Generator, count: int, first: int) -> Matrix:
        total = min(count, n - first) + more  # as many as there are: a last, short block has whole trees too
        intents = max(1, total // INTENT)
        centres = rng.standard_normal((intents, d), np.float32) @ between + mean
        return tree(total, centres, within, rng)[0]

    vectors = Drawn(n, d, seed, draw)
    asked = np.linspace(0, blocks - 1, min(blocks, math.ceil(queries / more))).astype(int)
    parts = []
    for number in asked.tolist():
        rng, first = np.random.default_rng([seed, 1, number]), number * Drawn.BLOCK
        parts.append(draw(rng, Drawn.BLOCK, first)[min(Drawn.BLOCK, n - first) :])
    return Data(
        f"clustered:{n}x{d}" + (f":{seed}" if seed else ""), VectorSource(vectors), np.concatenate(parts)[:queries]
    )


def iid(n: int, d: int, *, queries: int = HELD_OUT, seed: int = 0) -> Data:
    """`n` unit vectors without any structure: the hardest there is for an index, and unlike any embeddings."""
    if n < 1 or d < 2 or queries < 1 or seed < 0:
        raise InputError(f"synthetic data needs n >= 1, d >= 2, queries >= 1, got {n}, {d}, {queries}")

    def draw(rng: np.random.Generator, count: int, first: int) -> Matrix:
        points = rng.standard_normal((count, d), np.float32)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        return points

    asked = draw(np.random.default_rng([seed, 2]), queries, 0)
    return Data(f"iid:{n}x{d}" + (f":{seed}" if seed else ""), VectorSource(Drawn(n, d, seed, draw)), asked)


def named(name: str, queries: int = HELD_OUT) -> Data | None:
    """Return `clustered:NxD`, `iid:NxD`, either with `:SEED`; None for a name that begins otherwise.

    Raises InputError for a size that is none.
    """
    kind, _, rest = name.partition(":")
    make = {"clustered": clustered, "iid": iid}.get(kind)
    if make is None:
        return None
    size, _, seed = rest.partition(":")
    try:
        n, d = (int(part) for part in size.lower().split("x"))
        number = int(seed or 0)
    except ValueError:
        raise InputError(f"{name!r} is not {kind}:NxD or {kind}:NxD:SEED") from None
    return make(n, d, queries=queries, seed=number)
