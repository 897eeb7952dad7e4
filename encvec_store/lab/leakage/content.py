"""Cells by content, which the store does not use (decision 0017): what they would give away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data import Matrix
from .algebra import Cells, Statistics, ball, centroids, haar, nearest, unit
from .protocol import GivenParameters

__all__ = ["ContentCells"]


@dataclass(frozen=True)
class ContentCells(GivenParameters):
    """A sketch whose records lie in the cell of their nearest centroid, each cell under a rotation of its own.

    Args:
        dims: leading eigenvectors kept, whitened by the statistics of all records.
        beta: noise uniform in the ball of radius beta / 4 around points of the sphere.
        cells: how many centroids a k-means of the profile's vectors makes; they are secret.
    """

    dims: int
    beta: float
    cells: int

    def parameters(self) -> Mapping[str, Any]:
        """The number of dimensions, the noise and the number of cells."""
        return {"k": self.dims, "beta": self.beta, "cells": self.cells}

    def keyed(self, key: int, profile: Matrix) -> _Keyed:
        """Fit statistics and centroids, and draw the rotations."""
        return _Keyed(self, key, profile)


class _Keyed:
    public: Callable[[Matrix], Matrix] | None = None

    def __init__(self, subject: ContentCells, key: int, profile: Matrix) -> None:
        self._rng = np.random.default_rng([key, 0xCE11])
        self._statistics = Statistics.fit(profile, subject.dims)
        self._centroids = centroids(unit(profile), subject.cells, self._rng)
        self._turns = np.stack([haar(subject.dims, self._rng) for _ in range(len(self._centroids))])
        self.noise = subject.beta / 4
        self.sorts: Callable[[Matrix], Cells] | None = self._nearest

    def store(self, vectors: Matrix) -> Matrix:
        return self.spread(vectors)[0]

    def spread(self, vectors: Matrix) -> tuple[Matrix, Cells]:
        cells = self._nearest(vectors)
        out = unit(self._statistics.whitened(vectors))
        for cell, turn in enumerate(self._turns):
            out[cells == cell] = out[cells == cell] @ turn
        out += np.float32(self.noise) * ball(len(out), out.shape[1], self._rng)
        return unit(out), cells

    def ask(self, queries: Matrix) -> Matrix:
        asked: Matrix = unit(self._statistics.whitened(queries, 0.0)) @ self._turns
        return asked

    def _nearest(self, vectors: Matrix) -> Cells:
        return nearest(unit(vectors), self._centroids).astype(np.int64)
