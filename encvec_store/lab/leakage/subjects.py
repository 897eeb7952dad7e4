"""What is attacked: a table of ways to turn vectors into index vectors under a key.

Real schemes run their own keyed code, with the parameters that a collection of as many records has. Beside them stand
controls, which exist only to be broken: a lab whose attacks leave these standing proves nothing about the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from ...data import Matrix
from ...errors import InputError
from ...schemes import scheme
from .algebra import Statistics, ball, blocks, float32, haar, unit
from .content import ContentCells
from .protocol import GivenParameters, Keyed, OneRotation, Subject
from .registered import Registered

__all__ = ["CONTROLS", "SUBJECTS", "Foreign", "Pipeline", "subject"]

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Pipeline(GivenParameters):
    """Center, project, whiten, sphere, mix, perturb: each step can be left out or done wrongly.

    Args:
        dims: leading eigenvectors kept; None keeps the coordinates as they are.
        whitening: 1 whitens fully, 0.5 by half, 0 not at all.
        sphere: whether points go on the unit sphere before the noise.
        mixing: secret rotation, secret shuffle of coordinates, a public factor, or nothing.
        beta: noise uniform in the ball of radius beta / 4 times the points' mean length.
        foreign: whiten with the statistics of some other corpus (the coordinates of the sample, shuffled).
        gamma: queries are scaled by deviation^(2 gamma): -1/2 whitens them as records, 0 leaves them.
    """

    dims: int | None = None
    whitening: float = 0.0
    sphere: bool = True
    mixing: Literal["haar", "shuffle", "factor", "none"] = "haar"
    beta: float = 0.0
    foreign: bool = False
    gamma: float = 0.0

    def parameters(self) -> Mapping[str, Any]:
        """The number of dimensions and the noise."""
        return {"k": self.dims, "beta": self.beta, "gamma": self.gamma}

    def keyed(self, key: int, profile: Matrix) -> Keyed:
        """Draw the key's matrix and fit the statistics."""
        return _PipelineKeyed(self, key, profile)


class _PipelineKeyed(OneRotation):
    def __init__(self, pipeline: Pipeline, key: int, profile: Matrix) -> None:
        self._pipeline = pipeline
        self._rng = np.random.default_rng([key, 0x5EED])
        d = profile.shape[1]
        if pipeline.dims is not None and not 1 <= pipeline.dims <= d:
            raise InputError(f"a sketch of {pipeline.dims} dimensions cannot be made of vectors of {d}")
        if pipeline.foreign:
            profile = profile[:, np.random.default_rng(0).permutation(d)]
        self._statistics = None if pipeline.dims is None else Statistics.fit(profile, pipeline.dims)
        k = pipeline.dims or d
        match pipeline.mixing:
            case "haar":
                self._mix = haar(k, self._rng)
            case "shuffle":
                self._mix = np.eye(k, dtype=np.float32)[self._rng.permutation(k)]
            case "factor":
                self._mix = 3.7 * np.eye(k, dtype=np.float32)
            case "none":
                self._mix = np.eye(k, dtype=np.float32)
        points = self._points(profile[:1000])
        self._length = float(np.linalg.norm(points, axis=1).mean())
        self.noise = pipeline.beta / 4
        self.public = self._points if pipeline.foreign else None  # somebody else's statistics are no secret

    def _points(self, vectors: Matrix) -> Matrix:
        if self._statistics is not None:
            vectors = self._statistics.whitened(vectors, self._pipeline.whitening)
        return unit(vectors) if self._pipeline.sphere else vectors

    def store(self, vectors: Matrix) -> Matrix:
        out = self._points(vectors) @ self._mix
        if self._pipeline.beta:
            for rows in blocks(len(out)):
                out[rows] += np.float32(self.noise * self._length) * ball(len(out[rows]), out.shape[1], self._rng)
        return out

    def ask(self, queries: Matrix) -> Matrix:
        if self._statistics is None:
            return (unit(queries) @ self._mix)[None]
        power = -2 * self._pipeline.gamma if self._pipeline.whitening else 0.0
        return (unit(self._statistics.whitened(queries, power)) @ self._mix)[None]


