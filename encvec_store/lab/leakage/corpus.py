"""Two properties of a corpus that tell how few known pairs break a sketch of it.

    print(properties(vectors)["sentence"])

An adversary with other texts of the kind guesses what a record may be from the text that is nearest to it. That works
as far as the nearest resembles it once directions are whitened, as a sketch whitens them. How many pairs it takes to
begin grows with the directions in which the corpus varies. Figures of several corpora stand beside it (decision 0059).
They are of one attack: where it named little, the corpus is not broken yet, and not safe.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ...data import Matrix
from ...errors import InputError
from .algebra import Statistics, centred, eigen, float32, sample, unit
from .watching import neighbours

__all__ = ["LEAST", "MEASURED", "MeasuredCorpus", "properties"]

_MOST, _NEAR = 4_000, 10
LEAST = 50
"""Vectors that are needed."""
_KEPT, _NOISE = 250, 1.25


class MeasuredCorpus(NamedTuple):
    """A corpus, 4,000 records of it under a sketch of k=250 and beta 5, and up to 4,583 other ones of the kind."""

    name: str
    nearest: float
    """Mean cosine to the nearest other in the frame of the sketch."""
    dimension: float
    """The effective dimension."""
    of_20: float
    """Share that 20 known pairs name."""
    of_50: float

    def apart(self, nearest: float, dimension: float) -> float:
        """Return how unlike a corpus with these properties is: .1 of a cosine weighs as much as half the dimension."""
        return math.hypot((self.nearest - nearest) / 0.1, math.log2(self.dimension / dimension))


MEASURED = (
    MeasuredCorpus("Banking77", 0.649, 38, 0.993, 0.995),
    MeasuredCorpus("CLINC150", 0.653, 91, 0.283, 0.995),
    MeasuredCorpus("Banking77 without its topics", 0.587, 80, 0.039, 0.994),
    MeasuredCorpus("faces (LFW)", 0.536, 49, 0.992, 0.999),
    MeasuredCorpus("Banking77 with a little noise", 0.518, 44, 0.026, 0.273),
    MeasuredCorpus("package summaries", 0.491, 112, 0.004, 0.146),
    MeasuredCorpus("WordNet glosses", 0.412, 125, 0.002, 0.027),
)
"""As `python -m benchmarks.properties` measures them: decision 0059."""


def properties(vectors: Matrix, *, k: int = _KEPT, noise: float = _NOISE) -> dict[str, Any]:
    """Describe a corpus by what makes a sketch of it easy to break.

    Args:
        vectors: (n, d); at most 4,000 of them are looked at.
        k: dimensions that the sketch keeps.
        noise: its beta / 4, the radius of its noise.

    Returns:
        `effective_dimension`, the participation ratio of the spectrum; mean cosines to the `nearest` and the `tenth`
        other vector; the same in the frame of the sketch, `shown_nearest` and `shown_tenth`; `noise_ratio`, the noise
        over the distance to the nearest there; `like`, the measured corpus that is most like it in `shown_nearest` and
        `effective_dimension`; and a `sentence`.

    Raises:
        InputError: fewer than 50 vectors.
    """
    if len(vectors) < LEAST:
        raise InputError(f"vectors must be at least {LEAST}, got {len(vectors)}")
    points = unit(sample(float32(vectors), _MOST, np.random.default_rng(0)))
    away = centred(points)
    spectrum = np.maximum(eigen(away.T @ away / np.float32(len(away)))[0], 0)
    shown = unit(Statistics.fit(points, min(k, points.shape[1])).whitened(points))
    (nearest, tenth), (shown_nearest, shown_tenth) = _cosines(points), _cosines(shown)
    dimension = float(spectrum.sum() ** 2 / np.square(spectrum).sum())
    like = min(MEASURED, key=lambda one: one.apart(shown_nearest, dimension))
    found: dict[str, Any] = {
        "vectors": len(points),
        "effective_dimension": round(dimension, 1),
        "nearest": nearest,
        "tenth": tenth,
        "shown_nearest": shown_nearest,
        "shown_tenth": shown_tenth,
        "noise_ratio": round(noise / float(np.sqrt(max(1e-9, 2 - 2 * shown_nearest))), 2),
        "like": like.name,
    }
    return {**found, "sentence": _sentence(found, like)}


def _cosines(points: Matrix) -> tuple[float, float]:
    """Return the mean cosines to the nearest and to the tenth nearest other."""
    near = points[neighbours(points, _NEAR)[:, [0, -1]]]
    first, last = np.einsum("ijk,ik->j", near, points) / len(points)
    return round(float(first), 3), round(float(last), 3)


def _sentence(found: dict[str, Any], like: MeasuredCorpus) -> str:
    known = f"20 known pairs named {like.of_20:.1%} of a sketch of it, 50 pairs {like.of_50:.1%}"
    verdict = "broken" if like.of_50 > 0.5 else "not broken yet, which is not safe"
    return (
        f"Your vectors: cosine to the nearest {found['nearest']:.2f}, and {found['shown_nearest']:.2f} in what a sketch"
        f" shows; effective dimension {found['effective_dimension']:.0f}."
        f" Of the corpora that were measured, {like.name} is most like them: {known} ({verdict})."
    )
