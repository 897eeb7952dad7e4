"""Maintenance of a collection as it grows: what is due after a write, and who does it when.

The scheme says what is due (`Scheme.after_write`): fit or refit a profile, use more cells, re-rank more candidates. A
fit is one transaction (`rewrite`). Readers see the old content until it commits. After a crash the old content is
still there, and the fit is simply run again. A failure in the background never fails the write that made the work due:
it is logged, shown in `stats`, and tried again at a later write.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from operator import length_hint
from typing import Any

import numpy.typing as npt

from ..data.arrays import Matrix
from ..data.metrics import as_vectors, norms
from ..engine.session import Session
from ..errors import CalibrationError, InputError, StaleConfigError, StoreLockedError
from ..runtime.concurrency import offload
from ..schemes.simulation import MAX_QUERIES
from ..schemes.strategy import NEVER, Standing, Task
from ..sealed_index import Indexes
from ..sealing.config import CollectionConfig
from . import calibrate as calibration
from .changing import change
from .fitting import SAMPLE, fitted_again, grown, sized
from .indexing import Indexing
from .jobs import Job
from .rekey import Rekeyed, rekey
from .rewrite import Progress, rewrite, settle
from .scheme import SchemeChange

__all__ = ["MODES", "Lifecycle"]

MODES = ("background", "inline", "manual")
"""Who does the work: a background thread or task, the write that made it due, or only `Collection.maintain`."""
_LATER = 1.25
_LOOKS = 8
"""Counting costs a round trip. So records are counted again after 1/8 of those that were missing are written."""
_ROUNDS = 8
"""Most tasks that one call of `maintain` does: doing one may make another due."""

log = logging.getLogger("encvec_store")


class Lifecycle:
    """Checks after writes whether work on the whole collection is due, and gets it done.

    Args:
        session: the collection.
        indexes: the index over its opened vectors.
        mode: one of MODES.
    """

    def __init__(self, session: Session, indexes: Indexes, mode: str = "background") -> None:
        if mode not in MODES:
            raise InputError(f"maintenance must be one of {', '.join(MODES)}, got {mode!r}")
        self.mode = mode
        self._session = session
        self.job = Job("encvec-maintenance")
        self._indexing = Indexing(session, indexes, self.job, mode)
        self._not_before = 0
        """After a failure, nothing is tried again automatically until there are this many records."""
        self._failed: str | None = None
        self._hinted: set[bool] = set()
        self._counted: tuple[CollectionConfig | None, int] = None, 0
        """The settings at the last count of records, and how many records were missing then until work is due."""
        self._written = 0
        """Records written since that count."""
        self._seen = 0
        """Records at that count."""
        self._changing = False

    # what is due

    def wrote(self, records: int) -> None:
        """Take note of a write, and start what is due. A failure of that work is not raised."""
        config = self._session.config
        if not config.scheme.needs_profile:
            self._indexing.wrote(records)
            return
        if self._changing:  # a write must not wait for that, and afterwards all is looked at
            return
        self._written += records
        known, missing = self._counted
        if known is config and self._written * _LOOKS < missing and not self._stale(config):
            return
        standing = self._standing(config)
        tasks = config.scheme.after_write(standing)
        soonest = max(min((task.missing for task in tasks), default=NEVER), self._not_before - standing.records)
        self._counted, self._written, self._seen = (config, soonest), 0, standing.records
        if soonest > 0:
            return
        match self.mode:
            case "inline":
                self.job.run(self._quietly)
            case "background":
                self.job.start(self._quietly)
            case _:
                self._hint(tasks)

    def looked(self) -> None:
        """Take note of a search, as `wrote` does of a write."""
        self._indexing.looked()

    def flush(self) -> None:
        """Index what is missing and store the index over opened vectors, so that the next opening is fast."""
        with self.job.turn:
            self._indexing.run(thorough=True)

    def due(self) -> list[str]:
        """Return what is due, in words."""
        if not self._session.config.scheme.needs_profile:
            return self._indexing.due()
        return [task.name for task in self._due(self._session.config)[0]]

    def maintain(self, progress: Progress | None = None, *, purge: bool = False) -> list[str]:
        """Do what is due, in the calling thread, after a running job has ended. Returns what was done, in words.

        Args:
            progress: called now and then with (records done since the last call, records in all).
            purge: also build an index anew that still holds deleted records.

        Raises:
            ProfileError: the records vary in too few directions.
            StaleConfigError: another process changed the settings meanwhile.
        """
        done: list[str] = []
        before = None
        with self.job.turn:
            done += self._indexing.run(progress, thorough=True, purge=purge)
            for _ in range(_ROUNDS):
                config = self._session.refresh()
                tasks, records = self._due(config)
                if not tasks or before == (tasks[0].name, records):
                    break
                before = tasks[0].name, records
                if tasks[0].fits:
                    self._fit(config, progress)
                else:
                    self._widen(config)
                done.append(tasks[0].name)
                self._failed = None
        return done

    def close(self) -> None:
        """Wait for the running job, start no other, and store what was built."""
        self.job.close()
        self._indexing.close()

    def drop(self) -> None:
        """Wait for the running job, and start no other: the collection was dropped."""
        self.job.close()
        self._indexing.drop()

    def _standing(self, config: CollectionConfig) -> Standing:
        verdict = self._session.drift.verdict
        return Standing(
            point_dim=config.point_dim,
            counts=tuple(self._session.records.partitions().values()),
            profile=config.profile,
            fitted=config.fitted,
            calibrated=config.calibration is not None,
            verdict=verdict if verdict is not None and verdict.profile == config.scheme.profile else None,
        )

    def _due(self, config: CollectionConfig) -> tuple[list[Task], int]:
        """Return the tasks that are due and the number of records. Fits come first: a fit does all other tasks too."""
        if not config.scheme.needs_profile:
            return [], 0
        standing = self._standing(config)
        tasks = [task for task in config.scheme.after_write(standing) if task.missing <= 0]
        return sorted(tasks, key=lambda task: not task.fits), standing.records

    def _stale(self, config: CollectionConfig) -> bool:
        verdict = self._session.drift.verdict
        return verdict is not None and verdict.stale and verdict.profile == config.scheme.profile

    def _hint(self, tasks: list[Task]) -> None:
        """Log what is due, until it is done: one line for a fit, one for the other tasks."""
        due = {task.fits for task in tasks if task.missing <= 0}
        for task in tasks:
            if task.missing <= 0 and task.fits not in self._hinted:
                log.info("due: %s. Call Collection.maintain(), or run `encvec maintain`", task.name)
        self._hinted = due

    def _quietly(self) -> None:
        """Do what is due. A failure goes to the log and to `stats`."""
        try:
            self.maintain()
        except (StaleConfigError, StoreLockedError) as error:
            log.info("maintenance stopped, another process was writing: %s", error)
        except Exception as error:  # whatever it is, the records are stored and readable
            self._failed = f"{type(error).__name__}: {error}"
            self._not_before = int(_LATER * self._seen) + 1
            log.warning("maintenance failed, the collection stays as it is: %s", self._failed)
        finally:
            self._counted = None, 0

    # work on the whole collection

    def fit(self, config: CollectionConfig | None = None, progress: Progress | None = None) -> CollectionConfig:
        """Fit the profile on the collection's own vectors, and encrypt everything anew under it.

        Args:
            config: the stored settings with other parameters of the scheme. By default the stored settings, read
                when no other job of this process is running.
            progress: as for `maintain`.

        Raises:
            ProfileError: too few records, or they vary in too few directions.
            CalibrationError: the scheme has no profile.
        """
        with self.job.turn:
            return self._fit(self._session.refresh() if config is None else config, progress)

    def plans(self, count: int) -> bool:
        """Say whether the scheme of an empty collection would be fitted once it holds `count` records."""
        config = self._session.config
        return config.scheme.needs_profile and config.profile is None and count >= config.scheme.least_records

    def plan(self, vectors: Matrix, count: int) -> None:
        """Fit the profile before the first write, so that a load of known size is encrypted once.

        Does nothing if the collection has records or a profile, or if the sample is too small.

        Args:
            vectors: (n, dim) finite vectors, a random sample of those to come.
            count: how many are to come.

        Raises:
            ProfileError: they vary in too few directions.
        """
        with self.job.turn:
            config = self._session.refresh()
            ready = config.max_norm is not None or not config.metric.bounded
            if ready and self.plans(count) and not self._session.records.count():
                fresh = grown(config, vectors, count)
                if fresh is not config:
                    rewrite(self._session, fresh)

    def _fit(self, config: CollectionConfig, progress: Progress | None) -> CollectionConfig:
        rewrite(self._session, fresh := fitted_again(self._session, config), progress)
        return fresh

    def _widen(self, config: CollectionConfig) -> None:
        """Choose again how many candidates are re-ranked: in a larger collection more records rank near by noise."""
        vectors = self._session.sample(SAMPLE, seed=0)
        settle(self._session, sized(config, vectors, self._session.records.count()))

    def calibrate(
        self,
        sample: npt.ArrayLike | None,
        *,
        k: int,
        target_recall: float,
        max_candidates: int | None,
        planned_size: int | None,
        oversample: int,
        apply: bool,
        accept_less_noise: bool,
        attack: calibration.Attack | None,
        seed: int,
        progress: Progress | None,
    ) -> calibration.Calibration:
        """Choose settings by simulation, and apply them. The caller applies the candidates per hit to its opening."""
        # no job may change the settings meanwhile
        with self.job.turn if apply else nullcontext():
            session = self._session
            config = session.refresh()
            calibration.check_noisy(config)
            vectors = (
                session.sample(calibration.MAX_SAMPLE, seed)
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
                max_candidates=max_candidates if max_candidates is not None else k * oversample,
                planned_size=planned_size if planned_size is not None else session.records.count(),
                seed=seed,
                attack=attack,
            )
            if apply:
                if found.weak and not accept_less_noise:
                    raise CalibrationError(found.weakness())
                rewrite(session, self._ready(calibration.applied(config, found)), progress)
            return found

    def _ready(self, config: CollectionConfig) -> CollectionConfig:
        """Fit the scheme. If there are too few records for a profile yet, keep the choice for later."""
        due = any(task.fits and task.missing <= 0 for task in config.scheme.after_write(self._standing(config)))
        return fitted_again(self._session, config) if due else config

    def change(self, scheme: Any, *, max_norm: float | None, progress: Progress | None) -> SchemeChange:
        """Encrypt everything anew under another scheme. See `Collection.change`."""
        with self.job.turn:
            self._changing = True
            try:
                found = change(self._session, scheme, max_norm, self._ready, self._indexing.turn, progress)
            finally:
                self._changing = False
        if found.changed:
            self._counted, self._failed, self._not_before = (None, 0), None, 0
            self.wrote(found.records)
        return found

    def rekey(self, progress: Progress | None = None) -> Rekeyed:
        """Seal all records, and the index, anew under the primary key version. See `Collection.rekey`."""
        with self.job.turn:
            return rekey(self._session, lambda: self._indexing.run(thorough=True), progress)

    # stats

    def stats(self) -> dict[str, Any] | None:
        """Describe the profile and what it waits for; None if the scheme has no profile."""
        config = self._session.config
        if not config.scheme.needs_profile:
            return None
        state = config.scheme.state(self._standing(config))
        return None if state is None else {**state, "failed": self._failed}

    def index_stats(self) -> dict[str, Any] | None:
        """Describe the index over opened vectors; None if the scheme has index vectors, even if only later."""
        return self._indexing.stats()

    def cells(self) -> dict[str, Any] | None:
        """Describe the cells; None if there are no index vectors."""
        config = self._session.config
        if not config.index_dim:
            return None
        standing, scheme, budget = self._standing(config), config.scheme, config.scheme.budget
        return {
            "count": config.cells,
            "records": {"least": min(standing.counts, default=0), "most": standing.most},
            "budget": budget,
            "moves_above": budget * config.cells if budget and scheme.spreads(standing.chosen) else None,
        }