@dataclass(frozen=True)
class Foreign(GivenParameters):
    """Somebody else's encryption: a function of vectors (n, d), beta and the key's number. Queries go the same way."""

    beta: float
    encrypt: Callable[[Matrix, float, int], Matrix]

    def parameters(self) -> Mapping[str, Any]:
        """The noise."""
        return {"beta": self.beta}

    def keyed(self, key: int, profile: Matrix) -> Keyed:
        """Bind the key."""
        return _ForeignKeyed(self, key)


@dataclass(frozen=True)
class _ForeignKeyed(OneRotation):
    foreign: Foreign
    key: int
    public: Callable[[Matrix], Matrix] | None = None

    @property
    def noise(self) -> float:
        return self.foreign.beta / 4

    def store(self, vectors: Matrix) -> Matrix:
        return float32(self.foreign.encrypt(vectors, self.foreign.beta, self.key))

    def ask(self, queries: Matrix) -> Matrix:
        return self.store(queries)[None]


# ------------------------------------------------------------------------------------------- the table


Build = Callable[[int | None, float | None, int | None], Subject]

_NOISY = "shuffle-sap"
_SKETCHES = ("foreign-statistics", "half-whitening", "norm-kept", "no-noise", "content-cells")

SUBJECTS: dict[str, Build] = {
    # the schemes
    "sap": lambda k, beta, cells: Registered.of({"name": "sap", "beta": beta, "cells": cells}),
    "sketch": lambda k, beta, cells: Registered.of({"name": "sketch", "k": k, "beta": beta, "cells": cells}),
    # other people's, and what is done without thinking
    "shuffle-sap": lambda k, beta, cells: Pipeline(None, mixing="shuffle", beta=_given("beta", beta)),
    "plain": lambda k, beta, cells: Pipeline(None, mixing="none"),
    "public-constant": lambda k, beta, cells: Pipeline(None, mixing="factor"),
    "shuffle": lambda k, beta, cells: Pipeline(None, mixing="shuffle"),
    "haar": lambda k, beta, cells: Pipeline(None),
    # sketches with one step wrong
    "foreign-statistics": lambda k, beta, cells: Pipeline(_given("k", k), 1.0, beta=_given("beta", beta), foreign=True),
    "half-whitening": lambda k, beta, cells: Pipeline(_given("k", k), 0.5, beta=_given("beta", beta)),
    "norm-kept": lambda k, beta, cells: Pipeline(_given("k", k), 1.0, sphere=False, beta=_given("beta", beta)),
    "no-noise": lambda k, beta, cells: Pipeline(_given("k", k), 1.0),
    # the road not taken, see decision 0017
    "content-cells": lambda k, beta, cells: ContentCells(_given("k", k), _given("beta", beta), cells or 4),
}
"""Name -> how to build it from the sketch's dimensions, beta and cells."""

IN_CELLS = ("sap", "sketch", "content-cells")
CONTROLS = frozenset(SUBJECTS) - {"sap", "sketch", "content-cells"}
"""Those that exist to be broken. Cells by content are none: they name few records and tell what many are about."""


def subject(
    name: str,
    dim: int,
    *,
    k: int | None = None,
    beta: float | None = None,
    cells: int | None = None,
    sample: Matrix | None = None,
) -> Subject:
    """Build a subject of the table for vectors of `dim` coordinates.

    Args:
        name: of SUBJECTS.
        dim: coordinates of a vector.
        k: dimensions of a sketch. None: the collection chooses.
        beta: noise. None: the scheme's own.
        cells: parts of a collection, each under a rotation of its own. None: the collection chooses.
        sample: (m, dim) vectors of the kind. A control without k or beta takes what a sketch of these has.

    Raises:
        InputError: unknown name, cells that it does not take, a control without k, beta and sample.
    """
    if name not in SUBJECTS:
        raise InputError(f"unknown subject {name!r}; there are: {', '.join(SUBJECTS)}")
    if cells is not None and name not in IN_CELLS:
        raise InputError(f"{name} takes no cells; these do: {', '.join(IN_CELLS)}")
    if name == _NOISY and beta is None:
        beta = scheme("sap").noise
    if name in _SKETCHES and (k is None or beta is None) and sample is not None:
        like = Registered.of({"name": "sketch", "k": k, "beta": beta}).grown(len(sample), sample).parameters()
        k, beta = like["k"], like["beta"]
    return SUBJECTS[name](None if k is None else min(k, dim), beta, cells)


def _given(name: str, value: _Number | None) -> _Number:
    if value is None:
        raise InputError(f"this control needs {name}, or a sample to choose it by")
    return value
