"""Measure objectively: would a verifier accept the reconstruction as the person?

A verifier accepts two photographs as the same person if the cosine of their embeddings is above a threshold. With that
threshold it also accepts a share of 1e-3 of the pairs of different people (FAR). It compares with another photograph of
the person than the stolen one, so that fitting the stolen vector gains nothing; figures against the stolen photograph
are given too. Chance is what random faces of the same generator reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from encvec_store.lab.leakage.metrics import wilson

from .models import Matrix, unit

__all__ = ["FAR", "Judge", "Verdict", "by_chance", "threshold"]

FAR = 1e-3
_BLOCK = 512


def threshold(vectors: Matrix, labels: npt.NDArray[np.int64], far: float = FAR) -> float:
    """Return the cosine that a share `far` of all pairs of different people among (n, d) embeddings exceeds."""
    kept: list[npt.NDArray[np.float32]] = []
    strangers = 0
    allowed = int(far * len(vectors) ** 2 / 2) + 1
    for start in range(0, len(vectors), _BLOCK):
        part = slice(start, start + _BLOCK)
        alike = vectors[part] @ vectors.T
        later = np.arange(len(vectors))[None, :] > np.arange(start, start + len(alike))[:, None]
        scores = alike[later & (labels[part, None] != labels[None, :])]
        strangers += len(scores)
        kept.append(scores if len(scores) <= allowed else np.partition(scores, -allowed)[-allowed:])
    top = np.sort(np.concatenate(kept))[::-1]
    return float(top[min(int(far * strangers), len(top) - 1)])


@dataclass(frozen=True, eq=False)
class Judge:
    """A verifier of one model, with its templates of p people."""

    name: str
    threshold: float
    stolen: Matrix
    """(p, d): embeddings of the photographs whose embeddings were stolen."""
    other: Matrix
    """(p, d): of another photograph of each."""
    others: tuple[Matrix, ...]
    """Of all other photographs of each: p arrays (m, d)."""

    @property
    def between(self) -> npt.NDArray[np.float32]:
        """Cosines (p,) of the two real photographs of each person."""
        return self._alike(self.stolen, self.other)

    @property
    def genuine(self) -> float:
        """Share of the people whose two real photographs it accepts as one person: the ceiling for reconstructions."""
        return float((self.between > self.threshold).mean())

    @staticmethod
    def _alike(a: Matrix, b: Matrix) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = np.einsum("ij,ij->i", unit(a), unit(b)).astype(np.float32)
        return result

    def verdict(self, made: Matrix) -> Verdict:
        """Judge the embeddings (p, d) of p reconstructions, one per person."""
        same, other = self._alike(made, self.stolen), self._alike(made, self.other)
        every = [float((unit(made[[row]]) @ unit(theirs).T).mean()) for row, theirs in enumerate(self.others)]
        gallery = unit(self.other)
        ranked = (unit(made) @ gallery.T).argmax(axis=1) == np.arange(len(made))
        return Verdict(same, other, np.array(every), other > self.threshold, same > self.threshold, ranked)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a judge says of p reconstructions."""

    stolen: npt.NDArray[np.float32]
    """Cosine to the stolen photograph."""
    other: npt.NDArray[np.float32]
    """Cosine to another photograph."""
    others: npt.NDArray[np.float64]
    """Mean cosine to all other photographs."""
    accepted: npt.NDArray[np.bool_]
    """Accepted, against the other photograph."""
    accepted_stolen: npt.NDArray[np.bool_]
    """Accepted, against the stolen photograph."""
    first: npt.NDArray[np.bool_]
    """Whether the right one of all p people is the most similar."""

    def row(self) -> dict[str, Any]:
        """JSON values, with 95% Wilson intervals over people."""
        n = len(self.accepted)
        return {
            "accepted": float(self.accepted.mean()),
            "interval": [round(end, 4) for end in wilson(int(self.accepted.sum()), n)],
            "accepted_against_stolen": float(self.accepted_stolen.mean()),
            "accepted_against_stolen_interval": [round(end, 4) for end in wilson(int(self.accepted_stolen.sum()), n)],
            "ranked_first": float(self.first.mean()),
            "cosine_stolen": round(float(self.stolen.mean()), 4),
            "cosine_other": round(float(self.others.mean()), 4),
        }


def by_chance(judge: Judge, faces: Matrix) -> dict[str, Any]:
    """Judge (m, d) embeddings of random faces, every face against every person."""
    alike = unit(faces) @ unit(judge.other).T
    same = unit(faces) @ unit(judge.stolen).T
    accepted = alike > judge.threshold
    return {
        "accepted": float(accepted.mean()),
        "interval": [round(end, 6) for end in wilson(int(accepted.sum()), accepted.size)],
        "accepted_against_stolen": float((same > judge.threshold).mean()),
        "ranked_first": 1 / alike.shape[1],
        "cosine_stolen": round(float(same.mean()), 4),
        "cosine_other": round(float(alike.mean()), 4),
    }
