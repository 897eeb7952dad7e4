"""Vectors of people (or things) seen more than once: does the right one come up, for the user and for the thief?

ISO/IEC 24745 asks that protection cost no accuracy; and a thief who has other photographs of those
who are enrolled must not find them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from ...data import Matrix
from .algebra import blocks, nearest, unit
from .metrics import equal_error_rate, true_accept_rate
from .probes import LUCK, Labels

__all__ = ["accuracy", "people_found"]

_RATES = (0.01, 0.001)
Scores = npt.NDArray[np.float32]


def accuracy(
    hints: Scores,
    enrolled: Matrix,
    probes: Matrix,
    ids: tuple[Labels, Labels],
    candidates: Sequence[int],
) -> dict[str, Any]:
    """Error rates over all pairs of a probe (p, d) and an enrolled vector (n, d), by three kinds of score.

    `plain`: of the vectors; `ciphertexts`: those of ciphertexts alone, `hints` (p, n); `reranked`: exact scores
    of as many candidates as the store fetches and opens, all others refused. `ids` are those of enrolled and probes.
    Each gives `eer`, `tar@1%` and `tar@0.1%` (at that share of strangers accepted) and `rank_1`.
    """
    exact = probes @ enrolled.T
    mated = ids[1][:, None] == ids[0][None]
    found: dict[str, Any] = {"plain": _rates(exact, mated), "ciphertexts": _rates(hints, mated)}
    reranked = {}
    for count in sorted({min(count, len(enrolled)) for count in candidates}):
        opened = np.full_like(exact, -2.0)  # below every cosine
        for rows in blocks(len(exact), 256):
            top = np.argpartition(-hints[rows], count - 1, axis=1)[:, :count]
            np.put_along_axis(opened[rows], top, np.take_along_axis(exact[rows], top, axis=1), axis=1)
        reranked[str(count)] = _rates(opened, mated)
    return {**found, "reranked": reranked, "probes": len(probes), "mated_pairs": int(mated.sum())}


def _rates(scores: Scores, mated: npt.NDArray[np.bool_]) -> dict[str, float]:
    own, others = scores[mated], scores[~mated]
    rank_1 = mated[np.arange(len(scores)), scores.argmax(axis=1)].mean()
    rates = {f"tar@{far:.4g}": true_accept_rate(own, others, far) for far in _RATES}
    return {"eer": equal_error_rate(own, others), **rates, "rank_1": float(rank_1)}


def people_found(
    aligned: Iterable[tuple[str, Matrix, Matrix]], ids: tuple[Labels, Labels], plain: tuple[Matrix, Matrix]
) -> dict[str, Any]:
    """Find people by other pictures of them: linkage against an identity database of one's own.

    `aligned` are attempts: a name, where the n ciphertexts were located, and the other pictures (m, q) in the same
    frame. Counted is whose nearest located record is that person's; `plain` are the vectors (n, d), (m, d), for the
    share that no protection would leave. `ids` are those of the n and of the m, all of whom are enrolled.
    """
    owner, wanted = ids
    shares = {name: float((owner[nearest(unit(m), unit(n))] == wanted).mean()) for name, n, m in aligned}
    best = max(shares, key=lambda name: shares[name])
    chance = float((owner[:, None] == wanted[None]).mean())
    return {
        "identified": shares[best],
        "by": best,
        "chance": chance,
        "null": float(binom.isf(LUCK / len(shares), len(wanted), chance)) / len(wanted),
        "unprotected": float((owner[nearest(unit(plain[1]), unit(plain[0]))] == wanted).mean()),
        "pictures": len(wanted),
        "tried": {name: round(share, 5) for name, share in shares.items()},
    }
