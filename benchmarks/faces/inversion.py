"""Trained inversion: a ridge regression from embeddings to a generator's latents.

The thief trains on latents of his own photographs and of pre-generated faces, and on the embeddings of these faces. One
matrix product then turns a stolen vector into a face.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .generator import Eigenfaces
from .models import Matrix

__all__ = ["Inverter"]

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_HELD = 0.2


class Inverter:
    """A linear map from embeddings to latents; held-out faces choose the strength of the ridge.

    Args:
        vectors: (m, d) embeddings.
        latents: (m, k) latents of the same faces.
        seed: of what is held out.
    """

    def __init__(self, vectors: Matrix, latents: Matrix, seed: int = 0, strengths: Sequence[float] = STRENGTHS) -> None:
        order = np.random.default_rng(seed).permutation(len(vectors))
        held, taught = np.split(order, [max(1, int(_HELD * len(order)))])

        def loss(strength: float) -> float:
            weights = _ridge(vectors[taught], latents[taught], strength)
            return float(np.square(_with_one(vectors[held]) @ weights - latents[held]).mean())

        self.strength = min(strengths, key=loss)
        self._weights = _ridge(vectors, latents, self.strength)
        # a regression pulls towards the mean face, so guesses are scaled to the length of latents of faces
        guesses = _with_one(vectors) @ self._weights
        self._stretch = np.float32(np.sqrt(np.square(latents).sum() / max(1e-12, float(np.square(guesses).sum()))))

    def latents(self, generator: Eigenfaces, vectors: Matrix) -> Matrix:
        """Guess latents (p, k) of vectors (p, d)."""
        return generator.kept((_with_one(vectors) @ self._weights * self._stretch).astype(np.float32))


def _with_one(vectors: Matrix) -> Matrix:
    result: Matrix = np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)
    return result


def _ridge(vectors: Matrix, latents: Matrix, strength: float) -> Matrix:
    inputs = _with_one(vectors).astype(np.float64)
    gram = inputs.T @ inputs
    gram[np.diag_indices(len(gram) - 1)] += strength * np.trace(gram) / len(gram)
    result: Matrix = np.linalg.solve(gram, inputs.T @ latents).astype(np.float32)
    return result
