"""Built-in vectors that behave like text embeddings, for where no real ones are given."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...data import Matrix
from .algebra import float32, unit

__all__ = ["text_like"]


def text_like(
    count: int, dim: int = 40, *, seed: int = 0, kind: int = 0, topics: int = 40
) -> tuple[Matrix, npt.NDArray[np.int64]]:
    """Draw unit vectors (count, dim) and their topics (count,).

    Sparse factors (a text is about few things, each more or less) under a power-law spectrum, around topic centres:
    a spectrum, clusters and tails as sentence embeddings have them, though few dimensions. The same `kind` is the same
    "language"; another seed gives other texts in it.
    """
    world = np.random.default_rng([kind, dim, topics])
    spectrum = (1 + np.arange(dim)) ** -0.6
    turn, _ = np.linalg.qr(world.standard_normal((dim, dim)))
    loading = world.standard_normal((dim, dim)) * 0.05 + np.eye(dim)
    centres = world.standard_normal((topics, dim))
    popular = (1 + np.arange(topics)) ** -0.7
    mean = world.standard_normal(dim) * 0.3

    rng = np.random.default_rng([kind, dim, topics, 1 + seed])
    labels = rng.choice(topics, count, p=popular / popular.sum())
    factors = rng.exponential(1.0, (count, dim)) * (rng.random((count, dim)) < 0.2)
    points = factors @ loading + centres[labels] + 0.2 * rng.standard_normal((count, dim)) + mean
    return unit(float32((points * spectrum) @ turn)), labels.astype(np.int64)
