"""A trained mapper from index vectors to embeddings, in the manner of FEM, small enough for a CPU.

D. Han, Y. Li and J. Denzler, "Realistic Face Reconstruction from Facial Embeddings via Diffusion Models" (AAAI 2026,
arXiv 2602.13168): a network learns to map leaked or protected embeddings to those that a generator takes. Here it is
kernel ridge regression, which learns what is not linear and needs no torch.
"""

from __future__ import annotations

import numpy as np

from encvec_store.lab.leakage.algebra import float32, unit
from encvec_store.lab.leakage.metrics import mean_cosine

from .models import Matrix

__all__ = ["LEARNT", "Mapper", "mapped"]

LEARNT = 3_000
"""Embeddings of the thief's that a mapper learns from."""
_HELD = 500
_RIDGES, _WIDTHS = (1e-3, 1e-2, 1e-1), (0.5, 1.0, 2.0)


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


def mapped(points: Matrix, learnt: Matrix, located: Matrix) -> Matrix:
    """Train a mapper from points (m, q) to the embeddings (m, d) of the same faces, and map `located` (n, q)."""
    some = np.random.default_rng(0).permutation(len(points))[:LEARNT]
    return Mapper(unit(points[some]), learnt[some])(unit(located))


def _apart(a: Matrix, b: Matrix) -> Matrix:
    return float32(np.maximum(np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T, 0))
