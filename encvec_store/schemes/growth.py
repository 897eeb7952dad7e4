"""How a sketch grows with its collection: sealed at first, then fitted, fitted again, and spread over cells."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import profile as profiles
from .cells import MAX_CELLS
from .drift import undrifted
from .strategy import NEVER, Fit, Standing, Task

if TYPE_CHECKING:
    from ..data.arrays import Matrix
    from ..data.metrics import Centre
    from .sketch import Sketch

__all__ = ["after_write", "fit", "spreads", "state", "until"]

DOUBLED = 2
"""Candidates and cells are chosen for twice the current records, and a stale profile waits until there are as many."""
REFIT_MOST = 100_000
"""Up to so many records a stale profile is fitted again automatically. With more this takes too long."""
BUDGET = 30_000
"""Records under one rotation that our attacks on the floor had (docs/threat-model.md). More need more cells."""


def spreads(scheme: Sketch, chosen: Collection[str]) -> bool:
    """Say whether the number of cells may be chosen here."""
    return scheme.cells is None or "cells" in chosen


def until(scheme: Sketch, point_dim: int) -> int | None:
    """Return how many records a fit needs; None if points have too few coordinates for a sketch."""
    if scheme.k is None and point_dim < profiles.LEAST_DIMENSIONS:
        return None
    return profiles.least_records(scheme.k)


def after_write(scheme: Sketch, standing: Standing) -> list[Task]:
    """See `Scheme.after_write`."""
    records, fitted = standing.records, standing.fitted or {}
    if scheme.profile is None:
        least = until(scheme, standing.point_dim)
        if least is None:
            return []
        return [Task(f"fit a profile: there are {least} records or more", least - records, fits=True)]
    tasks = []
    if standing.stale and records <= REFIT_MOST:
        missing = DOUBLED * fitted.get("records", 0) - records
        tasks.append(Task("refit: recent records differ from those it was fitted on", missing, fits=True))
    if spreads(scheme, standing.chosen):
        # when the largest cell is full, the others soon will be
        missing = (BUDGET + 1 - standing.most) * (scheme.cells or 1)
        tasks.append(Task(f"spread over more cells: one holds more than {BUDGET} records", missing, fits=True))
    if standing.fitted is not None and standing.profile is not None and not standing.calibrated:
        sized: int = fitted.get("sized", fitted.get("records", NEVER))
        reason = f"widen: the candidates of a search were chosen for {sized} records"
        tasks.append(Task(reason, sized + 1 - records, fits=False))
    return tasks


def fit(scheme: Sketch, points: Matrix, records: int, centre: Centre | None) -> Fit:
    """See `Scheme.fit`. The scheme has no profile."""
    profile = replace(profiles.fit(points).profile(scheme.k), centre=centre)
    chosen = [name for name in ("k", "beta") if getattr(scheme, name) is None]
    fitted = scheme.fitted(profile)
    if scheme.cells is None and records > BUDGET:
        cells = min(MAX_CELLS, max(2, round(DOUBLED * records / BUDGET)))
        fitted = replace(fitted, cells=cells, threat=None)
        chosen.append("cells")
    return Fit(fitted, profile, chosen, undrifted(points, profile.k, fitted.noise / 4))


_NOTHING = dict.fromkeys(("until", "fitted", "sample", "broad", "drift", "advice"))


def state(scheme: Sketch, standing: Standing) -> Mapping[str, Any]:
    """See `Scheme.state`."""
    if scheme.profile is None or standing.profile is None:
        return {**_NOTHING, "state": "sealed", "until": until(scheme, standing.point_dim)}
    crowded = not spreads(scheme, standing.chosen) and standing.most > BUDGET
    advice = [
        "refit: recent records differ from those it was fitted on" if standing.stale else "",
        f"more than {BUDGET:,} records under one rotation: our attacks had fewer; calibrate for more noise, or create"
        " the collection again with more cells"
        if crowded
        else "",
    ]
    return {
        **_NOTHING,
        "state": "sketch",
        "fitted": standing.fitted,
        "sample": standing.profile.records,
        "broad": standing.profile.broad,
        "drift": standing.verdict.to_dict() if standing.verdict else None,
        "advice": "; ".join(filter(None, advice)) or None,
    }
