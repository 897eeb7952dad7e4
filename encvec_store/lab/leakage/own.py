"""The strongest attacks of the lab, run on the user's own sample with given settings of a scheme.

Half of the sample is stored, the other half is what the adversary holds instead ("disjoint"), or he holds the very
vectors that are stored ("same"). The statistics of a sketch are those of the whole sample, as the collection's are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data import Matrix
from ...errors import InputError
from ...schemes import Scheme
from .experiment import Experiment, Row, worst
from .registered import Registered
from .running import run

__all__ = ["SampleAttack"]

LOOKS = {"components": "sphere", "density": "sphere", "cliques": "sphere", "pca-icp": "centred"}
"""The strongest attacks, and the view in which each did best."""


LEAST = 40
_MOST = 4_000
_KEPT = ("beta", "identified", "ci_low", "ci_high", "chance", "attack", "adversary", "n")


@dataclass(frozen=True)
class SampleAttack:
    """What `Collection.calibrate(attack=...)` calls.

    Args:
        attacks: of LOOKS.
        others: noises tried beside the one chosen, as multiples of it: how far the point is from breaking.
        keys: number of keys.
    """

    attacks: Sequence[str] = tuple(LOOKS)
    others: Sequence[float] = (0.5, 0.75, 1.25)
    keys: int = 1

    def __call__(self, points: Matrix, scheme: Scheme) -> dict[str, Any]:
        """Attack (n, point_dim) unit vectors under a scheme without a profile; the report as JSON values.

        `identified` is the share of records that the worst of attacks, keys and adversaries names at the scheme's own
        noise; `by_beta` has that row for every noise tried.

        Raises:
            InputError: fewer than 80 points.
        """
        if len(points) < 2 * LEAST:
            raise InputError(f"an attack needs a sample of at least {2 * LEAST} vectors, got {len(points)}")
        order = np.random.default_rng(0).permutation(len(points))
        half = len(points) // 2
        given = {name: value for name, value in scheme.parameters().items() if value is not None}
        beta = float(given["beta"])
        betas = sorted({beta, *(round(beta * times, 2) for times in self.others)})
        rows: list[Row] = []
        for attack in self.attacks:
            experiment = Experiment(
                points[order[:half]],
                points[order[half:]],
                [(scheme.name, Registered.of({**given, "name": scheme.name, "beta": each})) for each in betas],
                (attack,),
                (min(_MOST, half),),
                self.keys,
                name="sample",
                views=(LOOKS[attack],),
                profile=points,
            )
            rows += run(experiment)
        rows = worst(rows)
        by_beta = [_worst(rows, each) for each in betas]
        return {**by_beta[betas.index(beta)], "by_beta": by_beta}


def _worst(rows: list[Row], beta: float) -> dict[str, Any]:
    tried = [{**row, "beta": beta} for row in rows if row["parameters"]["beta"] == beta]
    row = max(tried, key=lambda each: each["identified"])
    return {name: row[name] for name in _KEPT}
