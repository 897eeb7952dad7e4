"""What an adversary holds, and the views in which he can compare it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ...data import Matrix
from .algebra import Indices, Statistics, ball, centred, eigen, float32, unit

__all__ = ["VIEWS", "Case", "Groups", "View", "view", "whitening"]

Groups = tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]
"""A number for each ciphertext (n,), and one for each vector of the adversary's corpus (m,): equal where both sides
show the same thing."""


@dataclass(frozen=True)
class Case:
    """What an adversary holds: never the key, always the algorithm and its parameters.

    `background` (b, d) holds more vectors of the same kind, used only for statistics: a few hundred texts give poor
    ones. `public` does the scheme's first steps, if these need no secret. `pairs` are the rows of the ciphertexts
    whose vectors `pair_vectors` (p, d) he knows. `groups` is what else puts records together, by the name of what he
    has: `classes` (values of a plain field), `tokens` (of a blind one: numbers of the two sides do not belong
    together), `sizes` of payloads, `order` of writes. `dumps` are the same records, row by row, as other snapshots
    show them, each (n, k').
    """

    ciphertexts: Matrix
    corpus: Matrix
    rng: np.random.Generator
    noise: float = 0.0
    background: Matrix | None = None
    public: Callable[[Matrix], Matrix] | None = None
    pairs: Indices = field(default_factory=lambda: np.zeros(0, np.intp))
    pair_vectors: Matrix = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    groups: Mapping[str, Groups] = field(default_factory=dict)
    dumps: tuple[Matrix, ...] = ()

    def only(self, rows: Indices, pairs: Indices | None = None) -> Case:
        """Return the case of (m,) ciphertexts only; `pairs` are places among them."""
        return replace(
            self,
            ciphertexts=self.ciphertexts[rows],
            pairs=self.pairs[:0] if pairs is None else pairs,
            groups={name: (mine[rows], theirs) for name, (mine, theirs) in self.groups.items()},
            dumps=tuple(dump[rows] for dump in self.dumps),
        )


@dataclass(frozen=True)
class View:
    """Ciphertexts and plaintexts in coordinates that should agree up to an orthogonal map."""

    name: str
    cipher: Matrix
    """(n, q)"""
    frame: Callable[[Matrix], Matrix]
    """Maps plaintext vectors (m, d) to (m, q)."""
    noisy: Callable[[Matrix], Matrix]
    """The same, with fresh noise as large as the scheme's: clouds compare best if both are noisy."""


def view(name: str, case: Case) -> View | None:
    """Return the view of that name in VIEWS; None if the case has no such view."""
    return VIEWS[name](case)


def _raw(case: Case) -> View | None:
    """The coordinates as they are: for transforms that do not mix them, such as shuffles."""
    if case.ciphertexts.shape[1] != case.corpus.shape[1]:
        return None
    mean = case.corpus.mean(axis=0)
    return View("raw", case.ciphertexts, lambda x: x - mean, _before(case, lambda x: x - mean))


def _centred(case: Case) -> View:
    """Principal components of the corpus, lengths unchanged: for isometries."""
    fit = _statistics(case)
    return View("centred", centred(case.ciphertexts), _plain(fit), _before(case, _plain(fit)))


def _recoloured(case: Case) -> View:
    """Ciphertexts with the spectrum of the corpus: undoes partial whitening of any power."""
    fit = _statistics(case)
    white = _whiten(case.ciphertexts)
    _, basis = eigen(_covariance(case.ciphertexts))
    cipher = white @ basis * fit.spread
    return View("recoloured", cipher, _plain(fit), _before(case, _plain(fit)))


def _whitened(case: Case) -> View:
    """Both sides whitened, each by its own statistics, without scaling to unit length."""
    fit = _statistics(case)
    return View("whitened", _whiten(case.ciphertexts), fit.whitened, _before(case, fit.whitened))


def _sphere(case: Case) -> View:
    """Ciphertexts at unit length beside the adversary's own sketch: few ciphertexts give poor statistics."""
    fit = _statistics(case)

    def frame(vectors: Matrix) -> Matrix:
        return unit(fit.whitened(vectors))

    def noisy(vectors: Matrix) -> Matrix:
        points = frame(vectors)
        return unit(points + np.float32(case.noise) * ball(len(points), points.shape[1], case.rng))

    return View("sphere", unit(centred(case.ciphertexts)), frame, noisy)


def _public(case: Case) -> View | None:
    """The scheme's own steps up to the rotation, if their statistics are no secret."""
    if case.public is None:
        return None
    steps = case.public
    mean = steps(case.corpus).mean(axis=0)
    return View(
        "public", centred(case.ciphertexts), lambda x: steps(x) - mean, _before(case, lambda x: steps(x) - mean)
    )


def _plain(fit: Statistics) -> Callable[[Matrix], Matrix]:
    return lambda vectors: fit.whitened(vectors, 0.0)


def _before(case: Case, frame: Callable[[Matrix], Matrix]) -> Callable[[Matrix], Matrix]:
    """Add noise to unit vectors as the scheme does, before the adversary's own steps."""
    return lambda vectors: frame(vectors + np.float32(case.noise) * ball(len(vectors), vectors.shape[1], case.rng))


def _statistics(case: Case) -> Statistics:
    known = case.corpus if case.background is None else np.concatenate([case.corpus, case.background])
    return Statistics.fit(known, case.ciphertexts.shape[1])


def _covariance(points: Matrix) -> Matrix:
    """Return the covariance, shrunk if there are few points for its size, so that it can be inverted."""
    away = centred(points)
    n, k = points.shape
    matrix = away.T @ away / n
    shrink = k / (k + n)
    result: Matrix = (1 - shrink) * matrix + np.float32(shrink * np.trace(matrix) / k) * np.eye(k, dtype=np.float32)
    return result


def whitening(points: Matrix) -> Matrix:
    """Return the symmetric matrix (q, q) that whitens centred (n, q) points."""
    values, basis = eigen(_covariance(points))
    values = np.maximum(values, 1e-6 * values[0])
    return float32((basis / np.sqrt(values)) @ basis.T)


def _whiten(points: Matrix) -> Matrix:
    return centred(points) @ whitening(points)


VIEWS: dict[str, Callable[[Case], View | None]] = {
    "raw": _raw,
    "centred": _centred,
    "recoloured": _recoloured,
    "public": _public,
    "whitened": _whitened,
    "sphere": _sphere,
}
