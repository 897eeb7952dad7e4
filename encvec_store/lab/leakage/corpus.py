"""What of a corpus decides how few known pairs break a sketch: how near neighbours are in what the sketch shows.

    print(properties(vectors)["sentence"])

An adversary with other texts of the kind guesses what a record may be from the texts around it. That works as far as a
record's neighbours resemble it once directions are whitened, as a sketch whitens them. Figures of several corpora stand
beside it (decision 0059). They are of one attack: where it named little, the corpus is not broken yet, and not safe.
"""

from __future__ import annotations

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
    """A corpus, 4,000 records of it under a sketch of k=250 and beta 5, and 4,583 other ones of the kind."""

    name: str
    tenth: float
    """Mean cosine to the tenth nearest other in the frame of the sketch."""
    of_20: float
    """Share that 20 known pairs name."""
    of_50: float


MEASURED = (
    MeasuredCorpus("Banking77", 0.356, 0.992, 0.994),
    MeasuredCorpus("CLINC150", 0.353, 0.038, 0.993),
    MeasuredCorpus("package summaries", 0.261, 0.005, 0.048),
    MeasuredCorpus("WordNet glosses", 0.242, 0.004, 0.026),
)
"""Decision 0059 says how each was measured."""


def properties(vectors: Matrix, *, k: int = _KEPT, noise: float = _NOISE) -> dict[str, Any]:
    """Describe a corpus by what makes a sketch of it easy to break.

    Args:
        vectors: (n, d); at most 4,000 of them are looked at.
        k: dimensions that the sketch keeps.
        noise: its beta / 4, the radius of its noise.

    Returns:
        `effective_dimension`, the participation ratio of the spectrum; mean cosines to the `nearest` and the `tenth`
        other vector; the same in the frame of the sketch, `shown_nearest` and `shown_tenth`; `noise_ratio`, the noise
        over the distance to the tenth; `like`, the measured corpus whose `shown_tenth` is nearest; and a `sentence`.

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
    like = min(MEASURED, key=lambda one: abs(one.tenth - shown_tenth))
    found: dict[str, Any] = {
        "vectors": len(points),
        "effective_dimension": round(float(spectrum.sum() ** 2 / np.square(spectrum).sum()), 1),
        "nearest": nearest,
        "tenth": tenth,
        "shown_nearest": shown_nearest,
        "shown_tenth": shown_tenth,
        "noise_ratio": round(noise / float(np.sqrt(max(1e-9, 2 - 2 * shown_tenth))), 2),
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
        f"Your vectors: effective dimension {found['effective_dimension']:.0f}, cosine to the nearest"
        f" {found['nearest']:.2f}, to the tenth {found['tenth']:.2f}; to the tenth in what a sketch shows"
        f" {found['shown_tenth']:.2f}."
        f" The nearest corpus that was measured is {like.name}: {known} ({verdict})."
    )
