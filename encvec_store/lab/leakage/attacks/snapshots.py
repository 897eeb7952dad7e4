"""Two or more dumps of one collection, encrypted anew in between: average the noise away, then attack what is left.

A new key, a calibration or a refit gives each record fresh noise under another rotation. What stayed (row numbers,
their order, tokens) tells which records are the same, so the dumps are pairs for each other, and Procrustes turns them
together (generalised Procrustes analysis: Gower, Psychometrika 40, 1975). The mean of t dumps has noise beta / sqrt(t).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ....data import Matrix
from ..algebra import centred, procrustes, unit
from ..views import Case, View, view
from .independent import components

__all__ = ["averaged", "snapshots"]

_ROUNDS = 3


def snapshots(seen: View, case: Case) -> Matrix:
    """Average all dumps and align independent components."""
    case = averaged(case)
    quieter = view(seen.name, case)
    return seen.cipher if quieter is None else components(quieter, case)


def averaged(case: Case) -> Case:
    """Return the case with the mean of all dumps as its ciphertexts, in the coordinates of the first."""
    dumps = [unit(centred(dump)) for dump in (case.ciphertexts, *case.dumps)]
    mean = dumps[0]
    for _ in range(_ROUNDS):
        turned = [dump @ procrustes(dump, mean, min(dump.shape[1], mean.shape[1])) for dump in dumps]
        mean = unit(np.mean(turned, axis=0, dtype=np.float32))
    return replace(case, ciphertexts=mean, noise=case.noise / np.sqrt(len(dumps)), dumps=())
