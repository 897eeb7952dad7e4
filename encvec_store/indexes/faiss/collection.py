"""A collection: records in SQLite, an index in memory that follows them, a cache on disk; imports the files beside it.

Records are the truth and are written first. The index never hears of a write: before it is used it asks the
database what changed, so that writes of this and of other processes take the same path, in the order of commit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.fields import Term
from ...data.filters import Predicate
from ...errors import StaleConfigError
from ...storage.protocol import (
    Bytes,
    CacheAuthenticator,
    CollectionSpec,
    EncryptedBatch,
    Matrix,
    Nearest,
    Probes,
    Rows,
    union,
)
from ...storage.sqlite.check import check_records
from ...storage.sqlite.database import Database
from ...storage.sqlite.records import Change, Records
from .cache import Cache
from .locks import ReadWriteLock
from .options import Options
from .ordinals import Ordinals, mapped, together

__all__ = ["FaissCollection"]

_SAVE_LEAST = 5_000
_SAVE_SHARE = 0.2
_TOMBSTONES_MOST = 10_000


class FaissCollection:
    """Implements `BackendCollection`."""

    def __init__(
        self, database: Database, collection: int, spec: CollectionSpec, folder: Path, options: Options
    ) -> None:
        self.spec = spec
        self._options = options
        self._database = database
        self._records = Records(database, collection, spec)
        self._cache = Cache(folder, collection, spec, options)
        self._lock = ReadWriteLock()
        self._saving = threading.Lock()
        self._known = -1, -1
        """A data version of the file, and the generation there was then at least."""
        self._reset()

    def _reset(self) -> None:
        self._spaces: dict[int, Ordinals] = {}
        self._loaded = False
        self._generation = -1
        self._stamp = 0
        self._last = 0
        self._version: int | None = None
        self._unsaved = 0
        """Ordinals that entered the index since it was saved."""
        self._tried = 0
        """`_unsaved` at the last attempt."""

    # records

    def config(self) -> bytes:
        return self._records.config()

    def artefact(self, name: str) -> bytes | None:
        return self._records.artefact(name)

    def put(
        self,
        batch: EncryptedBatch,
        *,
        under: bytes,
        config: bytes | None = None,
        artefacts: Mapping[str, bytes] | None = None,
        more: Iterable[EncryptedBatch] = (),
    ) -> None:
        self._records.put(chain([batch], more), under, config, artefacts)

    def remove(self, rows: Rows) -> int:
        return self._records.remove(rows) if len(rows) else 0

    def replace(
        self,
        batches: Iterable[EncryptedBatch],
        config: bytes,
        *,
        under: bytes,
        index_dim: int | None = None,
        artefacts: Mapping[str, bytes] | None = None,
    ) -> None:
        self._records.replace(batches, under, config, index_dim, artefacts)

    def find(self, tokens: Bytes) -> Rows:
        return self._records.find(tokens)

    def rows(self, predicate: Predicate | None = None, *, after: int = 0, limit: int | None = None) -> Rows:
        return self._records.rows(predicate, after, limit)

    def count(self) -> int:
        return sum(self.spaces().values())

    def spaces(self) -> dict[int, int]:
        return self._records.spaces()

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        return self._records.payloads(rows)

    def index_vectors(self, rows: Rows) -> tuple[Rows, Matrix]:
        return self._records.index_vectors(rows)

    def audit(self, rows: Rows) -> list[tuple[int, int, bytes, set[tuple[str, Term]]]]:
        return self._records.audit(rows)

    def generation(self) -> int:
        version, generation = self._known
        now = self._database.data_version()
        if now != version:  # asked before the generation: a commit in between is seen the next time
            generation = self._records.generation()
            self._known = now, generation
        return generation

    # index

    def candidates(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> list[Rows]:
        with self._fitted(probes, _dim(probes)) as fitted:
            return self._lists(fitted, probes, limit, predicate)

    def explain(self, space: int, query: Matrix, limit: int, predicate: Predicate | None = None) -> str:
        with self._fitted((space,), query.shape[-1]) as fitted:
            return fitted.get(space, Ordinals()).explain(limit, predicate, self._matching, self._options)

    @contextmanager
    def _fitted(self, spaces: Iterable[int], dim: int) -> Iterator[dict[int, Ordinals]]:
        """Hold the shared lock and give the indexes of those spaces that there are, up to date.

        Raises:
            StaleConfigError: its vectors have not `dim` coordinates (any more).
        """
        if not dim:
            yield {}
            return
        self._follow()
        while True:
            with self._lock.shared():
                if self._loaded:
                    if dim != self.spec.index_dim:
                        raise StaleConfigError("the collection's settings were changed meanwhile")
                    found = {number: self._spaces[number] for number in spaces if number in self._spaces}
                    if not any(space.stale(self._options) for space in found.values()):
                        yield found
                        return
            self._follow()  # another thread may have dropped the cache
            self._fit()

    def _lists(
        self, fitted: dict[int, Ordinals], probes: Probes, limit: int, predicate: Predicate | None
    ) -> list[Rows]:
        queries = len(next(iter(probes.values())))
        if not (fitted and queries and limit > 0):
            return [np.empty(0, np.int64) for _ in range(queries)]
        return together(fitted, probes, limit, predicate, self._matching, self._options)

    def nearest(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> Nearest:
        with self._fitted(probes, _dim(probes)) as fitted:
            lists = self._lists(fitted, probes, limit, predicate)
            rows = union(lists)
            held = mapped(self._spaces.values(), rows, self.spec.envelope_size)
        return Nearest(lists, *self._completed(rows, *held))

    def vectors(self, rows: Rows, *, source: bool = False) -> tuple[Rows, Bytes]:
        asked = np.asarray(rows, np.int64)
        if source or not self._loaded or not len(asked):
            return self._records.envelopes(asked)
        self._follow()
        with self._lock.shared():
            held = mapped(self._spaces.values(), asked, self.spec.envelope_size)
        return self._completed(asked, *held)

    def _completed(self, asked: Rows, envelopes: Bytes, have: npt.NDArray[np.bool_]) -> tuple[Rows, Bytes]:
        """Read from the records what was not mapped, and leave out what they don't have."""
        missing = np.flatnonzero(~have)
        if not len(missing):
            return asked, envelopes
        found, read = self._records.envelopes(asked[missing])
        if len(found):
            at = missing[np.isin(asked[missing], found)]  # in the order asked, as `found` is
            envelopes[at] = read
            have[at] = True
        return asked[have], envelopes[have]

    def authenticate_cache(self, authenticator: CacheAuthenticator) -> None:
        self._cache.authenticator = authenticator

    def drop_cache(self) -> None:
        with self._saving, self._lock.exclusive():
            self._reset()
            self._cache.forget()

    def flush(self) -> None:
        if self._records.index_dim():
            self._follow()
            self._fit()
            self._save()
            self._records.purge(_TOMBSTONES_MOST)
        self._database.fold()

    def close(self) -> None:
        """Save what has been indexed. An index that nobody asked for is not built now."""
        if self._loaded and self._unsaved:
            self._save()
        with self._saving, self._lock.exclusive():
            self._reset()
            self._cache.close()

    def remove_files(self) -> None:
        """Delete the cache of a collection that was dropped."""
        with self._saving, self._lock.exclusive():
            self._reset()
            self._cache.remove()

    def check(self) -> list[str]:
        self._describe(self._records.index_dim())
        return check_records(self._database, self._records.collection, self.spec) + self._cache.check()

    def stats(self) -> dict[str, Any]:
        counts, index_dim = self.spaces(), self._records.index_dim()
        with self._lock.shared():
            spaces = {number: space.stats() for number, space in self._spaces.items()}
            loaded = self._loaded
        kinds = {str(space["index"]) for space in spaces.values() if space["index"]}
        planned = {self._options.kind_for(n) for n in counts.values()} or {self._options.kind_for(0)}
        return {
            "index": "+".join(sorted(kinds or planned)) if index_dim else "none",
            "loaded": loaded,
            "rows": sum(counts.values()),
            "dead": sum(int(space["dead"] or 0) for space in spaces.values()),
            "storage": self._options.storage,
            "ef_search": self._options.ef_search,
            "spaces": spaces,
            "bytes": {"records": self._database.size(), **self._cache.sizes()},
        }

    def _matching(self, predicate: Predicate) -> Rows:
        return self._records.rows(predicate, 0, None)

    def _follow(self) -> None:
        """Learn of every write that was committed before this call."""
        version = self._database.data_version()
        if self._loaded and version == self._version:
            return
        with self._changing():
            if not self._loaded:
                self._load()
            change = self._records.changes(self._generation, self._last)
            if change is not None:
                self._apply(change)
            self._version = version

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock alone. A change that is broken off leaves nothing behind: all is read anew, then."""
        with self._lock.exclusive():
            try:
                yield
            except BaseException:
                self._reset()
                raise

    def _describe(self, index_dim: int) -> None:
        """Take note of how many coordinates index vectors have."""
        self.spec = replace(self.spec, index_dim=index_dim)
        self._cache.spec = self.spec

    def _load(self) -> None:
        self._describe(self._records.index_dim())
        saved = self._cache.load()
        if saved is not None:
            self._spaces = saved.spaces
            change = self._records.changes(saved.generation, 0, saved.stamp)
            self._generation, self._stamp = saved.generation, saved.stamp
            self._last = max((space.rows.last for space in saved.spaces.values()), default=0)
            if change is not None:
                self._apply(change)
        self._loaded = True

    def _apply(self, change: Change) -> None:
        nothing = np.empty(0, np.int64)
        if change.index_dim not in (None, self.spec.index_dim):
            self._describe(change.index_dim or 0)
            self._spaces = {}  # every row is new: such a change lists all there is
        for number in {*self._spaces, *change.added}:
            space = self._spaces.setdefault(number, Ordinals())
            rows = change.added.get(number, nothing)
            if change.whole:
                space.keep(rows, change.next_row)
            else:
                space.append(rows)
                space.kill(change.removed)
        self._last = max((space.rows.last for space in self._spaces.values()), default=0)
        self._generation, self._stamp = change.generation, change.stamp

    def _fit(self) -> None:
        with self._changing():
            for space in self._spaces.values():
                if space.stale(self._options):
                    before = space.indexed if space.ann else 0
                    ann = space.ann
                    space.fit(self._records.index_vectors, self.spec.index_dim, self._options)
                    self._unsaved += space.indexed - before if space.ann is ann else space.indexed
            indexed = sum(space.indexed for space in self._spaces.values())
        if self._unsaved - self._tried >= max(_SAVE_LEAST, _SAVE_SHARE * indexed):
            self._save()  # a graph of minutes must not be lost to a kill

    def _save(self) -> None:
        with self._saving:
            with self._lock.shared():
                kept = self._cache.begin(self._spaces, self._generation, self._stamp)
                unsaved = self._tried = self._unsaved
            # the slow part, copying envelopes, goes on beside searches and writes
            if kept is not None and self._cache.finish(kept, self._records.envelopes):
                with self._lock.exclusive():
                    self._cache.adopt(kept)
                    self._unsaved -= unsaved
                    self._tried = 0


def _dim(probes: Probes) -> int:
    return int(next(iter(probes.values())).shape[1])
