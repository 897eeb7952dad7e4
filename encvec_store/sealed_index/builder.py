"""Builds graphs from the tail, merges them, and saves them. What is done depends on counts only, never on content.

Graphs form levels, as in an LSM tree (O'Neil et al., 1996): a young graph takes the tail, a few thousand rows at a
time, and is merged into the main graph when it has a quarter of its size. So every row enters a graph twice, and a
search asks at most two graphs and the tail. Graphs that are searched are never changed: the builder extends a copy.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from ..data.arrays import Rows
from ..errors import StoreError, StoreLockedError, StoreUnreachableError
from ..runtime.concurrency import Lock
from ..runtime.forks import generation
from .column_checking import distrust
from .filling import RowSource
from .growth import YOUNG, WideError, from_new_records, grown, home, some
from .index import COARSE, Opener, SealedIndex
from .kinds import chosen
from .lease import Lease
from .levels import done, loaded, work_of
from .ondemand import fetches
from .state import Indexed, Snapshot
from .steps import absorb, merge, rebuild

__all__ = ["FIRST", "Builder", "Progress"]

log = logging.getLogger("encvec_store")

FIRST = 5_000
"""A tail of more rows gets a graph. It takes less than a millisecond to compare so many vectors."""
LAST = 500
"""When a collection is flushed, shorter tails stay as they are."""
_REBUILD = 0.25
_UNSAVED = 0.2
"""A share of new vectors that makes it worth while to store the graphs again."""
_LITTLE = 0.02
"""A share of new vectors that is left unsaved when a store is closed."""
_LOADED = 200_000
"""New rows put into a graph before it is stored, at least: so much is lost when a long build is interrupted."""
_ROUNDS = 64
_PASSING = (StoreLockedError, StoreUnreachableError)
_PAUSE = 5.0
"""Seconds after which searches may ask for another run, if the last one could not do all."""

Progress = Callable[[int, int], None]
"""Called now and then with (vectors indexed since the last call, vectors in all)."""


class Builder:
    """Does the work that makes searches of a sealed index fast. One at a time in a process.

    Args:
        index: the index.
        kind: "auto", or the kind of graph wanted.
        memory: returns the bytes that the index may take.
    """

    def __init__(self, index: SealedIndex, kind: str, memory: Callable[[], int]) -> None:
        self._index, self._kind, self._memory = index, kind, memory
        self._turn = Lock()
        self._lease: Lease | None = None
        self._holder = os.urandom(12)
        self._builds: int | None = None
        """While it builds, how often this process was forked then: a child does not build on."""
        self.failed: str | None = None
        self._again = 0.0
        self._postponed = False
        """True if the store could not be written a moment ago."""

    def due(self, *, thorough: bool = False, purge: bool = False) -> list[str]:
        """Return in words what is to be done, as far as the state in memory shows."""
        state = self._index.state
        if state is None or self._kind == "flat" or state.tail.wide:
            return []
        found = []
        waiting = self._waiting(state)
        if waiting > (LAST if thorough and state.parts else FIRST):
            found.append(f"index {waiting:,} new records")
        if any(self._worn(part, purge=purge) for part in state.parts):
            found.append("build the index anew without deleted records")
        return found

    def run(
        self, opener: Opener, progress: Progress | None = None, *, thorough: bool = False, purge: bool = False
    ) -> list[str]:
        """Do what is due, and store the result. Returns what was done, in words.

        Args:
            opener: the open collection.
            progress: called now and then.
            thorough: index short tails too, and store everything.
            purge: leave out every deleted record.
        """
        done: list[str] = []
        with self._turn:
            self._builds = generation()
            try:
                self._index.load(opener)
                if not self._may_build(opener):
                    return []
                done += self._load(opener, progress)
                self._index.current(opener)
                for _ in range(_ROUNDS):
                    tasks = self.due(thorough=thorough, purge=purge)
                    if not self._step(opener, progress, thorough=thorough, purge=purge):
                        break
                    done += [task for task in tasks if task not in done]
                    self._renew()
                    self._save(opener, thorough=False)
                if thorough and self._index.shelf is not None:
                    distrust(opener, self._index.shelf)
                self._save(opener, thorough=thorough)
            finally:
                self._builds = None
                self._again = time.monotonic() + _PAUSE
                self._give_back()
        return done

    @property
    def building(self) -> bool:
        """True while this process builds."""
        return self._builds == generation()

    @property
    def exact(self) -> bool:
        """True if no graph is wanted: searches compare all vectors."""
        return self._kind == "flat"

    @property
    def waiting(self) -> int:
        """Count the records that are in no lasting graph, as far as the state in memory shows."""
        state = self._index.state
        return 0 if state is None else self._waiting(state)

    @property
    def wanted(self) -> bool:
        """True if searches would be faster after `run`, and it was not tried a moment ago."""
        state = self._index.state
        if state is None or self.building or self._waiting(state) <= FIRST or time.monotonic() < self._again:
            return False
        return self._kind != "flat" and not state.tail.wide

    def close(self, opener: Opener) -> None:
        """Store what was built, if it is much. Nothing is built for this."""
        shelf, state = self._index.shelf, self._index.state
        if shelf is None or shelf.refused or state is None or self.failed:
            return
        indexed = sum(len(part.rows) for part in state.parts if part.kept)
        if shelf.unsaved(state) > max(LAST, _LITTLE * indexed):
            with self._turn:
                try:
                    if self._may_build(opener):
                        self._save(opener, thorough=True)
                finally:
                    self._give_back()

    # one step

    def _waiting(self, state: Snapshot) -> int:
        return state.tail.living + sum(part.living for part in state.parts if not part.kept)

    def _worn(self, part: Indexed, *, purge: bool) -> bool:
        return part.dead > (0 if purge else _REBUILD * len(part.rows))

    def _step(self, opener: Opener, progress: Progress | None, *, thorough: bool, purge: bool) -> bool:
        """Do one step. Returns False if there is nothing to do."""
        state = self._index.state
        if state is None or self._kind == "flat" or state.tail.wide:
            return False
        pieces = partial(self._piece, progress)
        target = chosen(state.living, self._index.dim, self._memory(), self._kind)
        for version in sorted({*state.tail.versions.tolist(), *(part.version for part in state.parts)}):
            graphs = [part for part in state.parts if part.version == version and part.kept]
            coarse = [part for part in state.parts if part.version == version and not part.kept]
            tail = np.flatnonzero(state.tail.versions == version)
            waiting = len(tail) + sum(part.living for part in coarse)
            first = LAST if thorough and graphs else FIRST
            if target == "lists" and self._stores:
                worn = [part for part in graphs if self._worn(part, purge=purge)]
                work = work_of(state, version, waiting, first, worn, self._memory())
                if work is not None:
                    done(opener, self._index, state, version, work, tail, pieces, self._memory())
                    return True
            if target == "lists":
                graphs = [part for part in graphs if part.graph.kind != target]
            kind = {"flat": "hnsw", "lists": "ivf"}.get(target, target)
            wrong = [part for part in graphs if fetches(part) or (target != "flat" and part.graph.kind != kind)]
            if waiting > first or wrong:
                graphs = [part for part in graphs if part not in wrong]
                absorb(opener, self._index, state, version, graphs, [*coarse, *wrong], tail, kind, pieces)
                return True
            for part in graphs:
                if self._worn(part, purge=purge):
                    rebuild(self._index, part)
                    return True
            if len(graphs) > 1 and (len(graphs) > 2 or len(graphs[1].rows) > YOUNG * len(graphs[0].rows)):
                merge(opener, self._index, graphs, partial(self._piece, None))
                return True
        return False

    def _load(self, opener: Opener, progress: Progress | None) -> list[str]:
        """Put many new rows into a graph while they are opened, so that they are never all in memory."""
        done = []
        for version, rows in self._index.missing(opener).items() if self._kind != "flat" else ():
            if len(rows) <= COARSE:
                continue
            start = 0
            while start < len(rows):
                more = self._loaded(opener, version, rows[start:], progress, len(rows))
                if not more:
                    break
                start += more
                self._save(opener, thorough=False)
            if start:
                done.append(f"index {start:,} new records")
        return done

    def _loaded(self, opener: Opener, version: int, rows: Rows, progress: Progress | None, total: int) -> int:
        """Put the first of these rows into a graph. Returns how many; 0 if they belong in no graph."""
        state = self._index.state
        if state is None or state.tail.wide:
            return 0
        kind = chosen(state.living + len(rows), self._index.dim, self._memory(), self._kind)
        graphs = [part for part in state.parts if (part.version, part.kept, part.graph.kind) == (version, True, kind)]
        read, after = from_new_records(opener, self._index.metric), self._piece(progress, total)
        every, rows = rows, rows[: max(_LOADED, len(graphs[0].rows) if graphs else 0)]
        old, into = home(graphs, rows)
        added = np.sort(np.concatenate([rows, *(part.living_rows for part in old)]))
        try:
            if kind == "lists" and self._stores:
                loaded(opener, self._index, state, version, rows, every, read, after, self._memory())
                return len(rows)
            part = grown(self._index.metric, into, kind, version, added, read, after, every)
        except WideError:
            return 0
        self._index.adopt((*old, *some(into)), part)
        return len(rows)

    @property
    def _stores(self) -> bool:
        return self._index.shelf is not None and not self._index.shelf.refused

    def _piece(self, progress: Progress | None, total: int) -> Callable[[int], None]:
        """Return what is called after each piece of a build: it keeps the lease, and reports progress."""

        def after(count: int) -> None:
            self._renew()
            if progress is not None:
                progress(count, total)

        return after

    # at rest

    def _may_build(self, opener: Opener) -> bool:
        """Take the lease, and take over what another process has stored. Returns False if another one builds."""
        shelf = self._index.shelf
        if shelf is None or shelf.refused:
            return True
        self._lease = Lease(opener.records, opener.keyring, self._holder)
        try:
            free = self._lease.taken()
            if free:
                shelf.clear(opener.records, opener.keyring)
        except StoreError as error:
            self._give_back()
            self._refuse(error)
            return True
        state = self._index.state
        if state is not None and shelf.better(opener.records, opener.keyring, state):
            self._index.reload(opener)
        return free

    def _renew(self) -> None:
        """Renew the lease when it is due. A build goes on without it: two builders do no harm."""
        if self._lease is None or not self._lease.due:
            return
        try:
            if not self._lease.taken():
                self._lease = None
        except StoreError as error:
            self._lease = None
            self._refuse(error)

    def _give_back(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            try:
                lease.release()
            except StoreError as error:
                log.info("the builder's lease was not given back, and runs out by itself: %s", error)

    def _save(self, opener: Opener, *, thorough: bool) -> None:
        shelf, state = self._index.shelf, self._index.state
        if shelf is None or shelf.refused or state is None:
            return
        unsaved, indexed = shelf.unsaved(state), sum(len(part.rows) for part in state.parts if part.kept)
        if not unsaved and not shelf.outdated(state):
            return
        pressing = thorough or any(part.stored is None and fetches(part) for part in state.parts)
        if not pressing and unsaved < max(FIRST, _UNSAVED * indexed):
            return
        try:
            source = RowSource(opener, self._index.columns)
            saved, whole = shelf.save(opener.records, opener.keyring, state, source)
        except StoreError as error:
            self._refuse(error)
            return
        self._postponed = False
        self._index.noted(saved)
        if whole:
            return
        gone = any(part.stored is None and fetches(part) for part in saved.parts)
        if gone or shelf.better(opener.records, opener.keyring, saved):
            self._index.reload(opener)
        else:
            shelf.accept(opener.records, opener.keyring)

    def _refuse(self, error: StoreError) -> None:
        """Keep the index in memory from now on; if the store is only busy or out of reach, until the next run."""
        if isinstance(error, _PASSING):
            if not self._postponed:
                log.info("the sealed index was not stored, and will be at the next run: %s", error)
            self._postponed = True
            return
        if self._index.shelf is not None:
            self._index.shelf.refused = True
        log.info("the sealed index stays in memory, because the store cannot be written: %s", error)
