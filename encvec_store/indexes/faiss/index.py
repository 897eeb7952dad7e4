"""An index in memory that follows the records of a collection, and a copy of it on disk.

Records are written first. Nobody tells the index about a write: before it is used, it asks the records what changed.
So writes of this process and of others take the same path, in the order of their commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.arrays import Bytes, Matrix, Rows
from ...data.filters import Predicate
from ...errors import CollectionNotFoundError, StaleConfigError
from ...runtime.forks import Mutex, renew_in_child
from ...storage.protocol import Changes, Records, union
from ..protocol import CacheAuthenticator, Nearest, Probes, width
from .cache import Cache
from .locks import ReadWriteLock
from .options import FaissOptions
from .partition import Chosen, Partition, choose, mapped, stale, together
from .saved import State

__all__ = ["FaissIndex"]

_SAVE_LEAST, _SAVE_SHARE = 5_000, 0.2


class _ReplacedError(Exception):
    """All content was replaced while index vectors were read: some are old and some are new."""


class FaissIndex:
    """Implements `VectorIndex`, `BringsEnvelopes`, `KeepsEnvelopes` and `KeepsFiles` over any records.

    Args:
        records: the records of one collection.
        folder: where the files of this index are kept; None means nowhere.
        options: the kind of index, and how it is searched.
        read_only: never write to the folder.
    """

    def __init__(
        self, records: Records, folder: Path | None, options: FaissOptions, *, read_only: bool = False
    ) -> None:
        self._records = records
        self.options = options
        self._cache = None if folder is None else Cache(folder, records.spec, options, read_only=read_only)
        self._lock = ReadWriteLock()
        self._saving = Mutex()
        self._reset()
        renew_in_child(self)

    def renew(self) -> None:
        """Keep the index in a forked child, unless another thread of the parent was changing it."""
        if self._lock.renew():
            self._reset()

    def _reset(self) -> None:
        self._partitions: dict[int, Partition] = {}
        self._loaded = False
        self._state = State()
        """The state of the records that the index has followed to."""
        self._unsaved = 0
        """Vectors that were added to the index since it was saved."""
        self._tried = 0
        """`_unsaved` at the last attempt to save."""

    def candidates(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> list[Rows]:
        """Return up to `limit` rows for each query, nearest first."""
        with self._fitted(probes, width(probes), predicate) as chosen:
            return self._lists(chosen, probes, limit)

    def nearest(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> Nearest:
        """Return `candidates` with their vector envelopes."""
        with self._fitted(probes, width(probes), predicate) as chosen:
            lists = self._lists(chosen, probes, limit)
            rows = union(lists)
            held = mapped(self._partitions.values(), rows, self._records.spec.envelope_size)
        return Nearest(lists, *self._completed(rows, *held))

    def vectors(self, rows: Rows) -> tuple[Rows, Bytes]:
        """Return (found rows in the order asked, (m, envelope_size) uint8), from mapped files if possible."""
        asked = np.asarray(rows, np.int64)
        if not self._loaded or not len(asked):
            return self._records.vectors(asked)
        self._follow()
        with self._lock.shared():
            held = mapped(self._partitions.values(), asked, self._records.spec.envelope_size)
        return self._completed(asked, *held)

    def explain(self, partition: int, query: Matrix, limit: int, predicate: Predicate | None = None) -> str:
        """Say how `candidates` would answer."""
        with self._fitted((partition,), query.shape[-1], predicate) as chosen:
            there, choice = chosen.get(partition, (Partition(), (None, 0)))
            return there.explain(limit, choice, self.options)

    def authenticate(self, authenticator: CacheAuthenticator) -> None:
        """Take what checks cached files. Without it, no files are read or written."""
        if self._cache is not None:
            self._cache.authenticator = authenticator

    def forget(self) -> None:
        """Drop the index and its files."""
        with self._saving, self._lock.exclusive():
            self._reset()
            if self._cache is not None:
                self._cache.forget()

    def flush(self) -> None:
        """Index what is missing and save it."""
        if not (self._loaded or self._records.spec.index_dim):
            return  # no index vectors, as far as we know; the next search finds out
        with self._fitted():
            pass
        self._save()

    def close(self) -> None:
        """Save the index if it was loaded. No index is built for this."""
        dropped = False
        try:
            if self._loaded and self._unsaved:
                self._records.generation()
                self._save()
        except CollectionNotFoundError:
            dropped = True
        finally:
            self._release(remove=dropped)

    def remove(self) -> None:
        """Delete the files, because the collection was dropped."""
        self._release(remove=True)

    def _release(self, *, remove: bool) -> None:
        with self._saving, self._lock.exclusive():
            self._reset()
            if self._cache is not None:
                self._cache.remove() if remove else self._cache.close()

    def check(self) -> list[str]:
        """Return descriptions of damaged files."""
        return [] if self._cache is None else self._cache.check()

    def saved(self) -> tuple[int, int, int] | None:
        """Return generation, content and stamp of the records that the files belong to; None without files."""
        state = self._cache.saved() if self._cache else None
        return None if state is None else (state.generation, state.content, state.stamp)

    def stats(self) -> dict[str, Any]:
        """Describe the index."""
        counts = self._records.partitions()
        with self._lock.shared():
            partitions = {number: partition.stats() for number, partition in self._partitions.items()}
            loaded = self._loaded
            index_dim = self._state.index_dim if loaded else self._records.spec.index_dim
        kinds = {str(partition["index"]) for partition in partitions.values() if partition["index"]}
        planned = {self.options.kind_for(n) for n in counts.values() or [0]}
        return {
            "index": "+".join(sorted(kinds or planned)) if index_dim else "none",
            "loaded": loaded,
            "rows": sum(counts.values()),
            "dead": sum(int(partition["dead"] or 0) for partition in partitions.values()),
            "storage": self.options.storage,
            "ef_search": self.options.ef_search,
            "partitions": partitions,
            "bytes": {"index": 0, "vectors": 0} if self._cache is None else self._cache.sizes(),
        }

    @contextmanager
    def _fitted(
        self, partitions: Iterable[int] | None = None, dim: int | None = None, predicate: Predicate | None = None
    ) -> Iterator[Chosen]:
        """Hold the shared lock, and give up-to-date partitions with the rows that satisfy a predicate.

        Both are as of the same moment. Otherwise a record that is updated meanwhile could be in neither.

        Args:
            partitions: the partitions wanted; None means all.
            dim: coordinates of the probes, if there are any.
            predicate: None means all rows.

        Raises:
            StaleConfigError: index vectors do not have `dim` coordinates (any more).
        """
        wanted = None if partitions is None else tuple(partitions)
        newest = self._records.generation()
        with self._lock.shared():
            chosen = self._ready(newest, wanted, dim, predicate)
            if chosen is not None:
                yield chosen
                return
        with self._lock.exclusive() as share:
            with self._all_or_nothing():
                matching = self._bring_up(wanted, dim, predicate)
            self._check_dim(dim)
            chosen = choose(self._partitions, wanted, predicate, matching)
            share()
            yield chosen or {}
        indexed = sum(partition.indexed for partition in list(self._partitions.values()))
        if self._unsaved - self._tried >= max(_SAVE_LEAST, _SAVE_SHARE * indexed):
            self._save()  # a graph that took minutes must survive a kill

    def _ready(
        self, generation: int, wanted: tuple[int, ...] | None, dim: int | None, predicate: Predicate | None
    ) -> Chosen | None:
        """Return what `_fitted` gives, or None if the index must be updated first."""
        if not self._loaded or generation != self._state.generation:
            return None
        self._check_dim(dim)
        if stale(self._partitions, wanted, self.options):
            return None
        chosen = choose(self._partitions, wanted, predicate)
        if chosen is None and predicate is not None:
            changes, matching = self._records.following(generation, self._state.content, predicate)
            if changes is None:
                chosen = choose(self._partitions, wanted, predicate, matching)
        return chosen

    def _bring_up(self, wanted: tuple[int, ...] | None, dim: int | None, predicate: Predicate | None) -> Rows | None:
        """Follow the records, index what is new, and return the rows that satisfy a predicate as of the same moment."""
        matching: Rows | None = None
        while True:
            if not self._loaded:
                self._load()
            if predicate is None:
                changes = self._state.changes(self._records)
            else:
                changes, matching = self._records.following(self._state.generation, self._state.content, predicate)
            self._apply(changes)
            if changes is not None and changes.generation != self._state.generation:
                continue  # `_apply` had to ask again, so it has followed further than `matching`
            useless = dim not in (None, self._state.index_dim)
            if useless or not stale(self._partitions, wanted, self.options) or self._fit():
                return matching

    def _check_dim(self, dim: int | None) -> None:
        if dim not in (None, self._state.index_dim):
            raise StaleConfigError("the collection's settings were changed meanwhile")

    def _lists(self, chosen: Chosen, probes: Probes, limit: int) -> list[Rows]:
        queries = len(next(iter(probes.values())))
        if not (chosen and queries and limit > 0):
            return [np.empty(0, np.int64) for _ in range(queries)]
        return together(chosen, probes, limit, self.options)

    def _completed(self, asked: Rows, envelopes: Bytes, have: npt.NDArray[np.bool_]) -> tuple[Rows, Bytes]:
        """Read from the records what was not mapped, and leave out rows that no longer exist."""
        missing = np.flatnonzero(~have)
        if not len(missing):
            return asked, envelopes
        found, read = self._records.vectors(asked[missing])
        if len(found):
            at = missing[np.isin(asked[missing], found)]  # `found` is in the same order
            envelopes[at] = read
            have[at] = True
        return asked[have], envelopes[have]

    def _follow(self) -> None:
        """Learn of every write that was committed before this call."""
        generation = self._records.generation()
        if self._loaded and generation == self._state.generation:
            return
        with self._lock.exclusive(), self._all_or_nothing():
            self._bring_up((), None, None)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Drop the index if a change fails halfway. It is read again the next time."""
        try:
            yield
        except BaseException:
            self._reset()
            raise

    def _load(self) -> None:
        saved = self._cache.load(lambda state: state.changes(self._records, stamped=True)) if self._cache else None
        if saved is not None:
            self._partitions, self._state = saved.partitions, saved.state
            self._apply(saved.changes)
        self._loaded = True

    def _apply(self, changes: Changes | None) -> None:
        if changes is None:
            return
        if not changes.whole and any(
            len(rows) and number in self._partitions and rows[0] <= self._partitions[number].rows.last
            for number, rows in changes.added.items()
        ):
            # Ordinals ascend with rows. But overlapping writers may commit a lower row after a higher one.
            changes = self._records.changes(-1, changes.content) or changes
        index_dim = changes.index_dim or 0
        if (changes.content, index_dim) != (self._state.content, self._state.index_dim):
            self._partitions, self._unsaved, self._tried = {}, 0, 0
        nothing = np.empty(0, np.int64)
        for number in {*self._partitions, *changes.added} if index_dim else ():
            partition = self._partitions.setdefault(number, Partition())
            rows = changes.added.get(number, nothing)
            if changes.whole:
                partition.keep(rows, changes.next_row)
            else:
                partition.append(rows)
                partition.kill(changes.removed)
        self._state = State(changes.generation, changes.content, changes.stamp, index_dim)

    def _fit(self) -> bool:
        """Index what is missing. Returns False if rows were replaced meanwhile: the caller must follow again."""
        whole = True
        try:
            for partition in self._partitions.values():
                if partition.stale(self.options):
                    before = partition.indexed if partition.ann else 0
                    ann = partition.ann
                    whole &= partition.fit(self._index_vectors, self._state.index_dim, self.options)
                    self._unsaved += partition.indexed - before if partition.ann is ann else partition.indexed
            # rows keep their numbers when all content is replaced, so we may have read a mixture
            if self._state.outdated(self._records):
                raise _ReplacedError
        except _ReplacedError:
            self._reset()
            return False
        return whole

    def _index_vectors(self, rows: Rows) -> tuple[Rows, Matrix]:
        found, vectors = self._records.index_vectors(rows)
        if vectors.shape[1] != self._state.index_dim:
            raise _ReplacedError
        return found, vectors

    def _save(self) -> None:
        if self._cache is None:
            return
        with self._saving:
            with self._lock.shared():
                if not self._loaded or not self._state.index_dim or self._state.outdated(self._records):
                    return
                kept = self._cache.begin(self._partitions, self._state)
                unsaved = self._tried = self._unsaved
            # envelopes are copied without the lock, because that is slow
            if kept is not None and self._cache.finish(kept, self._records.vectors):
                with self._lock.exclusive():
                    if self._state.outdated(self._records):  # then these index vectors must not stay on disk
                        return self._cache.forget()
                    self._cache.adopt(kept)
                    self._unsaved = max(0, self._unsaved - unsaved)
                    self._tried = 0
