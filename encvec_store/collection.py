"""The public collection: one short method for each task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, overload

import numpy as np
import numpy.typing as npt

from .data.ids import Id
from .data.records import Hit, Record
from .engine import read
from .engine.candidates import Sources
from .engine.explain import explain
from .engine.search import search
from .engine.session import Session
from .engine.write import upsert
from .maintenance import calibrate as calibration
from .maintenance.lifecycle import Lifecycle
from .maintenance.recall import RecallWatch
from .maintenance.rewrite import Progress
from .maintenance.scheme import SchemeChange
from .maintenance.statistics import statistics
from .maintenance.verify import VerifyReport, verify

__all__ = ["Collection", "Shared"]


@dataclass(frozen=True)
class Shared:
    """What all openings of one collection in a store share."""

    session: Session
    sources: Sources
    lifecycle: Lifecycle

    def close(self) -> None:
        """Wait for the running job, and store what was built."""
        self.lifecycle.close()
        self.session.index.close()


class Collection:
    """A named set of encrypted records. `Store.collection` returns it.

    Several threads may use it. When a method that writes returns, its write is durable. A write is all or nothing.
    """

    def __init__(self, shared: Shared, oversample: int | None = None) -> None:
        self._use = shared  # while somebody holds it, the store keeps the collection open
        self._session, self._sources, self._lifecycle = shared.session, shared.sources, shared.lifecycle
        self._oversample = oversample
        self._watch: RecallWatch | None = None

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._session.records.spec.name

    @property
    def tenant(self) -> str:
        """The tenant that owns it; "" if there is none."""
        return self._session.records.spec.tenant

    @property
    def dim(self) -> int:
        """The number of coordinates of a vector."""
        return self._session.config.dim

    @property
    def metric(self) -> str:
        """cosine, l2 or ip."""
        return self._session.config.metric.name

    def upsert(
        self,
        ids: Sequence[Id],
        vectors: npt.ArrayLike,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        documents: Sequence[str | None] | None = None,
    ) -> int:
        """Insert records, replace those whose ids exist, and return how many. On any error nothing is written.

        Args:
            ids: n distinct strings (1 to 1024 bytes), integers (64 bits) or UUIDs. They come back as they are: 1 and
                "1" are two ids.
            vectors: (n, dim) numbers, kept as float32, or as float16 with precision "half".
            metadata: n mappings of strings to str, int, float, bool, None, bytes, datetime, date, UUID, Decimal,
                or lists, tuples and dicts of these; types are kept. numpy scalars and other subclasses become the
                built-in type.
            documents: n strings (or None), sealed with the records.

        Raises:
            InputError: wrong shape, NaN, zero vector under cosine, norm above max_norm, repeated id, ...
            StoreLockedError: another process is writing; try again.
        """
        upsert(self._session, ids, vectors, metadata, documents)
        self._lifecycle.wrote(len(ids))
        return len(ids)

    @overload
    def search(
        self,
        queries: Sequence[float] | np.ndarray[tuple[int], Any],
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        include_vectors: bool = False,
    ) -> list[Hit]: ...
    @overload
    def search(
        self,
        queries: Any,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        include_vectors: bool = False,
    ) -> Any: ...
    def search(
        self, queries: Any, k: int = 10, where: Mapping[str, Any] | None = None, *, include_vectors: bool = False
    ) -> list[Hit] | list[list[Hit]]:
        """Find the k nearest records that satisfy a filter, nearest first, with exact scores.

        Args:
            queries: (dim,) gives one list of hits, (q, dim) gives q lists.
            k: hits for each query. Fewer come only if fewer records satisfy the filter.
            where: a filter, such as {"country": "de"}; the guide lists the operators.
            include_vectors: if True, each hit has its vector.

        Raises:
            InputError: wrong shape, NaN, zero query under cosine, malformed filter, unknown field.
            AuthenticationError: a candidate was altered, or the key is wrong.
            StoreUnreachableError: candidates were written again before they could be read, each time it tried.
        """
        hits = search(
            self._session,
            self._sources,
            queries,
            k,
            where,
            oversample=self._oversample,
            include_vectors=include_vectors,
        )
        self._lifecycle.looked()
        if self._watch is not None and where is None:
            self._watch.saw(queries, k, hits)
        return hits

    def watch_recall(self, share: float = 0.01, sample: int = 2_000) -> None:
        """Estimate the recall of searches, for `stats`: compare some with a random sample of records, kept in memory.

        A check takes about a millisecond for each thousand records. Searches with a filter are not checked. Which
        records a check reads depends on the query, so this raises InputError under threat "watching-server".

        Args:
            share: of the searches to check; 0 turns checking off, as it is until this method is called.
            sample: how many records to compare with.
        """
        hides = self._sources.hides(self._session.config.index_dim)
        self._watch = RecallWatch(self._session, share, sample, hides=hides) if share else None

    def explain(self, query: npt.ArrayLike, k: int = 10, where: Mapping[str, Any] | None = None) -> str:
        """Describe for people how `search` would answer one query: filters, index or scan, the server's plan."""
        return explain(self._session, self._sources, query, k, where, oversample=self._oversample)

    def get(self, ids: Sequence[Id], *, include_vectors: bool = True) -> list[Record]:
        """Return the records with these ids, in the order of `ids`. Unknown ids are left out.

        Raises StoreUnreachableError if one of them was written again before it could be read, each time it tried.
        """
        return read.get(self._session, ids, include_vectors=include_vectors)

    def delete(self, ids: Sequence[Id] | None = None, where: Mapping[str, Any] | None = None) -> int:
        """Delete records by id or by filter, all or nothing. Returns how many. Unknown ids are no error.

        Raises StoreUnreachableError if others write the same records again and again. It says how many were deleted.
        """
        return read.delete(self._session, self._sources, ids, where)

    def count(self, where: Mapping[str, Any] | None = None) -> int:
        """Count records. With a filter, count the readable records that satisfy it."""
        return read.count(self._session, self._sources, where)

    def scroll(self, where: Mapping[str, Any] | None = None, *, include_vectors: bool = True) -> Iterator[Record]:
        """Iterate over readable records in the order of their last write, with little memory.

        The records of one upsert come in random order, because the store must not reveal the order they were given in.
        A record that is updated during the iteration may come twice. A record that stays unchanged comes once.
        """
        return (record for page in self._pages(where, include_vectors=include_vectors) for record in page)

    def _pages(self, where: Mapping[str, Any] | None, *, include_vectors: bool) -> Iterator[list[Record]]:
        return self._kept_open(read.pages(self._session, where, include_vectors=include_vectors))

    def _kept_open(self, pages: Iterator[list[Record]]) -> Iterator[list[Record]]:
        """Hold the collection until the last page was read."""
        yield from pages

    def index_vectors(self, ids: Sequence[Id]) -> npt.NDArray[np.float32]:
        """Return the index vectors of these ids, as a thief would read them from the store: (n, index_dim).

        Use this to try attacks of your own. Raises InputError for an unknown id.
        """
        return read.index_vectors(self._session, ids)

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

        For `sketch` this also chooses the dimensions and gamma. The profile is always fitted on the collection's own
        vectors, even if a sample is given. If there are too few of them yet, the choice is kept until there are enough.

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
            CalibrationError: no noise meets the target, or only noise below the floor, or the sample is too small.
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

    def refit(self, *, progress: Progress | None = None) -> None:
        """Fit the profile of `sketch` again on the current vectors, and encrypt all records under it.

        This is one transaction. Readers see the old content until it commits; after a crash, run it again.

        Raises:
            ProfileError: there are too few records, or they vary in too few directions.
            CalibrationError: the collection's scheme has no profile.
            StaleConfigError: another process changed the settings meanwhile.
        """
        self._lifecycle.fit(progress=progress)

    def change(
        self,
        *,
        scheme: str | Mapping[str, Any],
        max_norm: float | None = None,
        progress: Progress | None = None,
    ) -> SchemeChange:
        """Encrypt all records again under another scheme, in place. All else stays: ids, metadata, documents, fields.

        This is one transaction. Readers see the old content until it commits; after a crash, run it again. Nothing of
        the old scheme stays in the store. The result says where old ciphertexts may still lie, and what to run. With
        the scheme that the collection has, nothing is done; a bare name means it with any parameters.

        Args:
            scheme: as for `Store.collection`. A sketch is fitted at once if there are records enough.
            max_norm: for l2 and ip, the longest allowed vector. By default it stays as it is. If it is not set and the
                scheme needs it, it is 1.25 times the length of the longest record.
            progress: called while records are encrypted again.

        Raises:
            SchemeError: the scheme cannot be understood, or does not fit the collection's dimension.
            NormError: a record is longer than max_norm.
            ProfileError: the vectors vary in too few directions for a sketch.
            StaleConfigError: another process changed the settings meanwhile.
            StoreUnreachableError: the server would have to rank, and lacks pgvector.
        """
        return self._lifecycle.change(scheme, max_norm=max_norm, progress=progress)

    def maintain(self, *, purge: bool = False, progress: Progress | None = None) -> list[str]:
        """Do the work that is due: index new records, or fit the profile, use more cells, take more candidates.

        With maintenance "inline" or "background" the store does this by itself. With "manual" it is done only here
        and by `encvec maintain`. Returns what was done, in words.

        Args:
            purge: with scheme "sealed", leave nothing of deleted records in the index.
            progress: called while records are indexed or encrypted again.

        Raises:
            ProfileError: the vectors vary in too few directions.
            StaleConfigError: another process changed the settings meanwhile.
        """
        return self._lifecycle.maintain(progress, purge=purge)

    def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        """Open every record, check that its parts belong together, and let the store check itself."""
        return verify(self._session, progress)

    def stats(self) -> dict[str, Any]:
        """Describe the collection in JSON values: settings, sizes, key versions, what a server sees of searches.

        With scheme "sealed", `sealed_index` describes the index: `kind`, `graphs` in memory with their `rows`, how many
        of these are `dead`, how many GPUs search (`on_gpu`), the `blocks` of lists on demand, the `tail` that is
        compared one by one, `memory_bytes` and `memory_limit`, stored `segments` with their `stored_rows` and
        `stored_bytes`, the stored `columns` of metadata among these, whether it is `building`, and why that `failed`.
        """
        return statistics(self._session, self._lifecycle, self._sources, self._watch, self._oversample)

    def flush(self) -> None:
        """Save the index, so that the next opening is fast. Records are durable without this."""
        self._lifecycle.flush()
        self._session.index.flush()
        self._session.records.flush()

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:  # also if it is empty: a truth test must not ask the store
        return True

    def __contains__(self, id: Id) -> bool:
        return bool(self.get([id], include_vectors=False))

    def __repr__(self) -> str:
        scheme = self._session.config.scheme
        return f"Collection({self.name!r}, dim={self.dim}, metric={self.metric!r}, scheme={scheme!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Collection cannot be pickled: connect where it is needed, or fork after connecting")
