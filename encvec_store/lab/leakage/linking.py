"""Link two dumps of the same records under two keys: does a new key help?

ISO/IEC 24745 calls this unlinkability and renewability. A linker is an attack that takes the other dump as its corpus.
A reported figure is the maximum over the linkers: a naive one may find nothing where an aligned one links everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...data import Matrix
from .algebra import centred, unit
from .attacks.cliques import cliques
from .attacks.coordinates import coordinates
from .attacks.icp import principal
from .attacks.independent import components
from .attacks.moments import density
from .metrics import equal_error_rate, hits, true_accept_rate, unlinkability
from .views import Case, View

__all__ = ["LINKERS", "linkage"]

_STRANGERS = 20
_LINKED = 0.99


def linkage(first: Matrix, second: Matrix, *, linkers: Sequence[str] | None = None, seed: int = 0) -> dict[str, Any]:
    """Link two dumps (n, k) of the same records under different keys.

    Row i of both is the same record; the linkers do not know that. Returns the figures of the linker with the largest
    D_sys, its permutation null, and its local D(s) as `curve`, pairs of score and D. `tried` holds each linker's D_sys.
    """
    placed = unit(centred(second))
    best, found, tried = -1.0, {}, {}
    for name in linkers or LINKERS:
        rng = np.random.default_rng(seed)
        located = unit(LINKERS[name](first, second[rng.permutation(len(second))], rng))
        mated = np.einsum("ij,ij->i", located, placed)
        strangers = np.concatenate(
            [np.einsum("ij,ij->i", located, np.roll(placed, shift, axis=0)) for shift in range(1, _STRANGERS + 1)]
        )
        d = unlinkability(mated, strangers, seed=seed)
        tried[name] = round(d.system, 4)
        if d.system > best:
            best = d.system
            found = {
                "linker": name,
                "d_sys": d.system,
                "d_sys_null": d.null,
                "rank_1": float(hits(located, placed).mean()),
                "chance": 1 / len(first),
                "eer": equal_error_rate(mated, strangers),
                "tar_at_far_0.1%": true_accept_rate(mated, strangers, 0.001),
                "curve": [[round(float(s), 4), round(float(v), 4)] for s, v in zip(d.scores, d.local, strict=True)],
            }
        if best > _LINKED:
            break  # no linker can do much better
    return {**found, "tried": tried}


def _by(attack: Callable[[View, Case], Matrix]) -> Callable[[Matrix, Matrix, np.random.Generator], Matrix]:
    def linker(first: Matrix, second: Matrix, rng: np.random.Generator) -> Matrix:
        mean = second.mean(axis=0)
        # the other dump serves as the corpus; both have noise already
        seen = View("centred", centred(first), lambda x: x - mean, lambda x: x - mean)
        return attack(seen, Case(first, second, rng))

    return linker


def _not_at_all(first: Matrix, second: Matrix, rng: np.random.Generator) -> Matrix:
    return centred(first)


LINKERS: dict[str, Callable[[Matrix, Matrix, np.random.Generator], Matrix]] = {
    "none": _not_at_all,
    "coordinates": _by(coordinates),
    "pca-icp": _by(principal),
    "components": _by(components),
    "cliques": _by(cliques),
    "density": _by(density),
}
"""Linkers by name: each takes two dumps (n, k), the second shuffled, and maps the first into the second's frame."""
