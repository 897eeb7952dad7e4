"""The collection: records, searches, and the care of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy.typing as npt

from ..maintenance import calibrate as calibration
from ..maintenance.notices import tell_of_change
from ..maintenance.rekey import Rekeyed
from ..maintenance.rewrite import Progress
from ..maintenance.scheme import SchemeChange
from ..maintenance.statistics import statistics
from ..maintenance.verify import VerifyReport, verify
from ..runtime.observing import observed
from ..sealing.names import carry, fault
from .records import RecordVerbs
from .searching import SearchVerbs

__all__ = ["Collection"]


class Collection(RecordVerbs, SearchVerbs):
    """A named set of encrypted records. `Store.collection` returns it.

    Several threads may use it. When a method that writes returns, its write is durable. A write is all or nothing.
    """

    @observed
    def calibrate(
        self,
        sample: npt.ArrayLike | None = None,
        *,
        k: int = 10,
        target_recall: float = 0.99,
        max_candidates: int | None = None,
        planned_size: int | None = None,
        apply: bool = True,
        accept_less_noise: bool = False,
        attack: calibration.Attack | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> calibration.Calibration:
        """Choose the largest noise that still meets a recall target, and encrypt all records again with it.

        This is for server-ranked schemes: `sealed` has no noise. For `sketch` it also chooses the dimensions and gamma.
        The profile is always fitted on the collection's own vectors, even if a sample is given. If there are too few of
        them yet, the choice is kept until there are enough.

        Args:
            sample: (n, dim) vectors like those to be stored; by default up to 20,000 of the collection's own.
            k: hits that searches will ask for.
            target_recall: share of the true k nearest that must be found, below 1.
            max_candidates: records re-ranked per search; by default k times the collection's oversample.
            planned_size: records that the collection will hold; by default those it holds now.
            apply: if False, only report.
            accept_less_noise: apply the result even if its noise is below the floor, where our own attacks succeed.
            attack: a function called with the lifted sample and the chosen scheme. Its JSON report is kept.
            seed: for the simulation.
            progress: called while records are encrypted again.

        Raises:
            CalibrationError: the scheme is `sealed`; no noise meets the target, or only noise below the floor; the
                sample is too small.
            ProfileError: the vectors vary in too few directions.
        """
        found = self._lifecycle.calibrate(
            sample,
            k=k,
            target_recall=target_recall,
            max_candidates=max_candidates,
            planned_size=planned_size,
            oversample=(self._oversample or self._session.config.oversample),
            apply=apply,
            accept_less_noise=accept_less_noise,
            attack=attack,
            seed=seed,
            progress=progress,
        )
        if apply:
            self._oversample = found.oversample
        return found

    @observed
    def refit(self, *, progress: Progress | None = None) -> None:
        """Fit the profile of `sketch` again on the current vectors, and encrypt all records under it.

        This is one transaction. Readers see the old content until it commits; after a crash, run it again.

        Raises:
            ProfileError: there are too few records, or they vary in too few directions.
            CalibrationError: the collection's scheme has no profile.
            StaleConfigError: another process changed the settings meanwhile.
        """
        self._lifecycle.fit(progress=progress)

    @observed
    def change(
        self,
        *,
        scheme: str | Mapping[str, Any],
        max_norm: float | None = None,
        progress: Progress | None = None,
    ) -> SchemeChange:
        """Encrypt all records again under another scheme, in place. All else stays: ids, metadata, documents, fields.

        Others read and write meanwhile, under the old scheme. Pages of records are encrypted and stored beside them;
        at the end, one transaction puts all in place, and writers wait for it. Stopped or killed at any moment, it
        goes on where it was when it is called again; `stats()["change"]` tells how far it is. If another process ends
        the same change meanwhile, that is taken as it is. Nothing of the old scheme stays in the store. The result says
        where old ciphertexts may still lie, and what to run.

        With the scheme that the collection has, an unfinished change is given up, and nothing else is done; a bare name
        means it with any parameters. After `Keyset.rotate`, an unfinished change begins again.

        Args:
            scheme: as for `Store.collection`. A sketch is fitted at once if there are records enough.
            max_norm: for l2 and ip, the longest allowed vector. By default it stays as it is. If it is not set and the
                scheme needs it, it is 1.25 times the length of the longest record.
            progress: called while records are encrypted again; first with those that an earlier call has encrypted.

        Raises:
            SchemeError: the scheme cannot be understood, or does not fit the collection's dimension.
            NormError: a record is longer than max_norm.
            ProfileError: the vectors vary in too few directions for a sketch.
            StaleConfigError: keys or settings were changed meanwhile, or another process gave this change up.
            StoreUnreachableError: the server would have to rank, and lacks pgvector.
        """
        return self._lifecycle.change(scheme, max_norm=max_norm, progress=progress)

    @observed
    def rekey(self, *, progress: Progress | None = None) -> Rekeyed:
        """Seal everything anew that is under older key versions than the primary, after `Keyset.rotate`.

        Others read and write meanwhile: each page of records is a transaction of its own. Stopped at any moment, it
        goes on where it was when it is called again. Then the index is sealed anew, without being built. Records under
        disabled versions stay as they are.

        Args:
            progress: called after each page.

        Raises:
            AuthenticationError: records are damaged. All others are sealed anew.
        """
        carry(self._use.store)
        return self._lifecycle.rekey(progress)

    @observed
    def maintain(self, *, purge: bool = False, progress: Progress | None = None) -> list[str]:
        """Do the work that is due: index new records, or fit the profile, use more cells, take more candidates.

        With maintenance "inline" or "background" the store does this by itself. With "manual" it is done only here
        and by `encvec maintain`. Returns what was done, in words. A change of scheme that was stopped is not gone on
        with: a warning in the log says so.

        Args:
            purge: with scheme "sealed", leave nothing of deleted records in the index.
            progress: called while records are indexed or encrypted again.

        Raises:
            ProfileError: the vectors vary in too few directions.
            StaleConfigError: another process changed the settings meanwhile.
        """
        tell_of_change(self._session)
        return self._lifecycle.maintain(progress, purge=purge)

    @observed
    def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        """Open every record, check that its parts belong together, and let the store check itself.

        Settings and a sealed name are opened too. `Store.verify_names` checks the names of all collections.
        """
        report = verify(self._session, progress)
        report.store += fault(self._use.store, self._session.records)
        return report

    def stats(self) -> dict[str, Any]:
        """Describe the collection in JSON values: settings, sizes, key versions, what a server sees of searches.

        With scheme "sealed", `sealed_index` describes the index: `kind`, `graphs` in memory with their `rows`, how many
        of these are `dead`, how many GPUs search (`on_gpu`), the `blocks` of lists on demand, the `tail` that is
        compared one by one, `memory_bytes` and `memory_limit`, stored `segments` with their `stored_rows` and
        `stored_bytes`, the stored `columns` of metadata among these, whether it is `building`, and why that `failed`.
        """
        return statistics(self._session, self._lifecycle, self._sources, self._watch, self._oversample)

    @observed
    def flush(self) -> None:
        """Save the index, so that the next opening is fast. Records are durable without this."""
        self._lifecycle.flush()
        self._session.index.flush()
        self._session.records.flush()

    def __repr__(self) -> str:
        scheme = self._session.config.scheme
        return f"Collection({self.name!r}, dim={self.dim}, metric={self.metric!r}, scheme={scheme!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Collection cannot be pickled: connect where it is needed, or fork after connecting")
