"""What is attacked: a table of ways to turn vectors into index vectors under a key.

Real schemes run their own keyed code. Beside them stand controls, which exist only to be broken: a lab whose
attacks leave these standing proves nothing about the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ...data.arrays import Matrix
from ...errors import InputError
from ...schemes import KeyedScheme, scheme
from .algebra import Cells, Statistics, ball, blocks, float32, haar, unit
from .content import ContentCells

__all__ = ["CONTROLS", "SUBJECTS", "Foreign", "Keyed", "Pipeline", "Registered", "Subject", "subject"]


class Keyed(Protocol):
    """A subject under one key."""

    @property
    def noise(self) -> float:
        """Radius of the noise ball, relative to points of length 1: a parameter, which the adversary knows."""
        ...

    @property
    def public(self) -> Callable[[Matrix], Matrix] | None:
        """Steps before the secret ones, (n, d) -> (n, k), where they depend on nothing secret; else None."""
        ...

    @property
    def sorts(self) -> Callable[[Matrix], Cells] | None:
        """The cell of each of (n, d) vectors, where content decides it and not a key's draw; else None."""
        ...

    def store(self, vectors: Matrix) -> Matrix:
        """Index vectors (n, k) of (n, d) unit vectors."""
        ...

    def spread(self, vectors: Matrix) -> tuple[Matrix, Cells]:
        """Return the same, and the cell of each (n,), which a thief sees. Each cell has a rotation of its own."""
        ...

    def ask(self, queries: Matrix) -> Matrix:
        """Encrypted queries (cells, q, k) of (q, d), ranked by inner product with the records of each cell."""
        ...


class OneRotation:
    """What keyed subjects have in common that know of no cells."""

    sorts: Callable[[Matrix], Cells] | None = None

    def store(self, vectors: Matrix) -> Matrix:
        """See Keyed."""
        raise NotImplementedError

    def spread(self, vectors: Matrix) -> tuple[Matrix, Cells]:
        """All in the first."""
        return self.store(vectors), np.zeros(len(vectors), np.int64)


class Subject(Protocol):
    """A scheme or control with its parameters."""

    def parameters(self) -> Mapping[str, Any]:
        """Parameters as JSON values."""
        ...

    def keyed(self, key: int, profile: Matrix) -> Keyed:
        """Under the key of that number, with (m, d) vectors of the collection's own kind for statistics."""
        ...


# ------------------------------------------------------------------------------------ registered schemes


@dataclass(frozen=True)
class Registered:
    """A scheme of the registry, run as a store runs it."""

    spec: Mapping[str, Any]

    def parameters(self) -> Mapping[str, Any]:
        """The scheme's own, but for what each key draws anew."""
        return {name: value for name, value in scheme(self.spec).parameters().items() if name != "profile"}

    def keyed(self, key: int, profile: Matrix) -> Keyed:
        """Derive the scheme's keys from a root that belongs to the number."""
        root = hashlib.sha256(b"leakage lab root %d" % key).digest()
        built, fitted = scheme(self.spec), None
        if built.needs_profile:
            found = built.fit(profile, 0)  # of no records: the cells are those asked for
            built, fitted = found.scheme, found.profile
        return _RegisteredKeyed(
            built.keyed(root, ("", "leakage"), profile.shape[1], fitted),  # the keys of all published measurements
            built.noise / 4,
            np.random.default_rng(key),
        )


@dataclass
class _RegisteredKeyed:
    scheme: KeyedScheme
    noise: float
    rng: np.random.Generator
    public: Callable[[Matrix], Matrix] | None = None
    sorts: Callable[[Matrix], Cells] | None = None

    def store(self, vectors: Matrix) -> Matrix:
        return self.spread(vectors)[0]

    def spread(self, vectors: Matrix) -> tuple[Matrix, Cells]:
        tokens = self.rng.integers(0, 256, (len(vectors), 16), dtype=np.uint8)
        return self.scheme.encrypt(vectors, tokens, vectors)[0], self.scheme.cells_of(tokens)

    def ask(self, queries: Matrix) -> Matrix:
        return self.scheme.encrypt_queries(queries)


# --------------------------------------------------------------------------------- reference and controls


@dataclass(frozen=True)
class Pipeline:
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
class Foreign:
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


def _sketch(k: int | None, dim: int) -> int:
    return min(k or dim // 2, dim)


SUBJECTS: dict[str, Callable[[int, int | None, float, int | None], Subject]] = {
    # the schemes
    "sap": lambda dim, k, beta, cells: Registered({"name": "sap", "beta": beta, "cells": cells or 1}),
    "sketch": lambda dim, k, beta, cells: Registered(
        {"name": "sketch", "k": _sketch(k, dim), "beta": beta, "cells": cells}
    ),
    # other people's, and what is done without thinking
    "shuffle-sap": lambda dim, k, beta, cells: Pipeline(None, mixing="shuffle", beta=beta),
    "plain": lambda dim, k, beta, cells: Pipeline(None, mixing="none"),
    "public-constant": lambda dim, k, beta, cells: Pipeline(None, mixing="factor"),
    "shuffle": lambda dim, k, beta, cells: Pipeline(None, mixing="shuffle"),
    "haar": lambda dim, k, beta, cells: Pipeline(None),
    # sketches with one step wrong
    "foreign-statistics": lambda dim, k, beta, cells: Pipeline(_sketch(k, dim), 1.0, beta=beta, foreign=True),
    "half-whitening": lambda dim, k, beta, cells: Pipeline(_sketch(k, dim), 0.5, beta=beta),
    "norm-kept": lambda dim, k, beta, cells: Pipeline(_sketch(k, dim), 1.0, sphere=False, beta=beta),
    "no-noise": lambda dim, k, beta, cells: Pipeline(_sketch(k, dim), 1.0),
    # the road not taken, see decision 0017
    "content-cells": lambda dim, k, beta, cells: ContentCells(_sketch(k, dim), beta, cells or 4),
}
"""Name -> how to build it from the dimension, the sketch's size (None: half the dimension), beta and cells."""

IN_CELLS = ("sap", "sketch", "content-cells")
CONTROLS = frozenset(SUBJECTS) - {"sap", "sketch", "content-cells"}
"""Those that exist to be broken. Cells by content are none: they name few records and tell what many are about."""


def subject(name: str, dim: int, *, k: int | None = None, beta: float = 2.0, cells: int | None = None) -> Subject:
    """Build a subject of the table. Raises InputError for a name that is not in it, or cells it does not know of."""
    if name not in SUBJECTS:
        raise InputError(f"unknown subject {name!r}; there are: {', '.join(SUBJECTS)}")
    if cells is not None and name not in IN_CELLS:
        raise InputError(f"{name} knows of no cells; these do: {', '.join(IN_CELLS)}")
    return SUBJECTS[name](dim, k, beta, cells)
