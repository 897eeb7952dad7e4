"""The life of a `sketch` collection: sealed, then fitted on its own vectors, and anew; spread over cells as it grows.

Imports calibrate, writing, handle, crypto.profile. A move is one transaction (`writing.rewrite`): readers see the old
content until it commits, a crash leaves that, and running it again is how it is resumed. A failed move never fails
the write that set it off: it is logged, shown in `stats`, and tried again at a later write.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import length_hint
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.metrics import as_vectors, norms
from ..engine.session import Handle
from ..engine.write import rewrite, settle
from ..errors import CalibrationError, ProfileError, StaleConfigError, StoreLockedError
from ..schemes import profile as profiles
from ..schemes.cells import MAX_CELLS
from ..schemes.sketch import Sketch
from ..sealing.config import CollectionConfig
from ..waits import offload
from . import calibrate as calibration
from .simulation import MAX_QUERIES

__all__ = ["Lifecycle"]

_SAMPLE = 20_000
_OVERSAMPLES = (20, 30, 50, 75, 100, 150, 200)
_DOUBLED = 2
"""Candidates and cells are chosen for so many times the records there are."""
_REFIT_MOST = 100_000
"""Records up to which a stale profile is fitted anew by itself: beyond, it takes too long to happen unasked."""
_LATER = 1.25
BUDGET = 30_000
"""Records under one rotation up to which the floor was attacked (docs/threat-model.md): more take more cells."""
_LOOKS = 8
"""Counting costs a round trip: a collection is counted again after an eighth of what it lacked."""
_NEVER = 1 << 62

log = logging.getLogger("encvec_store")


class Lifecycle:
    """Decides after writes whether the collection moves, and moves it."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._moving = threading.Lock()
        self._not_before = 0
        self._failed: str | None = None
        self._counted: tuple[CollectionConfig | None, int] = None, 0
        """Under which settings records were counted last, and how many there were to go until a move."""
        self._written = 0
        """Records written since."""

    def wrote(self, records: int) -> None:
        """Move the collection if its time has come. Raises nothing that the write could be blamed for."""
        config = self._handle.config
        if not isinstance(config.scheme, Sketch):
            return
        self._written += records
        known, missing = self._counted
        if known is config and self._written * _LOOKS < missing and not self._stale(config):
            return
        counts = self._handle.backend.spaces()
        count, missing = sum(counts.values()), self._missing(config, config.scheme, counts)
        sooner = min(missing, self._unsized(config, count))
        self._counted, self._written = (config, sooner), 0
        if sooner > 0 or not self._moving.acquire(blocking=False):
            return  # it is not time, or another thread is at it
        try:
            self._move_quietly(config, count, self.fit if missing <= 0 else self._widen)
        finally:
            self._moving.release()

    def _missing(self, config: CollectionConfig, scheme: Sketch, counts: Mapping[int, int]) -> int:
        """Return how many records there are to go until the collection moves, about; none when it is time."""
        count, missing = sum(counts.values()), _NEVER
        if scheme.profile is None:
            if not self._too_narrow(config, scheme):
                missing = profiles.least_records(scheme.k) - count
        else:
            if self._stale(config) and count <= _REFIT_MOST:
                missing = _DOUBLED * (config.fitted or {}).get("records", 0) - count
            if _spreads(config):
                missing = min(missing, (BUDGET + 1 - max(counts.values(), default=0)) * config.cells)
        return max(missing, self._not_before - count)

    def _unsized(self, config: CollectionConfig, count: int) -> int:
        """Return how many records there are to go until they outgrow the candidates that were chosen for them."""
        fitted = config.fitted
        if fitted is None or config.profile is None or config.calibration is not None:
            return _NEVER
        sized: int = fitted.get("sized", fitted["records"])
        return max(sized + 1, self._not_before) - count

    def _widen(self, config: CollectionConfig) -> None:
        """Choose anew how many candidates are re-ranked: neighbours drown in the noise of more and more others."""
        vectors = self._handle.sample(_SAMPLE, seed=0)
        settle(self._handle, self._sized(config, vectors, self._handle.backend.count()))

    def _sized(self, config: CollectionConfig, vectors: npt.NDArray[np.float32], count: int) -> CollectionConfig:
        """Return the settings with candidates enough for twice the records."""
        planned = _DOUBLED * count
        times = offload(len(vectors), calibration.enough, config, vectors, planned, _OVERSAMPLES)
        fitted = {**(config.fitted or {}), "sized": planned}
        return replace(config, oversample=max(config.oversample, times), fitted=fitted)

    def _move_quietly(self, config: CollectionConfig, count: int, move: Callable[[CollectionConfig], Any]) -> None:
        try:
            if self._handle.refresh().sealed != config.sealed:
                return  # somebody else was quicker
            move(config)
            self._failed = None
        except (StaleConfigError, StoreLockedError) as error:
            log.info("collection moved or written by another process meanwhile: %s", error)
        except Exception as error:  # whatever it is, the records are written and readable as they were
            self._failed = f"{type(error).__name__}: {error}"
            self._not_before = int(_LATER * count) + 1
            log.warning("the collection stays as it is, its profile could not be fitted: %s", self._failed)

    def fit(self, config: CollectionConfig, progress: Any = None) -> CollectionConfig:
        """Fit the profile on the collection's own vectors and encrypt everything anew under it.

        Args:
            config: the stored settings, or those with other parameters of the scheme.
            progress: as for `Collection.refit`.

        Raises:
            ProfileError: too few records, or they vary in too few directions.
        """
        scheme = config.scheme
        if not isinstance(scheme, Sketch):
            raise CalibrationError(f"scheme {scheme.name!r} has no profile to fit")
        handle = self._handle
        # what was left to us is chosen again
        scheme = replace(scheme.unfitted(), threat=None, **dict.fromkeys((config.fitted or {}).get("chosen", ())))
        least = profiles.least_records(scheme.k)
        vectors = handle.sample(max(_SAMPLE, least), seed=0)
        if len(vectors) < least:
            raise ProfileError(f"a profile takes {least} records that can be read, and there are {len(vectors)}")
        spectrum = offload(len(vectors), profiles.fit, config.metric.lift(vectors, config.max_norm))
        profile = spectrum.profile(scheme.k)
        count = handle.backend.count()
        chosen = [name for name in ("k", "beta") if getattr(scheme, name) is None]
        fit = scheme.fitted(profile)
        if scheme.cells is None and count > BUDGET:
            fit = replace(fit, cells=min(MAX_CELLS, max(2, round(_DOUBLED * count / BUDGET))), threat=None)
            chosen.append("cells")
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        fitted = {"at": at, "records": count, "chosen": chosen}
        fresh = replace(config, scheme=fit, profile=profile, fitted=fitted)
        if config.calibration is None:
            fresh = self._sized(fresh, vectors, count)
        rewrite(handle, fresh, progress)
        return fresh

    def calibrate(
        self,
        sample: npt.ArrayLike | None,
        *,
        k: int,
        target_recall: float,
        max_candidates: int | None,
        planned_size: int | None,
        apply: bool,
        accept_less_noise: bool,
        attack: calibration.Attack | None,
        seed: int,
        progress: Any,
    ) -> calibration.Calibration:
        """Choose settings by simulation, and take them over. See `Collection.calibrate`."""
        handle = self._handle
        config = handle.refresh()
        vectors = (
            handle.sample(calibration.MAX_SAMPLE, seed)
            if sample is None
            else offload(length_hint(sample), as_vectors, sample, config.dim)
        )
        if config.metric.bounded and config.max_norm is None and len(vectors):
            config = config.bounded_by(float(norms(vectors).max()))
        config.metric.check(vectors, config.max_norm, "sample")
        found = offload(
            len(vectors) * MAX_QUERIES,
            calibration.simulate,
            config,
            vectors,
            k=k,
            target_recall=target_recall,
            max_candidates=max_candidates if max_candidates is not None else k * handle.oversample,
            planned_size=planned_size if planned_size is not None else handle.backend.count(),
            seed=seed,
            attack=attack,
        )
        if apply:
            if found.weak and not accept_less_noise:
                raise CalibrationError(found.weakness())
            self._take_over(config, found, progress)
            handle.oversample = found.oversample
        return found

    def _take_over(self, config: CollectionConfig, found: calibration.Calibration, progress: Any = None) -> None:
        """Encrypt everything anew as a calibration says; a sketch with too few records yet keeps it for later."""
        fresh = replace(calibration.applied(config, found), profile=None, fitted=None)
        scheme = fresh.scheme
        if isinstance(scheme, Sketch) and _spreads(config):
            fresh = replace(fresh, scheme=replace(scheme, cells=None, threat=None))
        if isinstance(scheme, Sketch) and self._handle.backend.count() >= profiles.least_records(scheme.k):
            self.fit(fresh, progress)
        else:
            rewrite(self._handle, fresh, progress)

    def stats(self) -> dict[str, Any] | None:
        """Describe where the collection stands; None for other schemes."""
        config = self._handle.config
        scheme, verdict = config.scheme, self._handle.drift.verdict
        if not isinstance(scheme, Sketch):
            return None
        if scheme.profile is None or config.profile is None:
            return {
                "state": "sealed",
                "until": None if self._too_narrow(config, scheme) else profiles.least_records(scheme.k),
                "failed": self._failed,
            }
        advice = [
            "refit: recent records differ from those it was fitted on" if self._stale(config) else "",
            f"more than {BUDGET:,} records under one rotation: our attacks had fewer; calibrate for more noise, or make"
            " the collection anew with more cells"
            if not _spreads(config) and max(self._handle.backend.spaces().values(), default=0) > BUDGET
            else "",
        ]
        return {
            "state": "sketch",
            "fitted": config.fitted,
            "sample": config.profile.records,
            "broad": config.profile.broad,
            "drift": verdict.to_dict() if verdict and verdict.profile == scheme.profile else None,
            "advice": "; ".join(filter(None, advice)) or None,
            "failed": self._failed,
        }

    def cells(self) -> dict[str, Any] | None:
        """Describe the cells; None where nothing is indexed."""
        config = self._handle.config
        if not config.index_dim:
            return None
        counts = self._handle.backend.spaces().values()
        sketch = isinstance(config.scheme, Sketch)
        return {
            "count": config.cells,
            "records": {"least": min(counts, default=0), "most": max(counts, default=0)},
            "budget": BUDGET if sketch else None,
            "moves_above": BUDGET * config.cells if _spreads(config) else None,
        }

    def _too_narrow(self, config: CollectionConfig, scheme: Sketch) -> bool:
        return scheme.k is None and config.point_dim < profiles.LEAST_DIMENSIONS

    def _stale(self, config: CollectionConfig) -> bool:
        verdict = self._handle.drift.verdict
        digest = config.scheme.profile if isinstance(config.scheme, Sketch) else None
        return verdict is not None and verdict.stale and verdict.profile == digest


def _spreads(config: CollectionConfig) -> bool:
    """Say whether the number of cells is ours to choose, as the collection grows."""
    scheme = config.scheme
    chosen = (config.fitted or {}).get("chosen", ())
    return isinstance(scheme, Sketch) and (scheme.cells is None or "cells" in chosen)
